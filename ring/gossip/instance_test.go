package gossip

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestLoadInstanceKeepsWhatItMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	before := time.Now().Add(-time.Second)
	a, err := LoadInstance(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if host, _ := os.Hostname(); validID.MatchString(host) && !strings.HasPrefix(a.ID, host+"-") {
		t.Fatalf("id %q does not begin with the host's name", a.ID)
	}
	if a.Since.Before(before) || a.Since.After(time.Now()) {
		t.Fatalf("since %s", a.Since)
	}
	if len(a.Tokens) != numTokens || !slices.IsSorted(a.Tokens) {
		t.Fatalf("tokens %v", a.Tokens)
	}
	for i, tok := range a.Tokens {
		if arc := uint32(1<<32/numTokens) * uint32(i); tok < arc || tok-arc >= 1<<32/numTokens {
			t.Fatalf("token %d, %d, is not in its part of the circle", i, tok)
		}
	}
	for _, id := range []string{"", a.ID} {
		if b, err := LoadInstance(dir, id); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("second load as %q: %+v, %v; want %+v", id, b, err, a)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp*")); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestLoadInstanceRefuses(t *testing.T) {
	f := func(content, id, want string) {
		t.Helper()
		dir := t.TempDir()
		path := filepath.Join(dir, InstanceFile)
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := LoadInstance(dir, id)
		if err == nil || !strings.Contains(err.Error(), want) || errs.KindOf(err) != errs.Invalid {
			t.Fatalf("%q as %q: got error %v, want one with %q", content, id, err, want)
		}
		if now, _ := os.ReadFile(path); string(now) != content {
			t.Fatalf("the file was changed to %q", now)
		}
	}
	f(`{"id":"a","tokens":[1,2],"since":1700000000}`, "b", `belongs to instance "a", not to "b"`)
	f(``, "", "EOF")
	f(`{"id":"a","tokens":[1`, "", "EOF")
	f(`{"id":"","tokens":[1],"since":1}`, "", "id")
	f(`{"id":"a","tokens":[],"since":1}`, "", "no tokens")
	f(`{"id":"a","tokens":[2,2],"since":1}`, "a", "not sorted and distinct")
	f(`{"id":"a","tokens":[1,2]}`, "", "start time")
	f(`{"id":"a","tokens":[1],"since":1}{"id":"b"}`, "", "more than one")
	f(`{}`, "a/b", "instance id")
}

func TestNewInstance(t *testing.T) {
	a, err := NewInstance("")
	if err != nil || a.validate() != nil {
		t.Fatalf("%+v, %v", a, err)
	}
	if b, err := NewInstance(""); err != nil || b.ID == a.ID {
		t.Fatalf("two have the id %q (%v)", b.ID, err)
	}
	if c, err := NewInstance("c-1"); err != nil || c.ID != "c-1" {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, id := range []string{"a/b", "..", "-", strings.Repeat("a", 151)} {
		if _, err := NewInstance(id); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("id %q: %v", id, err)
		}
		if _, err := LoadInstance(t.TempDir(), id); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("load of id %q: %v", id, err)
		}
	}
}

func TestLoadInstanceUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, InstanceFile), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadInstance(dir, "a"); err == nil {
		t.Fatal("a directory was taken for an instance")
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadInstance(filepath.Join(dir, "file"), "a"); err == nil {
		t.Fatal("an instance was kept below a file")
	}
}
