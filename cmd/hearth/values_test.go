package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/secret"
)

func TestDurationFlag(t *testing.T) {
	f := func(want time.Duration, ok bool, args ...string) {
		t.Helper()
		app := kingpin.New("hearth", "")
		d := 2 * time.Hour
		durationFlag(app.Command("x", ""), "d", "", &d)
		_, err := app.Parse(append([]string{"x"}, args...))
		if (err == nil) != ok || ok && d != want {
			t.Fatalf("%q: %s, %v", args, d, err)
		}
	}
	f(2*time.Hour, true)
	f(15*24*time.Hour, true, "--d=15d")
	f(90*time.Minute, true, "--d=1h30m")
	f(0, true, "--d=0s")
	f(0, false, "--d=soon")
}

func TestLabelSet(t *testing.T) {
	var ls labels.Labels
	app := kingpin.New("hearth", "")
	app.Flag("label", "").SetValue(labelSet{&ls})
	if _, err := app.Parse([]string{`--label=b="2"`, "--label=a=1"}); err != nil {
		t.Fatal(err)
	}
	if !labels.Equal(ls, labels.FromStrings("a", "1", "b", "2")) {
		t.Fatal(ls)
	}
	if err := (labelSet{&ls}).Set("novalue"); err == nil {
		t.Fatal("a label needs a value")
	}
}

func TestContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(path, []byte("from file"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := func(c content, want string, ok bool) {
		t.Helper()
		got, err := c.read()
		if (err == nil) != ok || string(got) != want {
			t.Fatalf("%+v: %q, %v", c, got, err)
		}
	}
	f(content{}, "", true)
	f(content{text: secret.New("inline")}, "inline", true)
	f(content{file: path}, "from file", true)
	f(content{text: secret.New("x"), file: path}, "", false)
	f(content{file: path + ".none"}, "", false)
}
