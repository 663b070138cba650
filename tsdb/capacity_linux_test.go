package tsdb

import (
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/capacity"
)

func TestFilesRunOut(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	d.files.MaxFiles, d.files.MaxMaps = 70, 1000 // enough for 10 tenants
	now := float64(time.Now().UnixMilli())
	name := func(i int) tenant.ID { return tenant.ID(fmt.Sprint("t", i)) }
	for i := range 10 {
		put(t, d, name(i), labels.FromStrings("a", "b"), now, 1)
	}
	b := wire.NewBatch("more")
	b.Add(labels.FromStrings("a", "b")).Samples = []wire.Sample{{T: int64(now), V: 1}}
	_, err := d.Append(t.Context(), wire.All(b))
	if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
		t.Fatalf("the 11th tenant: %v", err)
	}
	put(t, d, name(3), labels.FromStrings("a", "b"), now+1, 1)
	entry := d.lookup(name(3))
	for _, err := range []error{entry.cut(t.Context(), math.MaxInt64), entry.closeIdle(t.Context(), math.MaxInt64)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	settled := d.lookup("more")
	settled.mu.Lock()
	settled.onRetry = time.Time{}
	settled.mu.Unlock()
	eventually(t, func() bool { _, err := d.Append(t.Context(), wire.All(b)); return err == nil })
	if got := d.files.Tenants(); got != 10 {
		t.Fatalf("%d tenants counted, want 10", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := d.files.Tenants() + d.files.Blocks(); got != 0 {
		t.Fatalf("%d tenants and blocks counted after the end", got)
	}
}

// TestFilesOfATenant holds what is counted for an open tenant against what it has.
func TestFilesOfATenant(t *testing.T) {
	d := openDB(t, testOptions(t))
	below := func() (n int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatalf("this test needs /proc: %v", err)
		}
		for _, fd := range fds {
			if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil &&
				strings.HasPrefix(path, d.TenantDir(team)+"/") {
				n++
			}
		}
		return n
	}
	start := time.Now().Truncate(2 * time.Hour).Add(-time.Hour).UnixMilli() // full chunks, all in one range
	for i := range 300 {
		put(t, d, team, labels.FromStrings("a", "b"), float64(start+int64(i)*1000), 1)
	}
	d.lookup(team).housekeep()
	eventually(t, func() bool { return below() == capacity.FilesPerTenant-1 }) // a log closes its files behind our back
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, d.opts)
	for i := range 300 {
		put(t, d, team, labels.FromStrings("a", "b"), float64(start+300_000+int64(i)*1000), 1)
	}
	d.lookup(team).housekeep()
	eventually(t, func() bool { return below() == capacity.FilesPerTenant })
	for range 2 {
		put(t, d, team, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	in := d.lookup(team).in
	eventually(t, func() bool { return below() <= capacity.FilesPerTenant+capacity.FilesPerBlock*len(in.db.Blocks()) })
	if n := below(); n < capacity.FilesPerTenant+2*capacity.FilesPerBlock {
		t.Fatalf("%d open files with %d blocks", n, len(in.db.Blocks()))
	}
}

// TestTemporaryIsNoFault: a block that could not be opened since the process has too many files open is not set aside.
func TestTemporaryIsNoFault(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	put(t, d, team, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
	if err := d.Cut(t.Context(), team); err != nil {
		t.Fatal(err)
	}
	entry := d.lookup(team)
	blocks, err := d.Blocks(team)
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := was
	none.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	probed := probeBlock(blocks[0].Dir)
	_, read := readMeta(blocks[0].Dir, blocks[0].ID)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"probe": probed, "meta.json": read} {
		if err == nil || !temporary(err) {
			t.Errorf("%s: %v: want a temporary error", what, err)
		}
	}
	if temporary(fmt.Errorf("meta.json: %w", os.ErrNotExist)) {
		t.Error("a file that is missing is no temporary error")
	}
	for err, aside := range map[error]bool{fmt.Errorf("open: %w", syscall.EMFILE): false, fmt.Errorf("bad"): true} {
		faults := []Fault{{ID: blocks[0].ID, Dir: blocks[0].Dir, Err: err}}
		if got := entry.badBlocks(faults, nil); (len(got) == 1) != aside {
			t.Errorf("%v: set aside %v, want %v", err, got, aside)
		}
	}
}
