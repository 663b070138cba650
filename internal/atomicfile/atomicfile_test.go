package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	want := func(content string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != content {
			t.Fatalf("%q, %v, want %q", b, err, content)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*"+Suffix)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if err := os.WriteFile(path+Suffix, []byte("left by a crash, and longer than what follows"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"one", "", "two"} {
		if err := Write(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		want(content)
	}
	if err := Write(filepath.Join(dir, "none", "state.json"), nil, 0o666); err == nil {
		t.Error("a directory that does not exist is no error")
	}
}

// TestWriteFails has a path that cannot be renamed to: what is there stays.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o666); err == nil {
		t.Fatal("a directory was replaced by a file")
	}
	if _, err := os.Stat(filepath.Join(path, "inside")); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+Suffix)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
