package tenantdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// What the directory of all tenants goes through is tested in tsdb (directories_test.go).

// TestCaseOfTheFileSystem: on a file system that does not tell them apart, Team would be written into team.
func TestCaseOfTheFileSystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "Team")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := setMark(dir, "team"); err != nil {
		t.Fatal(err)
	}
	if err := Create(dir, "Team"); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), `"team"`) {
		t.Fatalf("create: %v", err)
	}
}

// TestRemoveLog deletes the directory of a log, and nothing that no log has.
func TestRemoveLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wbl")
	if err := RemoveLog(dir); err != nil {
		t.Fatalf("there is none: %v", err)
	}
	for _, name := range []string{"00000001", "00000002.repair", "checkpoint.00000001/00000000"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o777), os.WriteFile(file, nil, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(foreign, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := RemoveLog(dir); err == nil || !strings.Contains(err.Error(), foreign) ||
		!Exists(filepath.Join(dir, "00000001")) {
		t.Errorf("%v: want all kept, for notes.txt", err)
	}
	if err := errors.Join(os.Remove(foreign), RemoveLog(dir)); err != nil || Exists(dir) {
		t.Errorf("%v: want it gone", err)
	}
}

// TestMetadataBounds: a tenant keeps as many families as it may, and texts of a bounded length.
func TestMetadataBounds(t *testing.T) {
	dir := t.TempDir()
	m := NewMetadata(dir, 2)
	if err := m.Load(); err != nil {
		t.Fatal(err)
	}
	ms := []wire.Metadata{
		{Family: "a", Type: "counter", Help: strings.Repeat("ä", maxHelp)}, {Family: ""},
		{Family: strings.Repeat("x", maxFamily+1)}, {Family: "b"}, {Family: "c"}, {Family: "b", Unit: "bytes"},
	}
	if n := m.Put(ms, []int32{0, 1, 2, 3, 4, 5}); n != 3 {
		t.Errorf("%d were dropped, want 3", n)
	}
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
	m.Forget()
	if err := m.Load(); err != nil {
		t.Fatal(err)
	}
	got := m.Get("", 0)
	if len(got) != 2 || got["b"][0].Unit != "bytes" || len(got["a"][0].Help) != maxHelp || len(m.Get("", 1)) != 1 {
		t.Errorf("%v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, metadataName), []byte("no JSON"), 0o666); err != nil {
		t.Fatal(err)
	}
	m.Forget()
	if err := m.Load(); err == nil {
		t.Error("a file that is no JSON is no error")
	}
	if err := errors.Join(m.Load(), m.Save()); err != nil || len(m.Get("", 0)) != 0 {
		t.Errorf("after the error: %v", err)
	}
}

func TestSummary(t *testing.T) {
	dir := t.TempDir()
	if _, ok := ReadSummary(dir); ok {
		t.Error("a summary of nothing")
	}
	s := Nothing()
	if s.Overlaps(-1<<62, 1<<62) || !Anything().Overlaps(5, 5) {
		t.Error("the empty and the full range are wrong")
	}
	s.Extend(5, 7)
	s.Extend(3, 4)
	if err := WriteSummary(dir, s); err != nil {
		t.Fatal(err)
	}
	if got, ok := ReadSummary(dir); !ok || got != s || got.Overlaps(8, 9) || !got.Overlaps(7, 9) || !got.Overlaps(0, 3) {
		t.Errorf("%+v %v", got, ok)
	}
	if err := errors.Join(RemoveSummary(dir), RemoveSummary(dir)); err != nil {
		t.Error(err)
	}
}
