package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
)

func TestWithConfigFile(t *testing.T) {
	app := kingpin.New("hearth", "")
	app.Flag("config.file", "").String()
	app.Flag("a", "").String()
	app.Flag("list", "").Strings()
	app.Flag("yes", "").Bool()
	app.Command("all", "").Default().Flag("of-all", "").String()
	app.Command("query", "").Flag("of-query", "").String()
	path := filepath.Join(t.TempDir(), "hearth.yml")
	f := func(content, args, want, wantErr string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		in := append([]string{"--config.file=" + path}, strings.Fields(args)...)
		got, _, err := withConfigFile(app, in)
		if wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), wantErr) {
				t.Fatalf("%q: error %v, want %q", content, err, wantErr)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if joined := strings.Join(got[1:], " "); joined != want {
			t.Fatalf("%q with %q: %q, want %q", content, args, joined, want)
		}
		if _, err := app.Parse(slices.Clone(got)); err != nil {
			t.Fatalf("%q does not parse: %v", got, err)
		}
	}
	f("a: 1\n", "", "--a=1", "")
	f("a: 1\n", "--a=2", "--a=2", "")
	f("list: [x, y]\nyes: true\n", "", "--list=x --list=y --yes", "")
	f("yes: false\n", "", "--no-yes", "")
	f("", "", "", "")
	f("a: {type: S3}\n", "", "--a={type: S3}\n", "")
	f("yes: maybe\n", "", "", `:1: yes: "maybe" is neither true nor false`)
	f("- a\n", "", "", "a mapping (key: value) is expected")
	f("of-all: 1\nof-query: 2\n", "", "--of-all=1", "")
	f("of-all: 1\nof-query: 2\n", "query", "query --of-query=2", "")
	f("a: 1\nof-qury: 2\n", "query", "", `:2: of-qury: no command has such a flag; did you mean of-query?`)
	f("a: 1\na: 2\n", "", "", ":2: a: is already set in line 1")
	f("a: [1, 2]\n", "", "", ":1: a: one value is expected")
	f("a:\n", "", "", ":1: a: has no value")
	f("a: [[1]]\n", "", "", "plain values only")
	t.Setenv("HEARTH_A", "7")
	f("a: 1\n", "", "", "")
	if _, _, err := withConfigFile(app, []string{"--config.file", filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Fatal("a missing file must be an error")
	}
}
