package tsdb

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// fillDisk makes every write to the open files below dir fail with ENOSPC.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range fds {
		var fd int
		fmt.Sscan(e.Name(), &fd)
		if path, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(path, dir+"/") {
			if err := syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if n == 0 {
		t.Fatalf("no file below %s is open", dir)
	}
}

// logFault fails the WAL or the WBL at its next write. Nothing acknowledged before may be lost, nothing is accepted
// until the tenant has been reopened, and everything works afterwards.
func logFault(t *testing.T, logDir string, outOfOrder bool, want errs.Kind) {
	o := testOptions(t)
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	d := openDB(t, o)
	now := clock.Load()
	batch := func(name string, at int64) *wire.Batch {
		b := wire.NewBatch(team)
		for i := range 50 {
			b.Add(labels.FromStrings("__name__", name, "i", fmt.Sprint(i))).Samples = []wire.Sample{{T: at, V: float64(at)}}
		}
		return b
	}
	mustAppend(t, d, batch("old", now))
	mustAppend(t, d, batch("old", now-5)) // out of order
	before := fmt.Sprint(read(t, d, team))
	in := d.lookup(team).in

	fillDisk(t, filepath.Join(o.Dir, string(team), logDir))
	failing := batch("new", now+10) // with new series
	if outOfOrder {
		failing = batch("old", now-10)
	}
	if _, err := d.Append(t.Context(), wire.All(failing)); errs.KindOf(err) != want {
		t.Fatalf("append to a full disk: %v, want kind %s", err, want)
	}
	_, err := d.Append(t.Context(), wire.All(batch("old", now+20)))
	if errs.KindOf(err) != errs.Unavailable || errs.RetryAfter(err) == 0 {
		t.Fatalf("append to a read-only tenant: %v", err)
	}
	if d.countReadOnly() != 1 || !strings.Contains(d.Status()[0].Error, "read-only") {
		t.Fatalf("status %+v", d.Status())
	}
	for i := range failing.Series {
		if !outOfOrder && in.refs.Get(failing.Series[i].Key) != 0 {
			t.Fatal("a reference of a transaction that failed was cached")
		}
	}
	if len(read(t, d, team)) < 50 {
		t.Fatal("a read-only tenant is not read")
	}

	settleLook(t, d, team)
	eventually(t, func() bool { st := d.Status()[0]; return st.State == Open && st.Error == "" })
	got := read(t, d, team)
	for name, ps := range got {
		if strings.Contains(name, "old") && len(ps) < 2 {
			t.Fatalf("%s: %v after the reopening, before: %s", name, ps, before)
		}
	}
	mustAppend(t, d, batch("new", now+30))
	mustAppend(t, d, batch("old", now-10))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	got = collect(t, d.Select(t.Context(), request(team, 0, math.MaxInt64)))
	if len(got) != 100 {
		t.Fatalf("%d series in the end, want 100", len(got))
	}
	for name, ps := range got {
		if want := 3; strings.Contains(name, "old") && len(ps) != want {
			t.Fatalf("%s: %v, want %d samples", name, ps, want)
		}
	}
}

func TestWALFault(t *testing.T) { logFault(t, "wal", false, errs.Exhausted) }

func TestWBLFault(t *testing.T) { logFault(t, "wbl", true, errs.Unavailable) }

func TestLogWatch(t *testing.T) {
	var got []string
	w := &logWatch{Handler: slog.DiscardHandler, failed: func(err error) { got = append(got, err.Error()) }}
	log := slog.New(w).With("a", 1).WithGroup("g")
	log.Error("Failed to do something else", "err", syscall.ENOSPC)
	log.Error(wblFailure, "err", syscall.ENOSPC)
	if len(got) != 1 || !strings.Contains(got[0], "no space left") {
		t.Fatalf("seen %q", got)
	}
}
