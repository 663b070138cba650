package tsdb

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// stuckReader reads of a tenant, and does not go on.
func stuckReader(t *testing.T, d *DB, id tenant.ID, mint, maxt int64) (end func()) {
	t.Helper()
	set := d.Select(series.WithCaller(t.Context(), "10.1.2.3:4"), request(id, mint, maxt))
	if !set.Next() {
		t.Fatalf("nothing to read of %s: %v", id, set.Err())
	}
	return sync.OnceFunc(func() { set.Close() })
}

// TestStuckReaders has more tenants whose readers do not go on than there are slots for cuts, each of them cut twice.
func TestStuckReaders(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	d.patience = 100 * time.Millisecond
	now := float64(time.Now().UnixMilli())
	var ends []func()
	for i := range 2 * o.CutConcurrency {
		id := tenant.ID(fmt.Sprint("bad", i))
		put(t, d, id, labels.FromStrings("a", "b"), now, 1)
		ends = append(ends, stuckReader(t, d, id, 0, math.MaxInt64))
	}
	put(t, d, "good", labels.FromStrings("a", "b"), now, 1)
	for range 2 {
		err := d.Cut(t.Context())
		if errs.KindOf(err) != errs.Unavailable || errs.RetryAfter(err) == 0 {
			t.Fatalf("cut of all: %v", err)
		}
		for i := range 2 * o.CutConcurrency {
			if want := fmt.Sprintf(`cut of tenant "bad%d" waits for reads to end: one by 10.1.2.3:4 since `,
				i); !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
		if strings.Contains(err.Error(), "good") {
			t.Errorf("the tenant that nobody reads: %v", err)
		}
		if blocks, _ := d.Blocks("good"); len(blocks) != 1 {
			t.Fatalf("%d blocks of the tenant that nobody reads", len(blocks))
		}
		if n := len(d.cuts); n != 0 {
			t.Fatalf("%d slots are held", n)
		}
	}
	for _, end := range ends {
		end()
	}
	eventually(t, func() bool { return d.Cut(t.Context()) == nil })
	for id := range 2 * o.CutConcurrency {
		if in := d.lookup(tenant.ID(fmt.Sprint("bad", id))).in; in.db.Head().NumSeries() != 0 {
			t.Errorf("bad%d: %d series are left in the head", id, in.db.Head().NumSeries())
		}
	}
}

// TestStuckReaderKinds waits at each place where the TSDB itself waits for readers.
func TestStuckReaderKinds(t *testing.T) {
	f := func(name string, prepare func(d *DB, now int64), change func(o *Options)) {
		t.Helper()
		o := testOptions(t)
		o.CutConcurrency = 1
		if change != nil {
			change(&o)
		}
		d := openDB(t, o)
		d.patience = 100 * time.Millisecond
		now := o.Now().UnixMilli()
		put(t, d, "good", labels.FromStrings("a", "b"), float64(now), 1)
		prepare(d, now)
		end := stuckReader(t, d, team, 0, math.MaxInt64)
		put(t, d, team, labels.FromStrings("a", "b"), float64(now+10), 1)
		err := d.Cut(t.Context(), team)
		if err == nil || !strings.Contains(err.Error(), "waits for reads") {
			t.Errorf("%s: cut: %v", name, err)
		}
		if err := d.Cut(t.Context(), "good"); err != nil {
			t.Errorf("%s: the other tenant: %v", name, err)
		}
		end()
		eventually(t, func() bool { return d.Cut(t.Context(), team) == nil })
	}
	f("head", func(d *DB, now int64) {
		put(t, d, team, labels.FromStrings("a", "b"), float64(now), 1)
	}, nil)
	f("out of order", func(d *DB, now int64) {
		put(t, d, team, labels.FromStrings("a", "b"), float64(now+5), 1)
		for i := range 100 { // full chunks
			put(t, d, team, labels.FromStrings("a", "b"), float64(now-int64(i)), 1)
		}
	}, nil)
	clock := time.Now()
	f("a block past its retention", func(d *DB, now int64) {
		put(t, d, team, labels.FromStrings("a", "b"), float64(now), 1)
		if err := d.Cut(t.Context(), team); err != nil {
			t.Fatal(err)
		}
		d.opts.Retention = time.Nanosecond
	}, func(o *Options) { o.Now = func() time.Time { return clock.Add(-48 * time.Hour) } })
}

// TestStopWithReader stops with a reader that does not go on, and a cut that waits for it.
func TestStopWithReader(t *testing.T) {
	o := testOptions(t)
	o.OpenConcurrency = 1
	d := openDB(t, o)
	d.patience, d.closeTimeout = 50*time.Millisecond, 300*time.Millisecond
	now := float64(time.Now().UnixMilli())
	ids := []tenant.ID{"a", "b", "c", team}
	for _, id := range ids {
		put(t, d, id, labels.FromStrings("a", "b"), now, 1)
	}
	end := stuckReader(t, d, team, 0, math.MaxInt64)
	if err := d.Cut(t.Context(), team); err == nil {
		t.Fatal("the cut does not wait")
	}
	err := d.Close()
	if err == nil || !strings.Contains(err.Error(), `tenant "team"`) {
		t.Fatalf("close: %v", err)
	}
	for _, id := range ids[:3] {
		if found, err := filepath.Glob(filepath.Join(o.Dir, string(id), "chunk_snapshot.*")); err != nil || len(found) != 1 {
			t.Errorf("tenant %s was not closed: %v %v", id, found, err)
		}
	}
	end()
	after := o
	after.Dir = t.TempDir()
	if err := os.CopyFS(after.Dir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, after)
	for _, id := range ids {
		if got := read(t, d, id); len(got) != 1 {
			t.Errorf("tenant %s after the start: %v", id, got)
		}
	}
}

// TestCutEndsWithContext gives a cut up that waits, for its turn and for readers.
func TestCutEndsWithContext(t *testing.T) {
	d := openDB(t, testOptions(t))
	put(t, d, team, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
	end := stuckReader(t, d, team, 0, math.MaxInt64)
	defer end()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := d.Cut(ctx, team); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "team") {
			t.Errorf("cut: %v", err)
		}
		cancel()
	}
	end()
	eventually(t, func() bool { return d.Cut(t.Context(), team) == nil })
}

// TestStuckWrite cuts while a write does not end.
func TestStuckWrite(t *testing.T) {
	o := testOptions(t)
	o.CutConcurrency = 1
	d := openDB(t, o)
	d.patience = 50 * time.Millisecond
	now := float64(time.Now().UnixMilli())
	put(t, d, team, labels.FromStrings("a", "b"), now, 1)
	put(t, d, "good", labels.FromStrings("a", "b"), now, 1)
	in := d.lookup(team).in
	_ = in.fence.take(t.Context())
	if err := d.Cut(t.Context()); err == nil || !strings.Contains(err.Error(), `cut of tenant "team" waits for writes`) ||
		strings.Contains(err.Error(), "good") {
		t.Errorf("cut: %v", err)
	}
	in.fence.give()
	eventually(t, func() bool { return d.Cut(t.Context()) == nil })
}

// TestWriteGivesUp writes while another write of the tenant does not end: the wait ends with the caller's context.
func TestWriteGivesUp(t *testing.T) {
	d := openDB(t, testOptions(t))
	ls := labels.FromStrings("a", "b")
	now := time.Now().UnixMilli()
	put(t, d, team, ls, float64(now), 1)
	in := d.lookup(team).in
	_ = in.fence.take(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		b := wire.NewBatch(team)
		b.Add(ls).Samples = []wire.Sample{{T: now + 1, V: 2}}
		_, err := d.Append(ctx, wire.All(b))
		done <- err
	}()
	tenant := d.lookup(team)
	eventually(t, func() bool { // it waits for the fence, or is about to
		tenant.mu.Lock()
		defer tenant.mu.Unlock()
		return tenant.in.users == 1
	})
	cancel()
	select {
	case err := <-done:
		if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), `"team"`) {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a write whose caller gave up waits on")
	}
	in.fence.give()
	if got := read(t, d, team)[ls.String()]; len(got) != 1 {
		t.Errorf("read %v, want one sample", got)
	}
}

// TestHungHousekeeping looks after a tenant whose disk does not answer: the scheduler, and the other tenants' turns,
// go on.
func TestHungHousekeeping(t *testing.T) {
	o := testOptions(t)
	var late atomic.Int64
	o.Now = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	o.Tick = time.Millisecond
	o.Window = 24 * time.Hour
	d := openDB(t, o)
	now := float64(time.Now().UnixMilli())
	for _, id := range []tenant.ID{"a", "b", "c"} {
		b := wire.NewBatch(id)
		b.Add(labels.FromStrings("a", "b")).Samples = []wire.Sample{{T: int64(now), V: 1}}
		b.Metadata = []wire.Metadata{{Family: "m", Help: "h"}}
		mustAppend(t, d, b)
	}
	saving := reflect.ValueOf(d.lookup("b").meta).Elem().FieldByName("saving")
	hung := (*sync.Mutex)(unsafe.Pointer(saving.UnsafeAddr())) // stands for a disk that does not answer
	hung.Lock()
	defer hung.Unlock()
	late.Store(int64(3 * time.Hour))
	eventually(t, func() bool {
		for _, id := range []tenant.ID{"a", "c"} {
			if !tenantdir.Exists(filepath.Join(d.lookup(id).dir, "metadata.json")) {
				return false
			}
		}
		return !d.housekeeping.Load()
	})
	eventually(t, func() bool { // also of the one that hangs
		for _, id := range []tenant.ID{"a", "b", "c"} {
			in, release, err := d.lookup(id).use(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			release()
			if in.lastCut.Load() == 0 {
				return false
			}
		}
		return true
	})
}

func TestReadersAreNamed(t *testing.T) {
	var r readers
	if got := r.before(time.Now().Add(time.Hour)); got != "" {
		t.Fatalf("nobody reads: %q", got)
	}
	r.begin(t.Context())()
	for i := range 5 {
		r.begin(series.WithCaller(t.Context(), fmt.Sprint("q", i)))
	}
	got := r.before(time.Now())
	if strings.Count(got, "one by q") != 3 || !strings.HasSuffix(got, ", 2 more") {
		t.Fatalf("%q", got)
	}
	if got := r.before(time.Now().Add(-time.Hour)); got != "" {
		t.Fatalf("none is an hour old: %q", got)
	}
	var own readers
	own.begin(t.Context())
	if got := own.before(time.Now()); !strings.HasPrefix(got, "one by this process since ") {
		t.Fatalf("%q", got)
	}
}
