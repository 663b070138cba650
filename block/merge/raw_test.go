package merge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// rawSeries is a series of a block that no writer would make.
type rawSeries struct {
	labels []string // name, value, ...
	chunks []Chunk
}

// stringTable is a table of symbols in memory.
type stringTable []string

func (s stringTable) Len() int           { return len(s) }
func (s stringTable) At(i uint32) string { return s[i] }

func tableOf(all []rawSeries) (stringTable, map[string]uint32) {
	numbers := map[string]uint32{}
	for _, s := range all {
		for _, l := range s.labels {
			numbers[l] = 0
		}
	}
	table := stringTable(slices.Sorted(maps.Keys(numbers)))
	for i, l := range table {
		numbers[l] = uint32(i)
	}
	return table, numbers
}

// rawBlock writes a block as it is given, in its order.
func rawBlock(tb testing.TB, id byte, mint, maxt int64, all ...rawSeries) Input {
	tb.Helper()
	table, numbers := tableOf(all)
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{Version: 1, MinTime: mint, MaxTime: maxt,
		ULID: ulid.MustNew(uint64(id), bytes.NewReader(make([]byte, 16)))}}
	dir := filepath.Join(tb.TempDir(), m.ULID.String())
	w := NewBlockWriter(dir, WriterOptions{})
	defer w.Close()
	check(tb, w.Begin(table))
	for _, s := range all {
		x := Series{Chunks: s.chunks}
		for _, l := range s.labels {
			x.Symbols = append(x.Symbols, numbers[l])
		}
		w.refs = w.refs[:0]
		for i := range s.chunks {
			check(tb, w.chunk(&s.chunks[i]))
		}
		check(tb, w.index.add(&x, w.refs))
	}
	check(tb, w.End())
	return FromDir(dir, m)
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// chunkOf encodes samples.
func chunkOf(tb testing.TB, enc chunkenc.Encoding, samples ...sample) Chunk {
	tb.Helper()
	c, err := chunkenc.NewEmptyChunk(enc)
	check(tb, err)
	app, err := c.Appender()
	check(tb, err)
	for _, s := range samples {
		var next chunkenc.Chunk
		switch s.Type() {
		case chunkenc.ValFloat:
			app.Append(s.t-500, s.t, s.v)
		case chunkenc.ValHistogram:
			next, _, app, err = app.AppendHistogram(nil, 0, s.t, s.h, true)
		case chunkenc.ValFloatHistogram:
			next, _, app, err = app.AppendFloatHistogram(nil, 0, s.t, s.fh, true)
		}
		check(tb, err)
		if next != nil {
			c = next
		}
	}
	return Chunk{MinTime: samples[0].t, MaxTime: samples[len(samples)-1].t, Encoding: byte(enc), Data: c.Bytes()}
}

func floats(from, to, step int64, v float64) (out []sample) {
	for t := from; t < to; t += step {
		out = append(out, sample{t: t, v: v + float64(t)})
	}
	return out
}

// TestWhatWritersDoNotWrite merges blocks with faults that are put right.
func TestWhatWritersDoNotWrite(t *testing.T) {
	up := []string{"__name__", "up"}
	x := func(samples ...sample) Chunk { return chunkOf(t, chunkenc.EncXOR, samples...) }
	f := func(name string, want []sample, opts Options, in ...Input) {
		t.Run(name, func(t *testing.T) {
			path, res, _ := mergeTo(t, in, opts, WriterOptions{})
			got, metas := readBlock(t, path)
			compare(t, got, content{`{__name__="up"}`: want})
			for _, m := range metas[`{__name__="up"}`] {
				if m.Chunk.Encoding() > chunkenc.EncFloatHistogram {
					t.Errorf("encoding %s", m.Chunk.Encoding())
				}
			}
			if opts.MaxTime > 0 && res.Clipped == 0 {
				t.Errorf("result %+v", res)
			}
		})
	}
	f("chunks out of order", floats(0, 300, 1, 0), Options{}, rawBlock(t, 1, 0, 1000,
		rawSeries{up, []Chunk{x(floats(200, 300, 1, 0)...), x(floats(0, 100, 1, 0)...), x(floats(100, 200, 1, 0)...)}}))
	f("chunks overlap in one input", unionOf(content{"": floats(0, 100, 1, 0)}, content{"": floats(50, 150, 1, 7)})[""],
		Options{}, rawBlock(t, 1, 0, 1000,
			rawSeries{up, []Chunk{x(floats(0, 100, 1, 0)...), x(floats(50, 150, 1, 7)...)}}))
	f("the same chunk twice in one input", floats(0, 100, 1, 0), Options{}, rawBlock(t, 1, 0, 1000,
		rawSeries{up, []Chunk{x(floats(0, 100, 1, 0)...), x(floats(0, 100, 1, 0)...)}}))
	f("outside of its block, inside of the union", floats(0, 200, 1, 0), Options{},
		rawBlock(t, 1, 0, 100, rawSeries{up, []Chunk{x(floats(0, 150, 1, 0)...)}}),
		rawBlock(t, 2, 100, 200, rawSeries{up, []Chunk{x(floats(150, 200, 1, 0)...)}}))
	f("a chunk outside of the range", floats(0, 100, 1, 0), Options{MaxTime: 100}, rawBlock(t, 1, 0, 100,
		rawSeries{up, []Chunk{x(floats(0, 100, 1, 0)...), x(floats(100, 120, 1, 0)...)}}))
	f("a chunk across the ends", floats(20, 80, 1, 0), Options{MinTime: 20, MaxTime: 80}, rawBlock(t, 1, 0, 100,
		rawSeries{up, []Chunk{x(floats(0, 100, 1, 0)...)}}))
	f("start timestamps", floats(0, 300, 1, 0), Options{}, rawBlock(t, 1, 0, 1000, rawSeries{up, []Chunk{
		chunkOf(t, chunkenc.EncXOR2, floats(0, 150, 1, 0)...), x(floats(150, 300, 1, 0)...)}}))
	f("a series without chunks", floats(0, 10, 1, 0), Options{}, rawBlock(t, 1, 0, 1000,
		rawSeries{up, []Chunk{x(floats(0, 10, 1, 0)...)}}, rawSeries{[]string{"__name__", "up2"}, nil}))
	hist := func(from int64) (out []sample) {
		for i := from; i < from+10; i++ {
			out = append(out, sample{t: i, h: tsdbutil.GenerateTestHistogram(i)})
		}
		return out
	}
	f("start timestamps of histograms", hist(0), Options{}, rawBlock(t, 1, 0, 1000, rawSeries{up, []Chunk{
		chunkOf(t, chunkenc.EncHistogramST, hist(0)...)}}))
}

// TestCounterResetHeaders: a reader believes the header of a chunk, so it must be about the chunk before it.
func TestCounterResetHeaders(t *testing.T) {
	name := []string{"__name__", "h"}
	chunk := func(header chunkenc.CounterResetHeader, from int64) Chunk {
		var samples []sample
		for i := from; i < from+5; i++ {
			h := tsdbutil.GenerateTestHistogram(i)
			if header == chunkenc.GaugeType {
				h.CounterResetHint = histogram.GaugeType
			}
			samples = append(samples, sample{t: i, h: h})
		}
		c := chunkOf(t, chunkenc.EncHistogram, samples...)
		c.Data[series.ResetFlags] = c.Data[series.ResetFlags]&^chunkenc.CounterResetHeaderMask | byte(header)
		return c
	}
	const unknown, not, reset, gauge = chunkenc.UnknownCounterReset, chunkenc.NotCounterReset, chunkenc.CounterReset,
		chunkenc.GaugeType
	f := func(what string, want []chunkenc.CounterResetHeader, in ...Input) {
		t.Run(what, func(t *testing.T) {
			path, _, _ := mergeTo(t, in, Options{}, WriterOptions{})
			_, metas := readBlock(t, path)
			var got []chunkenc.CounterResetHeader
			for _, m := range metas[`{__name__="h"}`] {
				got = append(got, m.Chunk.(*chunkenc.HistogramChunk).GetCounterResetHeader())
			}
			if !slices.Equal(got, want) {
				t.Errorf("headers %x, want %x", got, want)
			}
		})
	}
	headers := func(h ...chunkenc.CounterResetHeader) []chunkenc.CounterResetHeader { return h }
	a := rawBlock(t, 1, 0, 100, rawSeries{name, []Chunk{chunk(not, 0), chunk(not, 20), chunk(reset, 40)}})
	b := rawBlock(t, 2, 0, 100, rawSeries{name, []Chunk{chunk(not, 0), chunk(not, 20), chunk(reset, 40)}})
	between := rawBlock(t, 3, 0, 100, rawSeries{name, []Chunk{chunk(reset, 10)}})
	after := rawBlock(t, 4, 100, 200, rawSeries{name, []Chunk{chunk(reset, 100), chunk(not, 120)}})
	afterNot := rawBlock(t, 5, 100, 200, rawSeries{name, []Chunk{chunk(not, 100), chunk(reset, 120)}})
	gauges := rawBlock(t, 6, 0, 100, rawSeries{name, []Chunk{chunk(gauge, 10), chunk(gauge, 30)}})
	over := rawBlock(t, 7, 0, 100, rawSeries{name, []Chunk{chunk(not, 2)}})
	f("one block", headers(not, not, reset), a)
	f("replicas", headers(not, not, reset), a, b)
	f("a chunk between", headers(not, unknown, unknown, reset), a, between)
	f("the next block begins with a reset", headers(not, not, reset, reset, not), a, after)
	f("the next block", headers(not, not, reset, unknown, reset), a, afterNot)
	f("gauges", headers(not, gauge, unknown, gauge, unknown), a, gauges)
	f("after what was encoded anew", headers(unknown, unknown, reset), a, over)
}

// TestAggregates: downsampled chunks are copied, and never united.
func TestAggregates(t *testing.T) {
	aggr := func(from int64, v float64) Chunk {
		var a series.AggrChunks
		for i := range a {
			c := chunkOf(t, chunkenc.EncXOR, floats(from, from+600, 300, v+float64(i))...)
			a[i] = series.Encoded{Encoding: chunkenc.EncXOR, Data: c.Data}
		}
		return Chunk{from, from + 300, byte(series.EncAggregates), series.AppendAggregates(nil, &a)}
	}
	name := []string{"__name__", "x"}
	one := rawBlock(t, 1, 0, 1000, rawSeries{name, []Chunk{aggr(0, 1)}})
	same := rawBlock(t, 2, 0, 1000, rawSeries{name, []Chunk{aggr(0, 1)}})
	next := rawBlock(t, 3, 1000, 2000, rawSeries{name, []Chunk{aggr(1000, 1)}})
	other := rawBlock(t, 4, 0, 1000, rawSeries{name, []Chunk{aggr(0, 2)}})
	path, res, w := mergeTo(t, []Input{next, one, same}, Options{}, WriterOptions{})
	if res.Chunks != 2 || res.Equal != 1 || res.Decoded != 0 || w.Stats.NumSamples != 4 {
		t.Errorf("result %+v, written %+v", res, w)
	}
	b, err := os.ReadFile(filepath.Join(path, "chunks", "000001"))
	check(t, err)
	if !bytes.Contains(b, aggr(0, 1).Data) || !bytes.Contains(b, aggr(1000, 1).Data) {
		t.Error("the chunks differ")
	}
	_, err = Run(context.Background(), []Input{one, other}, NewBlockWriter(filepath.Join(t.TempDir(), "x"), WriterOptions{}),
		Options{Scratch: t.TempDir()})
	if !errors.Is(err, ErrRebuild) || errs.KindOf(err) != errs.Unsupported {
		t.Errorf("error %v of kind %s", err, errs.KindOf(err))
	}
}

// faulty is a block of two series that copyBlock can damage.
func faulty(t *testing.T) Input {
	return rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "b"}, []Chunk{chunkOf(t, chunkenc.EncXOR, floats(0, 50, 1, 0)...)}},
		rawSeries{[]string{"a", "c"}, []Chunk{chunkOf(t, chunkenc.EncXOR, floats(0, 50, 1, 0)...)}})
}

// TestDamagedInputs: the error is Invalid and names the block.
func TestDamagedInputs(t *testing.T) {
	good := rawBlock(t, 1, 0, 1000, rawSeries{[]string{"a", "b"}, []Chunk{chunkOf(t, chunkenc.EncXOR, floats(0, 50, 1, 0)...)}})
	f := func(what string, kind errs.Kind, in Input) {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			w := NewBlockWriter(filepath.Join(dir, "x"), WriterOptions{})
			_, err := Run(context.Background(), []Input{good, in}, w, Options{Scratch: dir})
			if id, ok := BlockOf(err); errs.KindOf(err) != kind || !ok || id != in.Meta.ULID {
				t.Errorf("error %v of kind %s, block %s", err, errs.KindOf(err), id)
			}
			check(t, w.Close())
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v (%v)", left, err)
			}
		})
	}
	c := []Chunk{chunkOf(t, chunkenc.EncXOR, floats(0, 50, 1, 0)...)}
	f("a series twice", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "b"}, c}, rawSeries{[]string{"a", "b"}, c}))
	f("series out of order", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "c"}, c}, rawSeries{[]string{"a", "b"}, c}))
	f("labels out of order", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"b", "x", "a", "x"}, c}))
	f("a label twice", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "x", "a", "y"}, c}))
	f("no labels", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{nil, c}))
	f("an encoding that nobody knows", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "b"}, []Chunk{{0, 9, 77, c[0].Data}}}))
	f("a chunk without header", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "b"}, []Chunk{{0, 9, 1, []byte{1}}}}))
	f("samples that cannot be decoded", errs.Invalid, rawBlock(t, 9, 0, 1000,
		rawSeries{[]string{"a", "b"}, []Chunk{{0, 9, 1, []byte{0, 200, 1, 2, 3}}}}))
	back := chunkOf(t, chunkenc.EncXOR2, sample{t: 5}, sample{t: 9}, sample{t: 7})
	back.MinTime, back.MaxTime = 5, 9
	f("samples go back", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "x"}, []Chunk{back}}))
	f("aggregates cut off", errs.Invalid, rawBlock(t, 9, 0, 1000, rawSeries{[]string{"a", "b"}, []Chunk{{0, 9, 0xff, []byte{9}}}}))
	f("no index", errs.NotFound, remove(t, faulty(t), "index"))
	f("no segment", errs.NotFound, remove(t, faulty(t), "chunks/000001"))
	short := func(b []byte) []byte { return b[:len(b)-30] }
	f("a segment that is cut off", errs.Invalid, edit(t, faulty(t), "chunks/000001", short))
	f("an empty segment", errs.Invalid, edit(t, faulty(t), "chunks/000001", func([]byte) []byte { return nil }))
	f("an index that is cut off", errs.Invalid, edit(t, faulty(t), "index", short))
}

func remove(t *testing.T, in Input, rel string) Input {
	check(t, os.Remove(in.files.(dirFiles).path(rel)))
	return in
}

func edit(t *testing.T, in Input, rel string, f func([]byte) []byte) Input {
	path := in.files.(dirFiles).path(rel)
	b, err := os.ReadFile(path)
	check(t, err)
	check(t, os.WriteFile(path, f(b), 0o666))
	return in
}

// TestEveryBit: a wrong bit in what a merge reads is found. Elsewhere it changes nothing: padding, and postings, which
// are made anew.
func TestEveryBit(t *testing.T) {
	in, dir := faulty(t), t.TempDir()
	run := func() (string, error) {
		var got recorder
		_, err := Run(context.Background(), []Input{in}, &got, Options{Scratch: dir, Memory: minMemory})
		return got.text.String(), err
	}
	want, err := run()
	check(t, err)
	for _, rel := range []string{"index", "chunks/000001"} {
		size, err := in.files.size(context.Background(), rel)
		check(t, err)
		for i := range size {
			flip := func(b []byte) []byte { b[i] ^= 1 << (i % 8); return b }
			edit(t, in, rel, flip)
			got, err := run()
			if k := errs.KindOf(err); err == nil && got != want || err != nil && k != errs.Invalid && k != errs.Unsupported {
				t.Fatalf("%s: byte %d of %d is wrong: %v of kind %s, result %q", rel, i, size, err, k, got)
			}
			edit(t, in, rel, flip)
		}
	}
}

// recorder is a Sink that keeps what comes as text.
type recorder struct {
	symbols Symbols
	text    strings.Builder
}

func (r *recorder) Begin(symbols Symbols) error { r.symbols = symbols; return nil }
func (r *recorder) End() error                  { return nil }
func (r *recorder) Add(s *Series) error {
	for _, n := range s.Symbols {
		r.text.WriteString(strconv.Quote(r.symbols.At(n)))
	}
	fmt.Fprint(&r.text, s.Chunks)
	return nil
}

func merged(t *testing.T, in ...Input) []byte {
	path, _, _ := mergeTo(t, in, Options{}, WriterOptions{})
	return blockBytes(t, path)
}

// blockBytes are index and chunks of a block.
func blockBytes(t *testing.T, dir string) (all []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "chunks", "*"))
	check(t, err)
	for _, name := range append(names, filepath.Join(dir, "index")) {
		b, err := os.ReadFile(name)
		check(t, err)
		all = append(all, name[len(dir):]...)
		all = append(all, b...)
	}
	return all
}

// TestSameBytes: neither order, memory nor where the inputs lie change the result.
func TestSameBytes(t *testing.T) {
	r := random(5)
	many := content{}
	for i := range 3000 {
		many[seriesLabels(i).String()] = []sample{{t: int64(i), v: r.Float64()}}
	}
	in := inputsOf(t, many, randomContent(r, 24, 0, hour, 30_000), randomContent(r, 16, 0, hour, 30_000))
	want := merged(t, in...)
	f := func(what string, in []Input, memory int64) {
		path, _, _ := mergeTo(t, in, Options{Memory: memory}, WriterOptions{Memory: memory})
		if !bytes.Equal(blockBytes(t, path), want) {
			t.Errorf("%s: the result differs", what)
		}
	}
	f("order", []Input{in[2], in[0], in[1]}, 0)
	f("memory", in, minMemory)
	bkt := objstore.NewInMemBucket()
	var remote []Input
	for _, i := range in {
		check(t, objstore.UploadDir(context.Background(), nopLogger{}, bkt, string(i.files.(dirFiles)), i.Meta.ULID.String()))
		remote = append(remote, FromBucket(bkt, i.Meta))
	}
	f("a bucket", remote, 0)
	f("a bucket that cuts connections", flaky(remote), 0)
}

type nopLogger struct{}

func (nopLogger) Log(...any) error { return nil }

// TestSplit: each series is in the part that its hash names, and all parts together are the whole.
func TestSplit(t *testing.T) {
	in := inputsOf(t, randomContent(random(3), 50, 0, hour, 60_000))
	whole, _ := readBlock(t, string(in[0].files.(dirFiles)))
	dir := t.TempDir()
	var parts []Sink
	var paths []string
	for i := range byte(3) {
		paths = append(paths, filepath.Join(dir, ulid.MustNew(uint64(i), bytes.NewReader(make([]byte, 16))).String()))
		parts = append(parts, NewBlockWriter(paths[i], WriterOptions{}))
	}
	all := NewBlockWriter(filepath.Join(dir, "all"), WriterOptions{})
	_, err := Run(context.Background(), in, Tee(all, Split(parts...)), Options{Scratch: dir})
	check(t, err)
	sum := content{}
	for i, path := range paths {
		finish(t, path, parts[i].(*BlockWriter).Written())
		c, _ := readBlock(t, path)
		checkIndex(t, path)
		for l := range c {
			if got := labels.StableHash(parseLabels(t, l)) % 3; got != uint64(i) {
				t.Errorf("%s is in part %d, want %d", l, i, got)
			}
		}
		maps.Copy(sum, c)
	}
	compare(t, sum, whole)
	if n := all.Written().Stats.NumSeries; n != uint64(len(whole)) {
		t.Errorf("%d series in the whole, want %d", n, len(whole))
	}
}

// TestHash: the hash of a series decides where it is stored, so it must never change.
func TestHash(t *testing.T) {
	f := func(want uint64, texts ...string) {
		t.Helper()
		numbers := make([]uint32, len(texts))
		for i := range texts {
			numbers[i] = uint32(i)
		}
		if got := Hash(stringTable(texts), numbers); got != want || got != labels.StableHash(labels.FromStrings(texts...)) {
			t.Errorf("%q: %d, want %d", texts, got, want)
		}
	}
	f(17241709254077376921)
	f(2581902663846753688, "__name__", "up")
	f(7914087262173898064, "__name__", "up", "instance", "host:9100", "job", "node")
}

// TestSegments: the bounds of segment files, and what is done with finished ones.
func TestSegments(t *testing.T) {
	in := inputsOf(t, randomContent(random(4), 16, 0, hour, 10_000))
	want, _ := readBlock(t, string(in[0].files.(dirFiles)))
	var sizes []int64
	path, _, w := mergeTo(t, in, Options{}, WriterOptions{SegmentSize: 5000, Segment: func(_ string, size int64) error {
		sizes = append(sizes, size)
		return nil
	}})
	got, _ := readBlock(t, path)
	compare(t, got, want)
	if len(sizes) < 3 || len(w.Files) != len(sizes)+1 || slices.Max(sizes) > 5000 {
		t.Errorf("segments of %d bytes, files %v", sizes, w.Files)
	}
	for _, f := range w.Files {
		if info, err := os.Stat(filepath.Join(path, f.RelPath)); err != nil || info.Size() != f.SizeBytes {
			t.Errorf("%+v: %v %v", f, info.Size(), err)
		}
	}
	m, err := block.Measure(context.Background(), path)
	check(t, err)
	if w.IndexStats.SeriesMaxSize < m.SeriesMaxSize || w.IndexStats.ChunkMaxSize < m.ChunkMaxSize ||
		w.IndexStats.SeriesMaxSize > 2*m.SeriesMaxSize || w.IndexStats.ChunkMaxSize > 2*m.ChunkMaxSize {
		t.Errorf("index stats %+v, measured %+v", w.IndexStats, m.IndexStats)
	}
}

// TestNothing: without series the block has an index that can be read.
func TestNothing(t *testing.T) {
	in := rawBlock(t, 1, 0, 1000, rawSeries{[]string{"a", "b"}, nil})
	path, res, w := mergeTo(t, []Input{in}, Options{}, WriterOptions{})
	if res != (Result{}) || w.Stats != (tsdb.BlockStats{}) || w.MinTime <= w.MaxTime {
		t.Errorf("result %+v, written %+v", res, w)
	}
	c, _ := readBlock(t, path)
	compare(t, c, content{})
}
