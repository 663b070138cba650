package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// countBucket counts the reads of indexes, and holds them up while gate is set.
type countBucket struct {
	objstore.Bucket
	reads atomic.Int64
	gate  atomic.Pointer[chan struct{}]
}

func (b *countBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if strings.HasSuffix(name, "/"+block.IndexName) {
		b.reads.Add(1)
		if gate := b.gate.Load(); gate != nil {
			select {
			case <-*gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return b.Bucket.GetRange(ctx, name, off, n)
}

func (b *countBucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	b.reads.Add(1)
	return b.Bucket.Attributes(ctx, name)
}

// await waits until there were n reads.
func (b *countBucket) await(t *testing.T, n int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); b.reads.Load() < n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d reads, want %d", b.reads.Load(), n)
		}
	}
}

// TestSyncReadsNoBlock: a sync reads metas and nothing else; a request opens the blocks of its time, once.
func TestSyncReadsNoBlock(t *testing.T) {
	bkt := &countBucket{Bucket: inMemory(t)}
	in := few()
	for range 3 {
		upload(t, bkt, makeBlock(t, in), ring(team, "r1"))
	}
	bkt.reads.Store(0) // of the upload
	g := opened(t, bkt)
	if err := g.Sync(t.Context()); err != nil || bkt.reads.Load() != 0 || len(g.Status()) != 3 {
		t.Fatalf("%d reads, %d blocks, %v", bkt.reads.Load(), len(g.Status()), err)
	}
	seriesOf(t, g.Select(t.Context(), ask(team, 1<<40, 1<<41)))
	if n := bkt.reads.Load(); n != 0 {
		t.Fatalf("%d reads for a time without blocks", n)
	}
	want := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
	if n := len(g.headers.opened()); n != 3 {
		t.Fatalf("%d headers are open", n)
	}
	first := bkt.reads.Load()
	if got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))); got != want || bkt.reads.Load() != first {
		t.Fatalf("%d reads, then %d: %s", first, bkt.reads.Load(), got)
	}
}

// TestOneLoadForAll: requests that need one header wait for one load. It goes on when the first of them gives up, whose
// wait ends at once.
func TestOneLoadForAll(t *testing.T) {
	bkt := &countBucket{Bucket: inMemory(t)}
	upload(t, bkt, makeBlock(t, few()), ring(team, "r1"))
	g := opened(t, bkt)
	var b *bucketBlock
	for _, b = range g.current.blocks {
	}
	gate := make(chan struct{})
	bkt.gate.Store(&gate)
	bkt.reads.Store(0)
	ctx, cancel := context.WithCancel(t.Context())
	impatient := make(chan error)
	go func() { _, err := b.Header(ctx); impatient <- err }()
	bkt.await(t, 2) // the size, then the first range
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if h, err := b.Header(t.Context()); err != nil || len(h.LabelNames()) == 0 {
				t.Error(err)
			}
		})
	}
	cancel()
	if err := <-impatient; errs.KindOf(err) != errs.Unavailable || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(gate)
	wg.Wait()
	if n := bkt.reads.Load(); n != 3 { // size, end, beginning
		t.Errorf("%d reads", n)
	}
}

// TestLoadEndsWithGateway: Close ends a load that hangs, and who asks afterwards gets an error.
func TestLoadEndsWithGateway(t *testing.T) {
	bkt := &countBucket{Bucket: inMemory(t)}
	upload(t, bkt, makeBlock(t, few()), ring(team, "r1"))
	g := opened(t, bkt)
	gate := make(chan struct{})
	bkt.gate.Store(&gate)
	bkt.reads.Store(0)
	set := g.Select(t.Context(), ask(team, 0, 5000))
	ended := make(chan bool)
	go func() { ended <- set.Next() }()
	bkt.await(t, 2)
	g.Close()
	if <-ended || errs.KindOf(set.Err()) != errs.Unavailable {
		t.Error(set.Err(), set.Warnings())
	}
	set.Close()
}

// TestIdleHeadersClose: a header is closed when nobody used it for a while, never while a request has its block, and
// opened again from local disk.
func TestIdleHeadersClose(t *testing.T) {
	bkt := &countBucket{Bucket: inMemory(t)}
	upload(t, bkt, makeBlock(t, few()), ring(team, "r1"))
	var now clock
	g := opened(t, bkt, func(o *Options) { o.Now, o.HeaderIdleTimeout = now.time, 0 })
	open := func() int { return len(g.headers.opened()) }
	idle := func() { g.unloadIdle(now.time().Add(-time.Minute)) }
	set := g.Select(t.Context(), ask(team, 0, 5000))
	if !set.Next() {
		t.Fatal(set.Err())
	}
	now.forward(time.Hour)
	if idle(); open() != 1 {
		t.Fatal("the header of a block that is being read was closed")
	}
	want := seriesOf(t, set)
	if idle(); open() != 0 {
		t.Fatal("an idle header stays open")
	}
	before := bkt.reads.Load()
	again := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
	if _, rest, _ := strings.Cut(again, " "); again == "" || !strings.HasSuffix(again, want) || rest == "" {
		t.Fatalf("got %s, and before %s", again, want)
	}
	if bkt.reads.Load() != before {
		t.Error("the header was read from the bucket again")
	}
	now.forward(30 * time.Second)
	if idle(); open() != 1 {
		t.Error("a header that was used half a minute ago was closed")
	}
}

// TestIdleUnderLoad closes headers all the time while requests read: nobody reads what was unmapped.
func TestIdleUnderLoad(t *testing.T) {
	bkt := inMemory(t)
	twoBlocks(t, bkt)
	g := opened(t, bkt)
	want := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
	ctx, cancel := context.WithCancel(t.Context())
	var closer, readers sync.WaitGroup
	closer.Go(func() {
		for ctx.Err() == nil {
			g.unloadIdle(time.Now().Add(time.Hour))
			if err := g.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		readers.Go(func() {
			for range 100 {
				if got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
	}
	readers.Wait()
	cancel()
	closer.Wait()
}

// compacted uploads two blocks and, later, one made of both.
func compacted(t *testing.T, bkt objstore.Bucket) (a, b ulid.ULID, compact func() ulid.ULID) {
	t.Helper()
	a, b = twoBlocks(t, bkt)
	return a, b, func() ulid.ULID {
		return upload(t, bkt, makeBlock(t, few()), ring(team, "r1"), func(m *block.Meta) {
			m.Compaction.Level, m.Compaction.Sources = 2, []ulid.ULID{a, b}
		})
	}
}

// TestGoneBlockIsReplaced: blocks that were compacted and deleted since the last sync are found to be gone inside the
// request, which reads their successor: whether they were open before or not.
func TestGoneBlockIsReplaced(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("opened before: ", warm), func(t *testing.T) {
			bkt := inMemory(t)
			a, b, compact := compacted(t, bkt)
			g := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 0 })
			want := seriesOf(t, opened(t, bkt).Select(t.Context(), ask(team, 0, 5000)))
			if warm {
				seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
			}
			compact()
			for _, id := range []ulid.ULID{a, b} {
				if err := block.Delete(t.Context(), bkt, id); err != nil {
					t.Fatal(err)
				}
			}
			if got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))); got != want {
				t.Errorf("series: %s, want %s", got, want)
			}
			if got := g.Status(); len(got) != 1 {
				t.Errorf("served: %v", got)
			}
		})
	}
}

// TestGoneBlockLabels is the same for label values.
func TestGoneBlockLabels(t *testing.T) {
	bkt := inMemory(t)
	a, b, compact := compacted(t, bkt)
	g := opened(t, bkt)
	compact()
	for _, id := range []ulid.ULID{a, b} {
		if err := block.Delete(t.Context(), bkt, id); err != nil {
			t.Fatal(err)
		}
	}
	got, w, err := g.LabelValues(t.Context(), "__name__", ask(team, 0, 5000))
	if err != nil || len(w) > 0 || strings.Join(got, " ") != "a b" {
		t.Errorf("%q, %v, %v", got, w, err)
	}
}

// TestBrokenLater: a compacted block that is found to be broken when it is first read gives its place to its sources
// inside the request. It is tried again after a while, and later after a longer one.
func TestBrokenLater(t *testing.T) {
	bkt := inMemory(t)
	_, _, compact := compacted(t, bkt)
	c := compact()
	var good []byte
	damage(t, bkt, block.Object(c, "index"), func(b []byte) []byte { good = b; return nil })
	var now clock
	g := opened(t, bkt, func(o *Options) { o.Now = now.time })
	read := func(warned bool) {
		t.Helper()
		got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
		if strings.Count(got, "{__name__") != 4 || strings.Contains(got, c.String()) != warned {
			t.Errorf("warned %v: %s", warned, got)
		}
	}
	read(true)
	first := g.failures[c]
	now.forward(first.until.Sub(now.time()))
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	read(true)
	if second := g.failures[c]; second.tries != 2 || second.until.Sub(now.time()) <= firstRetry {
		t.Errorf("tried again after %s, then after %s", firstRetry, second.until.Sub(now.time()))
	}
	damage(t, bkt, block.Object(c, block.MetaName), func(m []byte) []byte {
		if err := bkt.Upload(context.Background(), block.Object(c, "index"), strings.NewReader(string(good))); err != nil {
			t.Fatal(err)
		}
		return m
	})
	now.forward(time.Hour)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	read(false)
}

// TestTornHeader: a local file that a crash cut short is built anew.
func TestTornHeader(t *testing.T) {
	bkt := inMemory(t)
	id := upload(t, bkt, makeBlock(t, few()), ring(team, "r1"))
	dir := t.TempDir()
	in := func(o *Options) { o.Dir = dir }
	want := seriesOf(t, opened(t, bkt, in).Select(t.Context(), ask(team, 0, 5000)))
	path := filepath.Join(dir, id.String(), block.IndexHeaderName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o666); err != nil {
		t.Fatal(err)
	}
	if got := seriesOf(t, opened(t, bkt, in).Select(t.Context(), ask(team, 0, 5000))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != string(whole) {
		t.Errorf("%d bytes, want %d, %v", len(b), len(whole), err)
	}
}
