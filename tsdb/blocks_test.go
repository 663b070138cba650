package tsdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// rewriteMeta changes a field of a block's meta.json.
func rewriteMeta(t *testing.T, dir, field string, value any) {
	t.Helper()
	path := filepath.Join(dir, "meta.json")
	var m map[string]any
	raw, err := os.ReadFile(path)
	if err := errors.Join(err, json.Unmarshal(raw, &m)); err != nil {
		t.Fatal(err)
	}
	m[field] = value
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o666); err != nil {
		t.Fatal(err)
	}
}

// blockFaults are what can be wrong with a block on disk. A directory in the place of a file cannot be read by anybody.
func blockFaults(t *testing.T, other ulid.ULID) map[string]func(dir string) error {
	at := func(name string, f func(path string) error) func(string) error {
		return func(dir string) error { return f(filepath.Join(dir, name)) }
	}
	truncate := func(n int64) func(string) error { return func(p string) error { return os.Truncate(p, n) } }
	unreadable := func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o777)) }
	return map[string]func(dir string) error{
		"meta.json empty":             at("meta.json", truncate(0)),
		"meta.json missing":           at("meta.json", os.Remove),
		"meta.json garbage":           at("meta.json", func(p string) error { return os.WriteFile(p, []byte("{{"), 0o666) }),
		"meta.json unreadable":        at("meta.json", unreadable),
		"meta.json of version 2":      func(dir string) error { rewriteMeta(t, dir, "version", 2); return nil },
		"meta.json of version 7":      func(dir string) error { rewriteMeta(t, dir, "version", 7); return nil },
		"meta.json of another block":  func(dir string) error { rewriteMeta(t, dir, "ulid", other.String()); return nil },
		"meta.json of no block":       func(dir string) error { rewriteMeta(t, dir, "ulid", someBlock); return nil },
		"index empty":                 at("index", truncate(0)),
		"index truncated":             at("index", truncate(100)),
		"index missing":               at("index", os.Remove),
		"index unreadable":            at("index", unreadable),
		"chunks missing":              at("chunks", os.RemoveAll),
		"a file of chunks truncated":  at("chunks/000001", truncate(3)),
		"a file of chunks unreadable": at("chunks/000001", unreadable),
	}
}

// makeBlocks makes n blocks of a tenant, a minute apart from from on, and returns them.
func makeBlocks(t *testing.T, d *DB, id tenant.ID, from time.Time, n int) []LocalBlock {
	t.Helper()
	for i := range n {
		put(t, d, id, labels.FromStrings("a", "b"), float64(from.Add(time.Duration(i)*time.Minute).UnixMilli()), float64(i))
		if err := d.Cut(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	blocks, err := d.Blocks(id)
	if err != nil || len(blocks) != n {
		t.Fatalf("%d blocks: %v", len(blocks), err)
	}
	return blocks
}

// selected is what a select returns, and how it ends.
func selected(t *testing.T, d *DB, id tenant.ID, mint, maxt int64) (n int, err error) {
	t.Helper()
	set := d.Select(t.Context(), request(id, mint, maxt))
	defer set.Close()
	for set.Next() {
		n += len(points(t, set.At()))
	}
	return n, set.Err()
}

// TestFaultyBlock opens a tenant with a block among good ones that cannot be read: it goes on without that one, says
// so, and takes it back once it can be read.
func TestFaultyBlock(t *testing.T) {
	for name, fault := range blockFaults(t, ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAW")) {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			d := openDB(t, o)
			from := time.Now().Add(-time.Hour)
			blocks := makeBlocks(t, d, team, from, 3)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			aside := filepath.Join(t.TempDir(), "whole")
			if err := os.CopyFS(aside, os.DirFS(blocks[1].Dir)); err != nil {
				t.Fatal(err)
			}
			if err := fault(blocks[1].Dir); err != nil {
				t.Fatal(err)
			}
			d = openDB(t, o)
			ahead := from.Add(time.Hour + 5*time.Minute) // the block was made before
			put(t, d, team, labels.FromStrings("a", "b"), float64(ahead.UnixMilli()), 9)
			if n, err := selected(t, d, team, 0, math.MaxInt64); n != 3 || errs.KindOf(err) != errs.Unavailable ||
				!strings.Contains(err.Error(), blocks[1].ID.String()) {
				t.Errorf("select: %d samples, %v", n, err)
			}
			if _, warnings, err := d.LabelNames(t.Context(), request(team, 0, math.MaxInt64)); err != nil || len(warnings) != 1 {
				t.Errorf("label names: %v %v", warnings, err)
			}
			if n, err := selected(t, d, team, ahead.UnixMilli(), math.MaxInt64); n != 1 || err != nil {
				t.Errorf("select of what the block cannot have: %d samples, %v", n, err)
			}
			for range 2 {
				if got, err := d.Blocks(team); err != nil || len(got) < 2 {
					t.Fatalf("blocks: %v %v", got, err)
				}
				if got := d.Faults(team); len(got) != 1 || got[0].ID != blocks[1].ID || len(d.Faulty()) != 1 {
					t.Fatalf("faults: %v", got)
				}
				if err := d.Whole(); err == nil || !strings.Contains(err.Error(), "tenant team: block "+blocks[1].ID.String()) {
					t.Errorf("whole: %v", err)
				}
				if err := d.Cut(t.Context()); err != nil { // reloads blocks
					t.Fatal(err)
				}
				put(t, d, team, labels.FromStrings("a", "b"), float64(ahead.Add(time.Second).UnixMilli()), 9)
			}
			where := d.Faults(team)[0].Dir
			d.opts.Shipped = func(_ tenant.ID, id ulid.ULID) bool { return id == blocks[1].ID }
			if _, err := selected(t, d, team, 0, math.MaxInt64); err != nil {
				t.Errorf("select while the block is in the bucket: %v", err)
			}
			d.opts.Shipped = nil
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.RemoveAll(where), os.CopyFS(where, os.DirFS(aside))); err != nil {
				t.Fatal(err)
			}
			d = openDB(t, o)
			if n, err := selected(t, d, team, 0, math.MaxInt64); n != 5 || err != nil || len(d.Faults(team)) != 0 {
				t.Errorf("after the repair: %d samples, %v, faults %v", n, err, d.Faults(team))
			}
		})
	}
}

// TestFaultyBlockAtRuntime finds a block while the tenant is open, as when somebody copies one into its directory: cuts
// go on, and so does the removal of old blocks.
func TestFaultyBlockAtRuntime(t *testing.T) {
	for name, fault := range blockFaults(t, ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAW")) {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			var clock clock
			o.Now = clock.now
			var unshipped atomic.Pointer[ulid.ULID]
			o.Shipped = func(_ tenant.ID, id ulid.ULID) bool { u := unshipped.Load(); return u == nil || *u != id }
			d := openDB(t, o)
			blocks := makeBlocks(t, d, team, time.Now().Add(-time.Hour), 3)
			from := makeBlocks(t, d, "other", time.Now(), 1)[0]
			unshipped.Store(&from.ID)
			to := filepath.Join(d.TenantDir(team), from.ID.String())
			if err := errors.Join(os.CopyFS(to, os.DirFS(from.Dir)), fault(to)); err != nil {
				t.Fatal(err)
			}
			clock.forward(20 * 24 * time.Hour) // beyond the retention
			for range 2 {
				if err := errors.Join(appendOne(t, d, team), d.Cut(t.Context(), team)); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.Faults(team); len(got) != 1 || got[0].ID != from.ID {
				t.Fatalf("faults: %v", got)
			}
			for _, b := range blocks {
				if tenantdir.Exists(b.Dir) {
					t.Errorf("block %s is past its retention", b.ID)
				}
			}
			where := d.Faults(team)[0].Dir
			if !tenantdir.Exists(where) {
				t.Error("the faulty block was deleted, and is not in the bucket")
			}
			unshipped.Store(nil)
			if err := errors.Join(appendOne(t, d, team), d.Cut(t.Context(), team)); err != nil {
				t.Fatal(err)
			}
			// Without meta.json it is nobody's to delete, and a directory in the place of a file is no block's.
			if keep := strings.Contains(name, "missing") && strings.Contains(name, "meta") ||
				strings.Contains(name, "unreadable"); tenantdir.Exists(where) != keep {
				t.Errorf("once it is in the bucket: kept %v, want %v", tenantdir.Exists(where), keep)
			}
		})
	}
}

// TestWrongIdentity has a block whose meta.json is a copy of another's: the TSDB would delete the other one in its
// place.
func TestWrongIdentity(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	blocks := makeBlocks(t, d, team, time.Now().Add(-time.Hour), 2)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(blocks[1].Dir, "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(blocks[0].Dir, "meta.json"), raw, 0o666); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	if n, err := selected(t, d, team, 0, math.MaxInt64); n != 1 || err == nil {
		t.Errorf("%d samples, %v", n, err)
	}
	if got, _ := d.Blocks(team); len(got) != 1 || got[0].ID != blocks[1].ID {
		t.Errorf("blocks: %v", got)
	}
}

// TestListBlocks lists a directory in which blocks come and go.
func TestListBlocks(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, someBlock+"/index", "01ARZ3NDEKTSV4RRFFQ69G5FAW.tmp-for-creation/index", "wal/", "notes.txt")
	if err := os.Symlink(dir, filepath.Join(dir, "01ARZ3NDEKTSV4RRFFQ69G5FAX")); err != nil {
		t.Fatal(err)
	}
	blocks, faults, err := listBlocks(dir, nil)
	if err != nil || len(blocks) != 0 || len(faults) != 1 || !errors.Is(faults[0].Err, fs.ErrNotExist) {
		t.Fatalf("%v %v %v", blocks, faults, err)
	}
	if want := fmt.Sprint(ulid.Time(ulid.MustParse(someBlock).Time()).UnixMilli()); fmt.Sprint(faults[0].maxt) != want ||
		faults[0].mint != 0 {
		t.Fatalf("[%d, %d]", faults[0].mint, faults[0].maxt)
	}
	if blocks, faults, err = listBlocks(filepath.Join(dir, "none"), nil); len(blocks)+len(faults) != 0 || err != nil {
		t.Fatalf("%v %v %v", blocks, faults, err)
	}
}

// TestCopyOfFaultyBlock has a copy in the place of a block that was set aside, as when somebody fetches it from the
// bucket. The tenant is opened whether both can be read, one of them, or none; a good one in its place is all that is
// read and kept.
func TestCopyOfFaultyBlock(t *testing.T) {
	for _, c := range []struct{ aside, place bool }{{true, true}, {false, true}, {true, false}, {false, false}} {
		t.Run(fmt.Sprintf("aside %t, in place %t", c.aside, c.place), func(t *testing.T) {
			o := testOptions(t)
			d := openDB(t, o)
			blocks := makeBlocks(t, d, team, time.Now().Add(-time.Hour), 3)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			aside := filepath.Join(d.TenantDir(team), tenantdir.FaultyName, blocks[1].ID.String())
			if err := errors.Join(os.MkdirAll(aside, 0o777), os.CopyFS(aside, os.DirFS(blocks[1].Dir))); err != nil {
				t.Fatal(err)
			}
			for dir, good := range map[string]bool{aside: c.aside, blocks[1].Dir: c.place} {
				if good {
					continue
				}
				if err := os.Truncate(filepath.Join(dir, "meta.json"), 0); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				d = openDB(t, o)
				if err := errors.Join(appendOne(t, d, team), d.Cut(t.Context(), team)); err != nil {
					t.Fatal(err)
				}
				want := 0
				if !c.place {
					want = 1
				}
				if got := d.Faults(team); len(got) != want {
					t.Errorf("faults: %v", got)
				}
				if _, err := selected(t, d, team, 0, math.MaxInt64); (err == nil) != c.place {
					t.Errorf("select: %v", err)
				}
				if tenantdir.Exists(aside) == c.place {
					t.Errorf("%s is there: %t", aside, !c.place)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				if c.aside && !c.place { // the bad one has gone out of the way of the good one
					c.place = true
				}
			}
		})
	}
}

// TestFaultyBlockOfIdleTenant asks a closed tenant for the time of a block that cannot be read: the answer says that
// it is not whole.
func TestFaultyBlockOfIdleTenant(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	from := time.Now().Add(-time.Hour)
	blocks := makeBlocks(t, d, team, from, 3)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(blocks[0].Dir, "index"), 0); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	for _, restarted := range []bool{false, true} {
		if err := errors.Join(d.Cut(t.Context()), d.lookup(team).closeIdle(t.Context(), math.MaxInt64)); err != nil ||
			d.Status()[0].State != Idle {
			t.Fatal(d.Status(), err)
		}
		if restarted {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = openDB(t, o)
		}
		if n, err := selected(t, d, team, from.UnixMilli(), from.UnixMilli()); n != 0 ||
			errs.KindOf(err) != errs.Unavailable {
			t.Errorf("restarted %t: %d samples, %v", restarted, n, err)
		}
	}
}
