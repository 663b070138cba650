package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/store/cache"
)

// sickBucket fails some of its reads, and cuts some bodies short as if that were all.
type sickBucket struct {
	objstore.Bucket
	fails, cuts float64 // shares of all reads
	bad         string  // an object that is never delivered

	mu  sync.Mutex // guards rnd
	rnd *rand.Rand
}

// luck decides about one read.
func (b *sickBucket) luck(name string) (fails, cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.rnd.Float64()
	return name == b.bad || p < b.fails, p >= b.fails && p < b.fails+b.cuts
}

func (b *sickBucket) read(name string, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	fails, cut := b.luck(name)
	if fails {
		return nil, errFault
	}
	r, err := open()
	if err != nil || !cut {
		return r, err
	}
	defer r.Close()
	whole, err := io.ReadAll(r)
	return io.NopCloser(bytes.NewReader(whole[:len(whole)/2])), err
}

func (b *sickBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.read(name, func() (io.ReadCloser, error) { return b.Bucket.Get(ctx, name) })
}

func (b *sickBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	return b.read(name, func() (io.ReadCloser, error) { return b.Bucket.GetRange(ctx, name, off, n) })
}

func (b *sickBucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if fails, _ := b.luck(name); fails {
		return objstore.ObjectAttributes{}, errFault
	}
	return b.Bucket.Attributes(ctx, name)
}

// stepBucket answers one read after another with its steps.
type stepBucket struct {
	objstore.BucketReader
	steps []step
	reads int
}

func (b *stepBucket) GetRange(context.Context, string, int64, int64) (io.ReadCloser, error) {
	s := b.steps[b.reads]
	b.reads++
	return io.NopCloser(strings.NewReader(strings.Repeat(string('a'+rune(b.reads-1)), int(s.got)))), s.err
}

func (*stepBucket) IsObjNotFoundErr(err error) bool { return errors.Is(err, errGone) }

var errGone = errors.New("gone")

// TestReadsAgain: which reads of three bytes are made again, and how often. The size is that of the file.
func TestReadsAgain(t *testing.T) {
	whole, short, fault := step{got: 3}, step{got: 2}, step{err: errFault}
	for name, f := range map[string]struct {
		size  int64
		steps []step
		text  string
		kind  errs.Kind
		reads int
	}{
		"whole":                       {9, []step{whole}, "aaa", errs.OK, 1},
		"fails once":                  {9, []step{fault, whole}, "bbb", errs.OK, 2},
		"fails":                       {9, []step{fault, fault, fault}, "", errs.Unavailable, 3},
		"is cut off once":             {9, []step{short, whole}, "bbb", errs.OK, 2},
		"is cut off":                  {9, []step{short, short, short}, "cc", errs.OK, 3},
		"the file ends":               {2, []step{short}, "aa", errs.OK, 1},
		"the file ends, as two say":   {-1, []step{short, short}, "bb", errs.OK, 2},
		"gone":                        {9, []step{{err: errGone}}, "", errs.NotFound, 1},
		"silent: nobody waits longer": {9, []step{{err: silent(1)}}, "", errs.Unavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := &stepBucket{steps: f.steps}
			o := &objects{bkt: b, metrics: newMetrics(nil, 1)}
			into := [][]byte{make([]byte, 1), make([]byte, 2)}
			n, err := o.fetch(t.Context(), file{File: cache.File{Size: f.size}}, 0, into)
			text := string(bytes.Join(into, nil)[:n])
			if errs.KindOf(err) != f.kind || text != f.text || b.reads != f.reads {
				t.Errorf("%q after %d reads, error %v; want %q after %d", text, b.reads, err, f.text, f.reads)
			}
		})
	}
}

// TestSickBucket: of a bucket with 1 % of errors and 1 % of bodies that are cut short nobody gets a wrong answer, and
// nearly all get a whole one.
func TestSickBucket(t *testing.T) {
	bkt := &sickBucket{Bucket: inMemory(t), rnd: rand.New(rand.NewPCG(7, 7))}
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 3 {
		upload(t, bkt, makeBlock(t, randomSeries(rnd, 100, 0, 100_000)), ring(team, "r1"))
	}
	g := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = 0 })
	r := ask(team, 0, 100_000, match(labels.MatchRegexp, "job", "j.*"))
	want := text(g.Select(t.Context(), r), 0, 100_000)
	values, _, err := g.LabelValues(t.Context(), "instance", r)
	if err != nil || len(values) < 10 || strings.Contains(want, "warning") {
		t.Fatal(values, err)
	}
	bkt.fails, bkt.cuts = 0.01, 0.01
	const requests = 200
	short := 0
	for range requests {
		set := g.Select(t.Context(), r)
		got := text(set, 0, 100_000)
		whole := set.Err() == nil && len(set.Warnings()) == 0
		if whole && got != want {
			t.Fatalf("a wrong answer: %s", firstDifference(got, want))
		}
		found, w, err := g.LabelValues(t.Context(), "instance", r)
		if err == nil && len(w) == 0 && strings.Join(found, " ") != strings.Join(values, " ") {
			t.Fatalf("wrong values: %q", found)
		}
		if !whole || err != nil || len(w) > 0 {
			short++
		}
		g.unloadIdle(g.opts.Now().Add(1 << 40)) // headers are opened again, too
	}
	if short > requests/100 {
		t.Errorf("%d of %d requests were not answered as a whole", short, requests)
	}
	t.Logf("%d of %d requests were not answered as a whole", short, requests)
}

// TestOneBadObject: an object that the bucket never delivers costs what is in it, and a warning names it: not the
// answer, nor the gateway.
func TestOneBadObject(t *testing.T) {
	for _, object := range []string{block.IndexName, "chunks/000001"} {
		bkt := &sickBucket{Bucket: inMemory(t), rnd: rand.New(rand.NewPCG(7, 7))}
		a, _ := twoBlocks(t, bkt)
		g := opened(t, bkt)
		bkt.bad = block.Object(a, object)
		for range 2 {
			set := g.Select(t.Context(), ask(team, 0, 5000))
			if got := seriesOf(t, set); !strings.Contains(got, goodPart) || !strings.Contains(got, bkt.bad) {
				t.Errorf("%s: %s", object, got)
			}
		}
		if err := g.Ready(); err != nil {
			t.Error(err)
		}
	}
}

// TestDeadBucket: where the bucket delivers nothing at all, the answer is an error and not a short one.
func TestDeadBucket(t *testing.T) {
	bkt := &sickBucket{Bucket: inMemory(t), rnd: rand.New(rand.NewPCG(7, 7))}
	twoBlocks(t, bkt)
	g := opened(t, bkt)
	bkt.fails = 1
	set := g.Select(t.Context(), ask(team, 0, 5000))
	for set.Next() {
	}
	if errs.KindOf(set.Err()) != errs.Unavailable {
		t.Error(set.Err(), set.Warnings())
	}
	set.Close()
	if len(g.failures) > 0 {
		t.Errorf("blocks are taken for broken: %v", g.failures)
	}
	bkt.fails = 0
	if got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))); strings.Count(got, "{__name__") != 4 {
		t.Error(got)
	}
}
