package conf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Size  int           `yaml:"size"`
	Names []string      `yaml:"names"`
	Wait  time.Duration `yaml:"wait"`
}

type outer struct {
	Inner  inner            `yaml:"inner"`
	ByName map[string]inner `yaml:"by_name"`
	On     *bool            `yaml:"on"`
	Text   string           `yaml:"text"`
}

func TestDecode(t *testing.T) {
	f := func(raw string, want ...string) {
		t.Helper()
		p := Parser{Name: "f.yml"}
		var o outer
		p.Decode(p.Document([]byte(raw)), &o)
		err := p.Err()
		if len(want) == 0 {
			if err != nil {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		for _, w := range append(want, "f.yml") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %v, want %q in it", raw, err, w)
			}
		}
		for _, w := range []string{"struct", "unmarshal", "yaml:", "%!", "s3cret", "conf."} {
			if err != nil && strings.Contains(err.Error(), w) {
				t.Errorf("%q: %q is in %v", raw, w, err)
			}
		}
	}
	f("")
	f("# nothing\n")
	f("inner: {size: 1, names: [a, b], wait: 3s}\nby_name: {x: {size: 2}}\non: true\ntext: 3\n")
	f("base: &b {size: 1}\ninner: {<<: *b}\n", "f.yml:1: base: there is no such key here")
	f("inner: {size: 1}\nby_name: {x: &b {size: 1}, y: *b}\n")
	f("text: a\nin: {}\n", "f.yml:2: in: there is no such key here; known are by_name, inner, on, text")
	f("innre: {}\n", "did you mean inner?")
	f("inner:\n  sise: 1\n", "f.yml:2: inner: sise: there is no such key here; did you mean size?")
	f("by_name:\n  x:\n    sise: 1\n", "f.yml:3: by_name: x: sise:")
	f("inner: {size: s3cret}\n", "f.yml:1: inner: size: a whole number is expected")
	f("inner: {names: s3cret}\n", "inner: names: a list is expected")
	f("inner: {wait: s3cret}\n", "inner: wait: a duration such as 30s")
	f("inner: [1]\n", "inner: a mapping (key: value) is expected")
	f("on: s3cret\n", "on: true or false is expected")
	f("text: [s3cret]\n", "text: a text is expected")
	f("text: a\ntext: b\n", "f.yml:2: text: is already set in line 1")
	f("inner:\n\tsize: 1\n", "f.yml:2: is not YAML: the line is indented with a tab")
	f("inner: [\n", "is not YAML")
	f("text: *s3cret\n", "a value that begins with * is a reference")
	f("text: \"s3cret\n", "is not YAML: a quote is not closed")
	f("text: a: b\n", "second colon")
	f("text: a\n---\ntext: b\n", "f.yml:2: a second document begins here")
	f("text: a\nb\xe4c: 1\n", "f.yml:2: is not text in UTF-8")
	f("\x00\x01\x02", "f.yml:1: is not text")
	f("a: &a {by_name: {x: *a}}\n", "a: there is no such key")
	f("by_name: &a {x: *a}\n", "by_name: x: x: there is no such key")
}

func TestNearest(t *testing.T) {
	known := []string{"token_sha256", "tenants", "operator", "objstore.config-file", "objstore.config", "http-address"}
	f := func(word, want string) {
		t.Helper()
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	f("tokn", "token_sha256")
	f("token", "token_sha256")
	f("tenant", "tenants")
	f("Tenants", "tenants")
	f("operater", "operator")
	f("objstore.confg", "objstore.config")
	f("objstore-config-file", "objstore.config-file")
	f("htpt-address", "http-address")
	f("password", "")
	f("x", "")
	f("", "")
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	f := func(path, want string, is error) {
		t.Helper()
		_, err := ReadFile(path)
		if err == nil || err.Error() != path+": "+want || is != nil && !errors.Is(err, is) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f(filepath.Join(dir, "none"), "there is no such file", fs.ErrNotExist)
	f(dir, "is a directory; a file is expected", nil)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o200); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		f(secret, "this process may not read it: look at its owner and mode", fs.ErrPermission)
	}
	if raw, err := ReadFile(os.DevNull); err != nil || len(raw) != 0 {
		t.Errorf("%q, %v", raw, err)
	}
}
