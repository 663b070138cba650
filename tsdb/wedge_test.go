package tsdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// breakChunks makes the TSDB in dir unable to begin a file of mapped chunks, and returns what mends it.
func breakChunks(t *testing.T, dir string) (mend func()) {
	t.Helper()
	chunks := filepath.Join(dir, "chunks_head")
	if err := errors.Join(os.Rename(chunks, chunks+".away"), os.WriteFile(chunks, nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(os.Remove(chunks), os.Rename(chunks+".away", chunks)); err != nil {
			t.Fatal(err)
		}
	}
}

// outOfOrder writes n samples to each of the series, one request per sample, from the newest to the oldest.
type outOfOrder struct {
	d    *DB
	last int64
	acks []int64
}

func (o *outOfOrder) send(ctx context.Context, series int) error {
	b := wire.NewBatch(team)
	for i := range series {
		b.Add(labels.FromStrings("i", fmt.Sprint(i))).Samples = []wire.Sample{{T: o.last, V: float64(o.last)}}
	}
	failures, err := o.d.Append(ctx, wire.All(b))
	if len(failures) > 0 {
		err = errors.Join(err, errors.New(failures[0].Reason))
	}
	if err == nil {
		o.acks = append(o.acks, o.last)
	}
	o.last -= 10
	return err
}

// TestWedge lets the head panic in a commit, which leaves a series locked for good. Its writers must not hang, others must
// not notice, and the tenant must come back by itself with all that was acknowledged.
func TestWedge(t *testing.T) {
	o := testOptions(t)
	var ahead atomic.Int64
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	d := openDB(t, o)
	now := time.Now().UnixMilli()
	put(t, d, "other", labels.FromStrings("a", "b"), float64(now), 1)
	w := &outOfOrder{d: d, last: now}
	for range 33 { // one in order, and a chunk that is full
		if err := w.send(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	mend := breakChunks(t, d.TenantDir(team))

	// Many writers of the series that will be locked.
	var wg sync.WaitGroup
	results := make(chan error, 20)
	for i := range 20 {
		own := &outOfOrder{d: d, last: w.last - int64(i)}
		wg.Go(func() { results <- own.send(context.Background(), 3) })
	}
	waited := make(chan struct{})
	go func() { wg.Wait(); close(waited) }()
	select {
	case <-waited:
	case <-time.After(20 * time.Second):
		t.Fatal("writers of the locked series hang")
	}
	for range 20 {
		if err := <-results; errs.KindOf(err) != errs.Unavailable || errs.RetryAfter(err) == 0 {
			t.Errorf("append while the head is stuck: %v", err)
		}
	}
	put(t, d, "other", labels.FromStrings("a", "b"), float64(now+1), 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.send(ctx, 3); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("append: %v", err)
	}

	// It does not come back while the fault lasts, and the process stays ready.
	ahead.Add(int64(time.Minute))
	settleLook(t, d, team)
	eventually(t, func() bool { return d.Status()[1].State == Broken })
	ahead.Add(int64(time.Minute))
	settleLook(t, d, team)
	eventually(t, func() bool { return d.Status()[1].State == Broken })
	if err := d.Ready(); err != nil {
		t.Fatalf("one tenant is broken: %v", err)
	}

	// Once it is over a write brings the tenant back: not after half an hour.
	mend()
	ahead.Add(int64(10 * time.Second))
	eventually(t, func() bool { return w.send(t.Context(), 3) == nil })
	for range 70 {
		if err := w.send(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	checkAcks := func() {
		t.Helper()
		got := read(t, d, team)
		for name, points := range got {
			have := map[int64]bool{}
			for _, p := range points {
				have[p.t] = true
			}
			for _, at := range w.acks {
				if !have[at] {
					t.Fatalf("%s: the acknowledged sample at %d is gone", name, at)
				}
			}
		}
		if len(got) != 3 {
			t.Fatalf("%d series, want 3", len(got))
		}
	}
	checkAcks()
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkAcks()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	checkAcks()
}
