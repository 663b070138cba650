package tsdb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// lay makes files, and directories where a path ends with a slash, below dir.
func lay(t testing.TB, dir string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		path := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(path, 0o777); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, name := []byte(nil), filepath.Base(p)
		if name == "summary.json" || name == "metadata.json" || name == "thanos.shipper.json" {
			content = []byte(`{"version":1}`)
		}
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// setMark puts the mark of a tenant into a directory.
func setMark(dir string, id tenant.ID) error {
	return os.WriteFile(filepath.Join(dir, markName), fmt.Appendf(nil, `{"version":1,"tenant":%q}`, id), 0o666)
}

// Names as docs/format/tenant-directory.md has them.
const (
	markName       = "hearth-tenant.json"
	rootMarkName   = "~hearth-tsdb.json"
	makingPrefix   = "~making-"
	removingPrefix = "~removing-"
)

// tree is all that is below dir, links as links.
func tree(t testing.TB, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if path != dir {
			all = append(all, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// clock is one that tests move on.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

func appendOne(t testing.TB, d *DB, id tenant.ID) error {
	t.Helper()
	b := wire.NewBatch(id)
	b.Add(labels.FromStrings("a", "b")).Samples = []wire.Sample{{T: d.opts.Now().UnixMilli(), V: 1}}
	failures, err := d.Append(t.Context(), wire.All(b))
	if len(failures) > 0 {
		t.Fatalf("append to %s: %v", id, failures)
	}
	return err
}

const someBlock = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// TestForeignDirectories has directories that could be a tenant's by their names, and are not.
func TestForeignDirectories(t *testing.T) {
	foreign := map[string][]string{
		"lost+found": {"lost+found/"},
		"backup":     {"backup/tuesday.tar"},
		"empty":      {"empty/"},
		"prometheus": {"prometheus/wal/00000000", "prometheus/chunks_head/000001", "prometheus/lock",
			"prometheus/queries.active", "prometheus/" + someBlock + "/meta.json"},
		"thanos":           {"thanos/thanos.shipper.json", "thanos/wal/00000000", "thanos/" + someBlock + "/meta.json"},
		"looks-like-ours":  {"looks-like-ours/wal/00000000", "looks-like-ours/summary.json"},
		someBlock:          {someBlock + "/meta.json", someBlock + "/index", someBlock + "/chunks/000001"},
		"wal":              {"wal/00000000"},
		"chunks_head":      {"chunks_head/000001"},
		"copy-of-a-tenant": nil,
		"other-version":    nil,
		"no-json":          nil,
		"team-a":           nil, // a link to a directory
		"dangling":         nil,
	}
	o := testOptions(t)
	for _, paths := range foreign {
		lay(t, o.Dir, paths...)
	}
	elsewhere := t.TempDir()
	if err := errors.Join(
		os.Mkdir(filepath.Join(o.Dir, "copy-of-a-tenant"), 0o777),
		setMark(filepath.Join(o.Dir, "copy-of-a-tenant"), "a-tenant"),
		setMark(elsewhere, "team-a"),
		os.Symlink(elsewhere, filepath.Join(o.Dir, "team-a")),
		os.Symlink("nowhere", filepath.Join(o.Dir, "dangling")),
		os.Mkdir(filepath.Join(o.Dir, "other-version"), 0o777),
		os.Mkdir(filepath.Join(o.Dir, "no-json"), 0o777),
		os.WriteFile(filepath.Join(o.Dir, "other-version", markName), []byte(`{"version":2,"tenant":"other-version"}`),
			0o666),
		os.WriteFile(filepath.Join(o.Dir, "no-json", markName), nil, 0o666),
	); err != nil {
		t.Fatal(err)
	}
	before := tree(t, o.Dir)
	for range 2 { // by the second process the directory was Hearth's
		var log syncBuffer
		d, err := New(slog.New(slog.NewTextHandler(&log, nil)), nil, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return d.Ready() == nil })
		if ids := d.Tenants(); len(ids) != 0 {
			t.Fatalf("tenants: %v", ids)
		}
		for name := range foreign {
			if n := strings.Count(log.String(), `dir=`+filepath.Join(o.Dir, name)+" "); n != 1 {
				t.Errorf("%s is named %d times in the log", name, n)
			}
			err := appendOne(t, d, tenant.ID(name))
			if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), name) || errs.RetryAfter(err) == 0 {
				t.Errorf("append to tenant %s: %v", name, err)
			}
		}
		if n := d.countForeign(); n != len(foreign)-1 { // lost+found is as it should be
			t.Errorf("%d foreign directories, want %d", n, len(foreign)-1)
		}
		if err := errors.Join(appendOne(t, d, "ours"), d.Cut(t.Context()), d.Close()); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(o.Dir, "ours")); err != nil {
			t.Fatal(err)
		}
		after := slices.DeleteFunc(tree(t, o.Dir),
			func(p string) bool { return p == tenantdir.LockName || p == rootMarkName })
		if !slices.Equal(before, after) {
			t.Fatalf("\nbefore %v\nafter  %v", before, after)
		}
	}
	if left := tree(t, elsewhere); len(left) != 1 {
		t.Fatalf("behind the link: %v", left)
	}
}

// TestForeignDirectoryMovedAway is written to once the directory is gone.
func TestForeignDirectoryMovedAway(t *testing.T) {
	o := testOptions(t)
	lay(t, o.Dir, "team/x")
	d := openDB(t, o)
	if err := appendOne(t, d, team); err == nil {
		t.Fatal("no error")
	}
	if err := os.RemoveAll(filepath.Join(o.Dir, "team")); err != nil {
		t.Fatal(err)
	}
	if err := appendOne(t, d, team); err != nil {
		t.Fatal(err)
	}
	if n := d.countForeign(); n != 0 {
		t.Fatalf("%d foreign directories", n)
	}
}

func TestAdopt(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	if err := errors.Join(appendOne(t, d, "a"), appendOne(t, d, "b"), d.Cut(t.Context()), appendOne(t, d, "a"),
		d.Close()); err != nil {
		t.Fatal(err)
	}
	// as Thanos would have left it
	for _, name := range []string{rootMarkName, tenantdir.LockName, "a/" + markName, "b/" + markName} {
		if err := os.Remove(filepath.Join(o.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	lay(t, o.Dir, "a/thanos.shipper.json", "a/notes.txt", "b/lock", "b/thanos/upload/", "backup/tuesday.tar",
		"lost+found/wal/", someBlock+"/meta.json")
	d = openDB(t, o)
	if ids := d.Tenants(); len(ids) != 0 {
		t.Fatalf("without the flag: %v", ids)
	}
	if err := appendOne(t, d, "a"); err == nil || !strings.Contains(err.Error(), "--tsdb.adopt") {
		t.Fatalf("append without the flag: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	o.Adopt = true
	d = openDB(t, o)
	if ids := d.Tenants(); !slices.Equal(ids, []tenant.ID{"a", "b"}) {
		t.Fatalf("with the flag: %v", ids)
	}
	if got := len(read(t, d, "a")[`{a="b"}`]); got != 2 {
		t.Fatalf("%d samples", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	o.Adopt = false
	if ids := openDB(t, o).Tenants(); len(ids) != 2 {
		t.Fatalf("afterwards: %v", ids)
	}
}

// TestBeforeMarks goes on with what a Hearth that knew no marks has left.
func TestBeforeMarks(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	d.opts.IdleTimeout = time.Nanosecond
	ids := []tenant.ID{"busy", "idle", "crashed*"}
	for _, id := range ids {
		if err := appendOne(t, d, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Cut(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	entry := d.lookup("idle")
	if err := entry.closeIdle(t.Context(), 1<<62); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{rootMarkName, "busy/" + markName, "idle/" + markName, "crashed*/" + markName} {
		if err := os.Remove(filepath.Join(o.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	lay(t, o.Dir, "crashed*/damaged/segment", "crashed*/metadata.json.tmp",
		"crashed*/"+someBlock+".tmp-for-creation/index", "lost+found/wal/", "prometheus/wal/00000000",
		"prometheus/queries.active", "backup/tuesday.tar")
	for range 2 {
		d = openDB(t, o)
		if got := d.Tenants(); !slices.Equal(got, []tenant.ID{"busy", "crashed*", "idle"}) {
			t.Fatalf("tenants: %v", got)
		}
		for _, id := range ids {
			if got := read(t, d, id); len(got) != 1 {
				t.Fatalf("tenant %s: %v", id, got)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		lay(t, o.Dir, "later/wal/00000000", "later/summary.json") // comes when everything of ours has a mark
	}
}

// TestRemoveKeepsStrangers removes idle tenants without data, but nothing that Hearth did not make.
func TestRemoveKeepsStrangers(t *testing.T) {
	f := func(removed bool, paths ...string) {
		t.Helper()
		o := testOptions(t)
		var clock clock
		o.Now = clock.now
		var log bytes.Buffer
		d, err := New(slog.New(slog.NewTextHandler(&log, nil)), nil, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := appendOne(t, d, team); err != nil {
			t.Fatal(err)
		}
		lay(t, d.TenantDir(team), paths...)
		clock.forward(24 * time.Hour)
		for range 3 { // cut, close, expire
			settleLook(t, d, team)
		}
		clock.forward(30 * 24 * time.Hour)
		for range 3 {
			if d.Has(team) {
				settleLook(t, d, team)
			}
			clock.forward(2 * expireEvery)
		}
		if gone := !tenantdir.Exists(d.TenantDir(team)); gone != removed {
			t.Fatalf("%v: removed %v, want %v: %v", paths, gone, removed, tree(t, d.TenantDir(team)))
		}
		if removed {
			if left := tree(t, o.Dir); len(left) != 2 {
				t.Fatalf("%v: left are %v", paths, left)
			}
			return
		}
		for _, p := range paths {
			if !tenantdir.Exists(filepath.Join(d.TenantDir(team), p)) &&
				!tenantdir.Exists(filepath.Join(d.TenantDir(team), tenantdir.FaultyName, p)) {
				t.Errorf("%s was deleted", p)
			}
		}
		if n := strings.Count(log.String(), "not deleted"); n != 1 {
			t.Errorf("%v: the log says it %d times\n%s", paths, n, log.String())
		}
		if d.countKept() != 1 {
			t.Errorf("%v: not counted", paths)
		}
		if err := appendOne(t, d, team); err != nil {
			t.Fatalf("%v: the tenant does not go on: %v", paths, err)
		}
	}
	f(true)
	f(true, "thanos.shipper.json", "exemplars", "metadata.json.tmp", "salvage.tmp", "thanos/upload/")
	f(false, "notes.txt")
	f(false, "wal/notes.txt")
	f(false, "chunks_head/000001.bak")
	f(false, "wbl.old/00000000")
	f(false, "damaged/20260101T000000Z-wal-00000000")
	f(false, someBlock+"/index", someBlock+"/chunks/000001") // no meta.json: nobody has shipped it
	f(false, someBlock+"/meta.json")
	f(false, "subdirectory/")
}

// TestExpireKeepsStrangers deletes old blocks, but not what somebody put into their directories.
func TestExpireKeepsStrangers(t *testing.T) {
	f := func(closed bool, path string) {
		t.Helper()
		o := testOptions(t)
		var clock clock
		o.Now = clock.now
		d := openDB(t, o)
		if err := errors.Join(appendOne(t, d, team), d.Cut(t.Context())); err != nil {
			t.Fatal(err)
		}
		blocks, _ := d.Blocks(team)
		if path != "" {
			lay(t, blocks[0].Dir, path)
		}
		if closed {
			clock.forward(24 * time.Hour)
			settleLook(t, d, team)
		}
		clock.forward(30 * 24 * time.Hour)
		if closed {
			settleLook(t, d, team)
		} else if err := errors.Join(appendOne(t, d, team), d.Cut(t.Context())); err != nil {
			t.Fatal(err)
		}
		if kept := tenantdir.Exists(blocks[0].Dir); kept != (path != "") ||
			kept && !tenantdir.Exists(filepath.Join(blocks[0].Dir, path)) {
			t.Errorf("closed=%v path=%q: kept %v", closed, path, kept)
		}
	}
	for _, closed := range []bool{false, true} {
		f(closed, "")
		f(closed, "notes.txt")
		f(closed, "chunks/notes.txt")
		f(closed, "deeper/")
	}
}

// TestCrashInClaim begins to make a directory, or to remove one, and dies.
func TestCrashInClaim(t *testing.T) {
	o := testOptions(t)
	lay(t, o.Dir, makingPrefix+"a/", makingPrefix+"team/hearth-tenant.json.tmp", removingPrefix+"b/wal/00000000",
		removingPrefix+"b/"+markName, removingPrefix+"c/notes.txt")
	d := openDB(t, o)
	if left := tree(t, o.Dir); !slices.Equal(left,
		[]string{rootMarkName, tenantdir.LockName, removingPrefix + "c", removingPrefix + "c/notes.txt"}) {
		t.Fatalf("left are %v", left)
	}
	if err := appendOne(t, d, team); err != nil {
		t.Fatal(err)
	}
	if err := tenantdir.Check(d.TenantDir(team), team); err != nil {
		t.Fatal(err)
	}
}

// TestDirectoryDeletedByHand deletes the directory of a closed tenant, which is then no tenant any more.
func TestDirectoryDeletedByHand(t *testing.T) {
	o := testOptions(t)
	var clock clock
	o.Now = clock.now
	d := openDB(t, o)
	if err := appendOne(t, d, team); err != nil {
		t.Fatal(err)
	}
	clock.forward(24 * time.Hour)
	for range 2 { // cut, close
		settleLook(t, d, team)
	}
	if err := os.RemoveAll(d.TenantDir(team)); err != nil || d.Status()[0].State != Idle {
		t.Fatal(err, d.Status())
	}
	clock.forward(2 * expireEvery)
	settleLook(t, d, team)
	if d.Has(team) {
		t.Error("the tenant is still there")
	}
	if err := appendOne(t, d, team); err != nil || len(read(t, d, team)) != 1 {
		t.Errorf("a write after that: %v", err)
	}
}
