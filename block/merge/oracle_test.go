package merge

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/block"
)

// The tests compare with a plain Prometheus TSDB: it writes the inputs, and reads inputs and output.

// sample is one sample of a test.
type sample struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

func (s sample) ST() int64                     { return 0 }
func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return s.h }
func (s sample) FH() *histogram.FloatHistogram { return s.fh }
func (s sample) Copy() chunks.Sample           { return s }
func (s sample) Type() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// text is the sample as the tests compare it: bits of floats, histograms without hints and in one layout.
func (s sample) text() string {
	switch {
	case s.h != nil:
		h := s.h.Copy()
		h.CounterResetHint = 0
		return fmt.Sprintf("%d h %s %x", s.t, h.Compact(0), math.Float64bits(h.Sum))
	case s.fh != nil:
		h := s.fh.Copy()
		h.CounterResetHint = 0
		return fmt.Sprintf("%d fh %s %x", s.t, h.Compact(0), math.Float64bits(h.Sum))
	}
	return fmt.Sprintf("%d %x", s.t, math.Float64bits(s.v))
}

func (s sample) stale() bool {
	switch {
	case s.h != nil:
		return value.IsStaleNaN(s.h.Sum)
	case s.fh != nil:
		return value.IsStaleNaN(s.fh.Sum)
	}
	return value.IsStaleNaN(s.v)
}

// content is what a block holds: samples by the text of their labels.
type content map[string][]sample

// kinds of series that random blocks have.
const numKinds = 8

// randomSeries are the samples of one series, of a kind, at a range of times.
func randomSeries(r *rand.Rand, kind int, mint, maxt, step int64) []sample {
	var out []sample
	total := int64(r.IntN(1000))
	for t := mint + r.Int64N(step); t < maxt; t += step {
		total += int64(r.IntN(5))
		if r.IntN(100) == 0 {
			total = int64(r.IntN(3)) // a reset
		}
		s := sample{t: t}
		switch kind {
		case 0:
			s.v = float64(total)
		case 1:
			s.v = r.NormFloat64()
		case 2:
			s.h = tsdbutil.GenerateTestHistogram(total)
		case 3:
			s.fh = tsdbutil.GenerateTestFloatHistogram(total)
		case 4:
			s.h = tsdbutil.GenerateTestGaugeHistogram(total)
		case 5:
			s.fh = tsdbutil.GenerateTestGaugeFloatHistogram(total)
		case 6:
			s.h = tsdbutil.GenerateTestCustomBucketsHistogram(total)
		case 7:
			if t/step/50%2 == 0 {
				s.v = float64(total)
			} else {
				s.fh = tsdbutil.GenerateTestFloatHistogram(total)
			}
		}
		if r.IntN(50) == 0 {
			s = sample{t: t, v: math.Float64frombits(value.StaleNaN)}
			if kind == 2 || kind == 4 || kind == 6 {
				s = sample{t: t, h: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}}
			} else if kind == 3 || kind == 5 {
				s = sample{t: t, fh: &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}}
			}
		}
		out = append(out, s)
	}
	return out
}

func seriesLabels(i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i%7), "job", fmt.Sprintf("job-%d", i%3),
		"instance", fmt.Sprintf("host-%d:9100", i), fmt.Sprintf("only_%d", i%5), "x")
}

// randomContent are series of all kinds.
func randomContent(r *rand.Rand, n int, mint, maxt, step int64) content {
	c := content{}
	for i := range n {
		c[seriesLabels(i).String()] = randomSeries(r, i%numKinds, mint, maxt, step)
	}
	return c
}

// gaps is c without some of its samples.
func (c content) gaps(r *rand.Rand, oneOf int) content {
	out := content{}
	for l, samples := range c {
		for _, s := range samples {
			if r.IntN(oneOf) != 0 {
				out[l] = append(out[l], s)
			}
		}
	}
	return out
}

// writeBlock makes a block of c below dir by Prometheus's own writer.
func writeBlock(tb testing.TB, dir string, c content) string {
	tb.Helper()
	all := make([]storage.Series, 0, len(c))
	for _, l := range slices.Sorted(maps.Keys(c)) {
		ls := parseLabels(tb, l)
		samples := make([]chunks.Sample, len(c[l]))
		for i, s := range c[l] {
			samples[i] = s
		}
		all = append(all, storage.NewListSeries(ls, samples))
	}
	path, err := tsdb.CreateBlock(all, dir, 1000*3600*1000, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

var labelsOfText = map[string]labels.Labels{}

func parseLabels(tb testing.TB, text string) labels.Labels {
	tb.Helper()
	if len(labelsOfText) == 0 {
		for i := range 5000 {
			l := seriesLabels(i)
			labelsOfText[l.String()] = l
		}
	}
	l, ok := labelsOfText[text]
	if !ok {
		tb.Fatalf("labels %s", text)
	}
	return l
}

// inputOf is the local block in dir.
func inputOf(tb testing.TB, dir string) Input {
	tb.Helper()
	f, err := os.Open(filepath.Join(dir, block.MetaName))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	id, _ := block.ParseID(filepath.Base(dir))
	m, err := block.ReadMeta(f, id)
	if err != nil {
		tb.Fatal(err)
	}
	return FromDir(dir, m)
}

// readBlock reads a block by Prometheus's own reader.
func readBlock(tb testing.TB, dir string) (content, map[string][]chunks.Meta) {
	tb.Helper()
	b, err := tsdb.OpenBlock(nil, dir, nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil {
		tb.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockChunkQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		tb.Fatal(err)
	}
	defer q.Close()
	c, metas := content{}, map[string][]chunks.Meta{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "", ".*"))
	for set.Next() {
		s := set.At()
		l := s.Labels().String()
		if _, twice := c[l]; twice {
			tb.Fatalf("%s comes twice", l)
		}
		for it := s.Iterator(nil); it.Next(); {
			m := it.At()
			metas[l] = append(metas[l], chunks.Meta{Chunk: copyChunk(tb, m.Chunk), MinTime: m.MinTime, MaxTime: m.MaxTime})
			c[l] = append(c[l], decode(tb, m.Chunk)...)
		}
	}
	if err := set.Err(); err != nil {
		tb.Fatal(err)
	}
	return c, metas
}

func copyChunk(tb testing.TB, c chunkenc.Chunk) chunkenc.Chunk {
	out, err := chunkenc.FromData(c.Encoding(), bytes.Clone(c.Bytes()))
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func decode(tb testing.TB, c chunkenc.Chunk) (out []sample) {
	tb.Helper()
	return decodeAll(tb, c.Iterator(nil))
}

func decodeAll(tb testing.TB, it chunkenc.Iterator) (out []sample) {
	tb.Helper()
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		s := sample{t: it.AtT()}
		switch typ {
		case chunkenc.ValFloat:
			_, s.v = it.At()
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			s.h = h.Copy()
		case chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(nil)
			s.fh = h.Copy()
		}
		out = append(out, s)
	}
	if err := it.Err(); err != nil {
		tb.Fatal(err)
	}
	return out
}

// unionOf is what a merge of contents must hold, by the rule of docs/design/014-what-is-stored.md.
func unionOf(all ...content) content {
	by := map[string]map[int64]sample{}
	for _, c := range all {
		for l, samples := range c {
			if by[l] == nil {
				by[l] = map[int64]sample{}
			}
			for _, s := range samples {
				if have, ok := by[l][s.t]; !ok || better(s, have) {
					by[l][s.t] = s
				}
			}
		}
	}
	out := content{}
	for l, m := range by {
		for _, t := range slices.Sorted(maps.Keys(m)) {
			out[l] = append(out[l], m[t])
		}
	}
	return out
}

// better reports whether a is taken rather than b. Tests have no two histograms of one kind that differ in more than
// their counts.
func better(a, b sample) bool {
	if a.stale() != b.stale() {
		return b.stale()
	}
	kind := func(s sample) int {
		switch {
		case s.fh != nil:
			return 2
		case s.h != nil:
			return 1
		}
		return 0
	}
	switch {
	case kind(a) != kind(b):
		return kind(a) > kind(b)
	case a.h != nil:
		return a.h.Count > b.h.Count
	case a.fh != nil:
		return a.fh.Count > b.fh.Count
	}
	return math.Float64bits(a.v) > math.Float64bits(b.v)
}

// compare fails if got is not want.
func compare(tb testing.TB, got, want content) {
	tb.Helper()
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		tb.Fatalf("%d series, want %d", len(g), len(w))
	}
	for l := range want {
		g, w := got[l], want[l]
		for i := range min(len(g), len(w)) {
			if g[i].text() != w[i].text() {
				tb.Fatalf("%s: sample %d of %d is\n%s, want\n%s", l, i, len(w), g[i].text(), w[i].text())
			}
		}
		if len(g) != len(w) {
			tb.Fatalf("%s: %d samples, want %d", l, len(g), len(w))
		}
	}
}

// mergeTo merges inputs into a new block below dir, and gives it a meta.json.
func mergeTo(tb testing.TB, inputs []Input, opts Options, wopts WriterOptions) (string, Result, Written) {
	tb.Helper()
	dir := tb.TempDir()
	if opts.Scratch == "" {
		opts.Scratch = dir
	}
	id := ulid.MustNew(1, bytes.NewReader(make([]byte, 16)))
	path := filepath.Join(dir, id.String())
	w := NewBlockWriter(path, wopts)
	defer w.Close()
	res, err := Run(context.Background(), inputs, w, opts)
	if err != nil {
		tb.Fatal(err)
	}
	finish(tb, path, w.Written())
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		tb.Fatalf("the directory of scratch files has %v (%v), want the block only", left, err)
	}
	return path, res, w.Written()
}

// finish writes the meta.json of a block that was written.
func finish(tb testing.TB, path string, w Written) {
	tb.Helper()
	m := block.Meta{BlockMeta: tsdb.BlockMeta{Version: 1, MinTime: w.MinTime, MaxTime: w.MaxTime + 1, Stats: w.Stats}}
	m.ULID, _ = block.ParseID(filepath.Base(path))
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, block.MetaName), b.Bytes(), 0o666); err != nil {
		tb.Fatal(err)
	}
}
