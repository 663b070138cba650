package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var errFault = errors.New("injected fault")

// faultBucket fails all reads after the first `left` range reads; while hang is set they wait for their context instead, and
// while down is set nothing answers.
type faultBucket struct {
	objstore.Bucket
	left       atomic.Int64
	hang, down atomic.Bool
}

func (b *faultBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if b.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if b.down.Load() || b.left.Add(-1) < 0 {
		return nil, errFault
	}
	return b.Bucket.GetRange(ctx, name, off, n)
}

func (b *faultBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if b.down.Load() || b.left.Load() < 0 {
		return nil, errFault
	}
	return b.Bucket.Get(ctx, name)
}

func (b *faultBucket) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if b.down.Load() {
		return errFault
	}
	return b.Bucket.Iter(ctx, dir, f, o...)
}

// TestUnreadMeta: a block whose meta.json the bucket does not deliver may be anybody's, so every answer says that it
// is not in there, until it is.
func TestUnreadMeta(t *testing.T) {
	bkt := &getFault{Bucket: inMemory(t)}
	a, _ := twoBlocks(t, bkt)
	object := block.Object(a, block.MetaName)
	bkt.fails.Store(&object)
	g := opened(t, bkt)
	f := func(id tenant.ID, want string) {
		t.Helper()
		if got := seriesOf(t, g.Select(t.Context(), ask(id, 0, 5000))); !strings.HasPrefix(got, want) ||
			strings.Contains(want, "warning") != strings.Contains(got, "warning") {
			t.Errorf("series of %s: %s, want %s", id, got, want)
		}
		for _, ms := range [][]*labels.Matcher{nil, {match(labels.MatchNotEqual, "x", "y")}} {
			if _, w, err := g.LabelNames(t.Context(),
				ask(id, 0, 5000, ms...)); (len(w) > 0) != strings.Contains(want, "warning") ||
				err != nil {
				t.Errorf("label names of %s: %q, %v", id, w, err)
			}
		}
	}
	f(team, goodPart+" warning: block "+a.String())
	f("nobody", "warning: block "+a.String())
	bkt.fails.Store(nil)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	f(team, `{__name__="a"`)
	f("nobody", "")
}

// getFault does not deliver one object.
type getFault struct {
	objstore.Bucket
	fails atomic.Pointer[string]
}

func (b *getFault) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if object := b.fails.Load(); object != nil && *object == name {
		return nil, errFault
	}
	return b.Bucket.Get(ctx, name)
}

// clock stands at a moment until it is moved.
type clock struct{ ahead atomic.Int64 }

func (c *clock) time() time.Time         { return time.Unix(1_800_000_000, c.ahead.Load()) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// twoBlocks are blocks of different series in one bucket; the first is the one to damage.
func twoBlocks(t *testing.T, bkt objstore.Bucket) (a, b ulid.ULID) {
	t.Helper()
	in := few()
	a = upload(t, bkt, makeBlock(t, in[:2]), ring(team, "r1"))
	b = upload(t, bkt, makeBlock(t, in[2:]), ring(team, "r1"))
	return a, b
}

const goodPart = `{__name__="a", d="y"} {__name__="b"}`

// exactBucket answers as S3 does where an object ends before the range that is asked for.
type exactBucket struct{ objstore.Bucket }

func (b exactBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if a, err := b.Attributes(ctx, name); err == nil && off >= a.Size {
		return nil, minio.ErrorResponse{Code: "InvalidRange", Message: "The requested range is not satisfiable",
			StatusCode: http.StatusRequestedRangeNotSatisfiable}
	}
	return b.Bucket.GetRange(ctx, name, off, n)
}

// TestFaultyBlock damages one of two blocks: the other one is served, and a warning names the faulty one.
func TestFaultyBlock(t *testing.T) {
	f := func(what, object string, edit func([]byte) []byte, wants ...string) {
		t.Run(what, func(t *testing.T) {
			bkt := exactBucket{inMemory(t)}
			a, _ := twoBlocks(t, bkt)
			damage(t, bkt, block.Object(a, object), edit)
			g := opened(t, bkt)
			got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
			if !strings.Contains(got, goodPart+" warning: ") {
				t.Fatalf("got %s", got)
			}
			for range 2 { // what is kept of the first answer says no less
				if again := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))); again != got && !strings.Contains(what, "index") {
					t.Fatalf("got %s, and before %s", again, got)
				}
			}
			if other := `{__name__="a", cluster="own"} `; what == "chunk flipped" && !strings.HasPrefix(got, other) {
				t.Fatalf("the other chunks of the file are lost: %s", got)
			}
			for _, want := range append(wants, a.String()) {
				if !strings.Contains(got, want) {
					t.Fatalf("%q is not in %s", want, got)
				}
			}
			if err := g.Ready(); err != nil {
				t.Fatal(err)
			}
		})
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 0x10; return b }
	}
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	none := func([]byte) []byte { return nil }
	f("chunk flipped", "chunks/000001", flip(20), "chunks/000001", "checksum")
	f("chunks cut", "chunks/000001", cut, "chunks/000001")
	f("chunks cut before the first", "chunks/000001", func(b []byte) []byte { return b[:8] }, "chunks/000001")
	f("length of a chunk", "chunks/000001", func(b []byte) []byte {
		copy(b[8:], []byte{0xff, 0xff, 0xff, 0xff, 2})
		return b
	}, "chunks/000001: length of the chunk at 8")
	f("chunks gone", "chunks/000001", none, "chunks/000001")
	f("a series flipped", "index", func(b []byte) []byte {
		toc, err := index.NewTOCFromByteSlice(block.Bytes(b))
		if err != nil {
			t.Fatal(err)
		}
		b[toc.Series+6] ^= 0x10
		return b
	}, "index", "checksum of the series")
	f("index cut", "index", cut, "index")
	f("index gone", "index", none, "index")
	f("symbols flipped", "index", flip(12), "index")
	f("contents flipped", "index", flip(-10), "index")
}

// TestFaultyIndexSections flips each byte of a small index after the block was opened: what is read of it either is
// right or a warning, never something else.
func TestFaultyIndexSections(t *testing.T) {
	bkt := inMemory(t)
	a, _ := twoBlocks(t, bkt)
	g := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 0 })
	whole := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
	var good []byte
	damage(t, bkt, block.Object(a, "index"), func(b []byte) []byte { good = b; return b })
	warned := 0
	for i := range good {
		damage(t, bkt, block.Object(a, "index"), func([]byte) []byte {
			b := append([]byte(nil), good...)
			b[i] ^= 0x21
			return b
		})
		got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
		if got != whole && !(strings.Contains(got, goodPart+" warning: ") && strings.Contains(got, a.String())) {
			t.Fatalf("byte %d: %s", i, got)
		}
		if got != whole {
			warned++
		}
	}
	if warned < 40 { // the all-postings list and the series
		t.Fatalf("only %d of %d bytes matter", warned, len(good))
	}
}

// TestQuarantineEnds repairs a block: it is served once it was left alone for RetryAfter.
func TestQuarantineEnds(t *testing.T) {
	bkt := inMemory(t)
	a, _ := twoBlocks(t, bkt)
	var good []byte
	damage(t, bkt, block.Object(a, "index"), func(b []byte) []byte { good = append([]byte(nil), b...); return b[:60] })
	var now clock
	g := opened(t, bkt, func(o *Options) { o.Now = now.time })
	read := func() { seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))) }
	read()
	if st := g.Status(); len(st) != 2 || st[0].ID != a || st[0].Error == "" || st[1].Error != "" {
		t.Fatalf("%+v", st)
	}
	damage(t, bkt, block.Object(a, "index"), func([]byte) []byte { return good })
	for _, later := range []time.Duration{time.Minute, time.Hour} {
		now.forward(later)
		if err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		read()
		if got := servedOf(g, a)[0]; got != (later == time.Hour) {
			t.Fatalf("%s later: served %v", later, got)
		}
	}
}

// TestBucketFails lets range reads fail after ever more of them: an error of kind Unavailable, never a partial answer
// that looks whole; and all is well afterwards.
func TestBucketFails(t *testing.T) {
	bkt := &faultBucket{Bucket: inMemory(t)}
	bkt.left.Store(1 << 30)
	in := randomSeries(rand.New(rand.NewPCG(3, 3)), 600, 0, 600_000)
	upload(t, bkt, makeBlock(t, in), ring(team, "r1"))
	g := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 0 })
	want := text(g.Select(t.Context(), ask(team, 0, 600_000)), 0, 600_000)
	failed := 0
	for n := int64(0); ; n++ {
		bkt.left.Store(n)
		set := g.Select(t.Context(), ask(team, 0, 600_000))
		got := text(set, 0, 600_000)
		if err := set.Err(); err == nil {
			if got != want {
				t.Fatalf("after %d reads: %s", n, firstDifference(got, want))
			}
			break
		} else if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "injected") {
			t.Fatalf("after %d reads: %v", n, err)
		}
		failed++
	}
	if failed < 3 { // postings, series and chunks
		t.Fatalf("only %d reads", failed)
	}
}

func TestBucketHangs(t *testing.T) {
	bkt := &faultBucket{Bucket: inMemory(t)}
	bkt.left.Store(1 << 30)
	twoBlocks(t, bkt)
	g := opened(t, bkt)
	bkt.hang.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	set := g.Select(ctx, ask(team, 0, 5000))
	ended := make(chan bool)
	go func() { ended <- set.Next() }()
	cancel()
	if <-ended || errs.KindOf(set.Err()) != errs.Unavailable {
		t.Fatal(set.Err())
	}
	set.Close()
	set = g.Select(t.Context(), ask(team, 0, 5000)) // Close ends reads that hang
	for _, b := range set.(*requestSet).blocks {
		b.launch()
	}
	set.Close()
	if set.Next() {
		t.Fatal("a closed set goes on")
	}
}

func TestLimits(t *testing.T) {
	bkt := inMemory(t)
	in := randomSeries(rand.New(rand.NewPCG(3, 3)), 300, 0, 3600_000)
	upload(t, bkt, makeBlock(t, in), ring(team, "r1"))
	f := func(want errs.Kind, name string, edit func(*Options)) {
		t.Helper()
		g := opened(t, bkt, edit)
		set := g.Select(t.Context(), ask(team, 0, 3600_000))
		defer set.Close()
		for set.Next() {
		}
		if errs.KindOf(set.Err()) != want || want != errs.OK && !strings.Contains(set.Err().Error(), name) {
			t.Fatalf("%s: %v", name, set.Err())
		}
	}
	f(errs.OK, "", func(*Options) {})
	f(errs.Limited, "bytes per request", func(o *Options) { o.MaxRequestBytes = 64 << 10 })
	f(errs.Limited, "may have 58248 of the 65536", func(o *Options) { o.Memory = memory.NewBudget(nil, "--max", 64<<10) })

	all := memory.NewBudget(nil, "--max", 1<<20)
	other := all.Owner("test", 0).Open("other")
	if err := other.Grow(all.Total() / 9 * 8); err != nil {
		t.Fatal(err)
	}
	f(errs.Exhausted, "requests hold", func(o *Options) { o.Memory, o.MemoryWait = all, time.Millisecond })
	other.Close()

	g := opened(t, bkt, func(o *Options) { o.MaxOpenRequests = 3 })
	a, b := g.Select(t.Context(), ask(team, 0, 1)), g.Select(t.Context(), ask(team, 0, 1))
	if set := g.Select(t.Context(), ask(team, 0, 1)); errs.KindOf(set.Err()) != errs.Exhausted {
		t.Fatal(set.Err())
	}
	if _, _, err := g.LabelNames(t.Context(), ask(team, 0, 1)); errs.KindOf(err) != errs.Exhausted {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	if _, _, err := g.LabelNames(t.Context(), ask(team, 0, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestLimitsOfOneRequest: a request that has exactly what it may have is answered, one with one more is not.
func TestLimitsOfOneRequest(t *testing.T) {
	bkt := inMemory(t)
	const n = 7
	upload(t, bkt, makeBlock(t, randomSeries(rand.New(rand.NewPCG(3, 3)), n, 0, 60_000)), ring(team, "r1"))
	whole := opened(t, bkt)
	set := whole.Select(t.Context(), ask(team, 0, 60_000))
	for set.Next() {
	}
	bytes := set.(*requestSet).q.lease.used.Load()
	if err := set.Close(); err != nil || bytes == 0 {
		t.Fatal(bytes, err)
	}
	f := func(want string, skipChunks bool, edit func(*Options)) {
		t.Helper()
		r := ask(team, 0, 60_000)
		r.SkipChunks = skipChunks
		set := opened(t, bkt, edit).Select(t.Context(), r)
		defer set.Close()
		for set.Next() {
		}
		err := set.Err()
		if kind := errs.KindOf(err); want == "" && err != nil || want != "" && (kind != errs.Limited ||
			kind.GRPCCode() != 8 || !strings.Contains(err.Error(), want)) {
			t.Fatalf("want %q: %v", want, err)
		}
	}
	for more, fails := range map[int64]bool{-1: true, 0: false, 1: false} {
		f(map[bool]string{true: "more than 6 series (the limit of series per request)"}[fails], false,
			func(o *Options) { o.MaxRequestSeries = n + more })
		f(map[bool]string{true: "more than 839 samples"}[fails], false,
			func(o *Options) { o.MaxRequestSamples = n*samplesPerChunk + more })
		f(map[bool]string{true: fmt.Sprintf("more than %d bytes (the limit of bytes per request)", bytes-1)}[fails], false,
			func(o *Options) { o.MaxRequestBytes = bytes + more })
	}
	f("", true, func(o *Options) { o.MaxRequestSamples = 1 })
	f("more than 6 series", true, func(o *Options) { o.MaxRequestSeries = n - 1 })
}

// cancelBucket cancels a context in a read.
type cancelBucket struct {
	objstore.Bucket
	left   atomic.Int64 // reads before it
	cancel atomic.Pointer[context.CancelFunc]
}

func (b *cancelBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if b.left.Add(-1) == 0 {
		(*b.cancel.Load())()
	}
	return b.Bucket.GetRange(ctx, name, off, n)
}

// TestNothingLeaks cancels 10,000 requests at any point: all that they held is given back.
func TestNothingLeaks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	bkt := &cancelBucket{Bucket: inMemory(t)}
	upload(t, bkt, makeBlock(t, randomSeries(rnd, 30, 0, 60_000)), ring(team, "r1"))
	upload(t, bkt, makeBlock(t, randomSeries(rnd, 10, 0, 60_000)), ring(team, "r2"))
	g := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 0 })
	drain(g.Select(t.Context(), ask(team, 0, 60_000)))
	failed := 0
	for i := range 10_000 {
		ctx, cancel := context.WithCancel(t.Context())
		bkt.cancel.Store(&cancel)
		bkt.left.Store(rnd.Int64N(8))
		r := ask(team, 0, 60_000, randomMatchers(rnd)...)
		var err error
		switch i % 4 {
		case 0:
			_, _, err = g.LabelNames(ctx, r)
		case 1:
			_, _, err = g.LabelValues(ctx, "instance", r)
		default:
			set := g.Select(ctx, r)
			for n := rnd.IntN(40); set.Next() && n > 0; n-- {
				if n == 5 {
					cancel()
				}
			}
			err = set.Err()
			set.Close()
		}
		if err != nil {
			failed++
		}
		cancel()
		if used, free := g.budget.readers.Used(), g.opts.Memory.Free(); used != 0 || free != g.opts.Memory.Total() ||
			g.budget.requests.Used() != 0 {
			t.Fatalf("request %d: %d readers, %v", i, used, g.opts.Memory.Holders())
		}
	}
	if failed < 1000 {
		t.Fatalf("only %d requests were cancelled before their end", failed)
	}
}

// TestLimitsOfLists: lists of label values count, also those that are not read from the bucket.
func TestLimitsOfLists(t *testing.T) {
	bkt := inMemory(t)
	var in []sourcetest.Series
	for i := range 2000 {
		in = append(in, sourcetest.Series{Labels: labels.FromStrings("__name__", "up", "i", fmt.Sprintf("%05d", i)),
			Samples: []sourcetest.Sample{{T: 1000, V: 1}}})
	}
	upload(t, bkt, makeBlock(t, in), ring(team, "r1"))
	f := func(most int64, limit int, want errs.Kind, ms ...*labels.Matcher) {
		t.Helper()
		mem := memory.NewBudget(nil, "--max", 16<<20)
		g := opened(t, bkt, func(o *Options) { o.MaxRequestBytes, o.Memory = most, mem })
		r := ask(team, 0, 5000, ms...)
		r.Limit = limit
		values, _, err := g.LabelValues(t.Context(), "i", r)
		if errs.KindOf(err) != want || want == errs.OK && len(values) != cmp.Or(limit, 2000) {
			t.Errorf("at most %d bytes, %v: %d values, %v", most, ms, len(values), err)
		}
	}
	up, some := match(labels.MatchEqual, "__name__", "up"), match(labels.MatchRegexp, "i", "0.*")
	f(1<<20, 0, errs.OK)
	f(1<<20, 0, errs.OK, up)
	f(1<<20, 0, errs.OK, some)
	f(32<<10, 0, errs.Limited)
	f(32<<10, 10, errs.OK)
	f(48<<10, 0, errs.Limited, up)
	f(32<<10, 0, errs.Limited, some)
}

// TestStartsWithoutBucket opens a gateway whose bucket is down: it says so to who asks, and serves once the bucket is
// back.
func TestStartsWithoutBucket(t *testing.T) {
	bkt := &faultBucket{Bucket: inMemory(t)}
	bkt.left.Store(1 << 30)
	twoBlocks(t, bkt)
	bkt.down.Store(true)
	g := opened(t, bkt, func(o *Options) { o.StartTimeout = 0 })
	for what, err := range map[string]error{"ready": g.Ready(), "select": g.Select(t.Context(), ask(team, 0,
		1)).Err(), "sync": g.Sync(t.Context())} {
		if errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if _, err := g.Info(t.Context()); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	bkt.down.Store(false)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))); strings.Count(got, "__name__") != 4 {
		t.Fatal(got)
	}
	bkt.down.Store(true) // an outage later changes nothing about what is served
	if err := g.Sync(t.Context()); errs.KindOf(err) != errs.Unavailable || len(g.Status()) != 2 {
		t.Fatal(err)
	}
}

// TestSync follows a bucket: blocks come, are marked, are compacted, go; a select that is open keeps what it began
// with.
func TestSync(t *testing.T) {
	bkt := inMemory(t)
	var now clock
	dir := t.TempDir()
	g := opened(t, bkt, inBucket("u1"), func(o *Options) { o.Now, o.Dir = now.time, dir })
	served := func(want ...bool) func(ids ...ulid.ULID) {
		t.Helper()
		return func(ids ...ulid.ULID) {
			t.Helper()
			if err := g.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := servedOf(g, ids...); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("served %v, want %v", got, want)
			}
		}
	}
	a, b := twoBlocks(t, bkt)
	open := g.Select(t.Context(), ask(team, 0, 5000)) // of the empty snapshot
	served(true, true)(a, b)
	if info, err := g.Info(t.Context()); err != nil || info.Blocks != (series.Holding{Bucket: "u1", Whole: true}) {
		t.Fatal(info.Blocks, err)
	}
	if open.Next() {
		t.Fatal("an open select changed")
	}
	open.Close()

	if err := block.MarkDeletion(t.Context(), bkt, a, "", now.time()); err != nil {
		t.Fatal(err)
	}
	served(true, true)(a, b)
	now.forward(25 * time.Hour)
	open = g.Select(t.Context(), ask(team, 0, 5000))
	if !open.Next() {
		t.Fatal(open.Err())
	}
	served(false, true)(a, b)
	for open.Next() {
	}
	if open.Err() != nil || len(open.Warnings()) != 0 {
		t.Fatal(open.Err(), open.Warnings())
	}
	open.Close()

	compacted := upload(t, bkt, makeBlock(t, few()), ring(team, "r1"), func(m *block.Meta) {
		m.Compaction.Level, m.Compaction.Sources = 2, []ulid.ULID{a, b}
	})
	served(true, true, true)(a, b, compacted)
	if st := g.Status(); len(st) != 1 || st[0].ID != compacted {
		t.Fatalf("%+v", st)
	}
	for _, id := range []ulid.ULID{a, b, compacted} {
		if err := block.Delete(t.Context(), bkt, id); err != nil {
			t.Fatal(err)
		}
	}
	served(false, false, false)(a, b, compacted)
	left, _ := filepath.Glob(filepath.Join(dir, "0*", "*")) // of blocks
	if entries, _ := os.ReadDir(dir); len(entries) > 1 || len(left) > 0 {
		t.Fatalf("left on disk: %v %v", entries, left)
	}
	if info, err := g.Info(t.Context()); err != nil || info.MinTime <= info.MaxTime || len(info.Tenants) != 0 {
		t.Fatalf("%+v %v", info, err)
	}
}

// TestBrokenCompaction keeps the sources of a compacted block that cannot be opened.
func TestBrokenCompaction(t *testing.T) {
	bkt := inMemory(t)
	a, b := twoBlocks(t, bkt)
	c := upload(t, bkt, makeBlock(t, few()), ring(team, "r1"), func(m *block.Meta) {
		m.Compaction.Level, m.Compaction.Sources = 2, []ulid.ULID{a, b}
	})
	damage(t, bkt, block.Object(c, "index"), func(b []byte) []byte { return b[:50] })
	g := opened(t, bkt)
	got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000)))
	if strings.Count(got, "__name__") != 4 || !strings.Contains(got, c.String()) {
		t.Fatal(got)
	}
}

// TestForeignThings puts into the bucket what is no block of ours, or of a tenant nobody can name.
func TestForeignThings(t *testing.T) {
	bkt := inMemory(t)
	upload(t, bkt, makeBlock(t, few()[:1]), map[string]string{"tenant_id": "not/allowed"})
	for name, content := range map[string]string{
		"01ARZ3NDEKTSV4RRFFQ69G5FAV/meta.json": "{", "01ARZ3NDEKTSV4RRFFQ69G5FAW/index": "x", "debug/metas/x.json": "{}", "file": "",
	} {
		if err := bkt.Upload(t.Context(), name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	g := opened(t, bkt)
	if info, err := g.Info(t.Context()); err != nil || len(info.Tenants) != 0 || len(g.Status()) != 0 {
		t.Fatalf("%+v %v", info, err)
	}
}

func TestOptions(t *testing.T) {
	if err := DefaultOptions().Validate(); err != nil {
		t.Fatal(err)
	}
	_, err := New(discard, nil, inMemory(t), Options{})
	for _, want := range []string{"directory", "tenant label", "sync interval", "bytes per request"} {
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Fatalf("%s is not in %v", want, err)
		}
	}
}

// TestCachesAgree asks the same of gateways without a cache, with one that is cold, warm, or so small that it drops
// what was just read: all answers are the same, and a warm one that is large enough reads nothing of the bucket.
func TestCachesAgree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	bkt := &faultBucket{Bucket: inMemory(t)}
	bkt.left.Store(1 << 40)
	dir := makeBlock(t, randomSeries(rnd, 400, 0, 3600_000))
	upload(t, bkt, dir, ring(team, "r1"))
	without := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 0 })
	small := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 60 << 10 })
	large := opened(t, bkt)
	for i := range 40 {
		ms := randomMatchers(rnd)
		mint := rnd.Int64N(3600_000)
		maxt := mint + rnd.Int64N(3600_000)
		want := text(without.Select(t.Context(), ask(team, mint, maxt, slices.Clone(ms)...)), mint, maxt)
		for round, g := range []*Gateway{small, small, small, large, large, large} {
			before := bkt.left.Load()
			rnd.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
			got := text(g.Select(t.Context(), ask(team, mint, maxt, slices.Clone(ms)...)), mint, maxt)
			if got != want {
				t.Fatalf("select %d %v, round %d: %s", i, ms, round, firstDifference(got, want))
			}
			if reads := before - bkt.left.Load(); round > 3 && reads > 0 {
				t.Fatalf("select %d %v: %d reads though all was read before", i, ms, reads)
			}
		} // What is kept of the entries serves other times.
		mint, maxt = rnd.Int64N(1800_000), 1800_000+rnd.Int64N(1800_000)
		want = text(without.Select(t.Context(), ask(team, mint, maxt, slices.Clone(ms)...)), mint, maxt)
		if got := text(large.Select(t.Context(), ask(team, mint, maxt, slices.Clone(ms)...)), mint, maxt); got != want {
			t.Fatalf("select %d %v at another time: %s", i, ms, firstDifference(got, want))
		}
	}
}
