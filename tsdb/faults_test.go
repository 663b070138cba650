package tsdb

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestFullDisk sees that writes are refused while the disk is nearly full, that reads go on, and that nothing is opened
// that would have to be closed before.
func TestFullDisk(t *testing.T) {
	o := testOptions(t)
	var clock atomic.Int64 // the scheduler reads it too
	clock.Store(time.Now().UnixMilli())
	o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	d := openDB(t, o)
	ls := labels.FromStrings("a", "b")
	put(t, d, team, ls, float64(clock.Load()), 1)
	free := uint64(1)
	d.disk.Stat = func(string) (uint64, uint64, error) { return free, 1 << 30, nil }
	clock.Add(time.Minute.Milliseconds())
	b := wire.NewBatch("new-tenant")
	b.Add(ls).Samples = []wire.Sample{{T: clock.Load(), V: 1}}
	if _, err := d.Append(t.Context(), wire.All(b)); errs.KindOf(err) != errs.Exhausted || errs.RetryAfter(err) == 0 {
		t.Fatalf("append to a full disk: %v", err)
	}
	if len(d.Tenants()) != 1 {
		t.Fatal("a tenant was made on a full disk")
	}
	if got := read(t, d, team); len(got) != 1 {
		t.Fatalf("read %v", got)
	}
	entry := d.lookup(team)
	entry.in.failLog(errors.New("torn"))
	settleLook(t, d, team)
	if entry.in.logError() == nil {
		t.Fatal("the tenant was closed and opened again on a full disk")
	}
	free = 1 << 29
	clock.Add(time.Minute.Milliseconds())
	settleLook(t, d, team)
	eventually(t, func() bool { return d.Status()[0].Error == "" && d.Status()[0].State == Open })
	put(t, d, team, ls, float64(clock.Load()), 1)
}

func TestPanicInMaintenance(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := float64(time.Now().UnixMilli())
	put(t, d, team, labels.FromStrings("a", "b"), now, 1)
	entry := d.lookup(team)
	if err := entry.protected(entry.in, func() error { panic("no space left") }); errs.KindOf(err) != errs.Internal {
		t.Fatalf("a panic became %v", err)
	}
	if entry.in.logError() == nil {
		t.Fatal("the tenant takes writes after a panic")
	}
	settleLook(t, d, team)
	eventually(t, func() bool { return d.Status()[0].Error == "" && d.Status()[0].State == Open })
	put(t, d, team, labels.FromStrings("a", "b"), now+1, 2)
	if got := read(t, d, team)[`{a="b"}`]; len(got) != 2 {
		t.Fatalf("read %v, want both samples", got)
	}
}

func TestPanicInCut(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := float64(time.Now().UnixMilli())
	put(t, d, team, labels.FromStrings("a", "b"), now, 1)
	in := d.lookup(team).in
	hook := func() { panic("no space left") }
	in.scanned.Store(&hook) // called when the first block begins
	if err := d.Cut(t.Context()); errs.KindOf(err) != errs.Internal {
		t.Fatalf("a cut that panicked: %v", err)
	}
	if in.logError() == nil {
		t.Fatal("the tenant takes writes after a panic")
	}
	settleLook(t, d, team)
	eventually(t, func() bool { return d.Status()[0].Error == "" && d.Status()[0].State == Open })
	put(t, d, team, labels.FromStrings("a", "b"), now+1, 2)
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, d, team)[`{a="b"}`]; len(got) != 2 {
		t.Fatalf("read %v, want both samples", got)
	}
}

// TestUnfinishedRepair opens a tenant whose damaged log was being repaired when the process died or the disk was full.
func TestUnfinishedRepair(t *testing.T) {
	f := func(name string, damage func(t *testing.T, wal string)) {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			d := openDB(t, o)
			now := float64(time.Now().UnixMilli())
			ls := labels.FromStrings("a", "b")
			put(t, d, team, ls, now, 1)
			put(t, d, team, ls, now+1, 2)
			crashed := testOptions(t)
			if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
				t.Fatal(err)
			}
			wal := filepath.Join(crashed.Dir, string(team), "wal")
			appendFile(t, wlog.SegmentName(wal, 0), "garbage that is no record at all")
			damage(t, wal)
			d = openDB(t, crashed)
			if got := read(t, d, team)[`{a="b"}`]; len(got) != 2 {
				t.Fatalf("read %v, want both samples", got)
			}
			put(t, d, team, ls, now+2, 3)
			if left, _ := filepath.Glob(filepath.Join(wal, "*"+".repair")); len(left) > 0 {
				t.Fatalf("left over: %q", left)
			}
		})
	}
	rename := func(t *testing.T, wal string) {
		t.Helper()
		if err := os.Rename(wlog.SegmentName(wal, 0), wlog.SegmentName(wal, 0)+".repair"); err != nil {
			t.Fatal(err)
		}
	}
	f("not begun", func(*testing.T, string) {})
	f("moved", rename)
	f("copied in part", func(t *testing.T, wal string) {
		rename(t, wal)
		appendFile(t, wlog.SegmentName(wal, 0), "")
	})
}

func appendFile(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTenantNamedLock has a name that this package, or one before it, may have wanted for itself.
func TestTenantNamedLock(t *testing.T) {
	d := openDB(t, testOptions(t))
	put(t, d, "lock", labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
	other, err := New(slog.New(slog.DiscardHandler), nil, d.opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Open(t.Context(), nil); err == nil {
		t.Fatal("two processes have one directory")
	}
}
