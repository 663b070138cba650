package rewrite

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
)

// The tests compare with a plain map of samples, and read blocks by a plain Prometheus TSDB, which also writes them.

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

// rank orders the samples that series have at one time: the larger one stays. Histograms of one kind have the total
// that they are made of as count.
func (s sample) rank() (stale bool, kind int, v float64) {
	switch {
	case s.h != nil:
		return value.IsStaleNaN(s.h.Sum), 1, float64(s.h.Count)
	case s.fh != nil:
		return value.IsStaleNaN(s.fh.Sum), 2, s.fh.Count
	}
	return value.IsStaleNaN(s.v), 0, s.v
}

// content are the samples of series, by the text of their labels.
type content map[string]map[int64]sample

// made is a random block, and what it holds.
type made struct {
	series map[string]labels.Labels
	content
	meta *block.Meta
	bkt  objstore.Bucket
	dir  string
}

// kinds of series that random blocks have.
const numKinds = 7

func randomSample(kind int, t, total int64) sample {
	s := sample{t: t}
	switch kind {
	case 1:
		s.h = tsdbutil.GenerateTestHistogram(total)
	case 2:
		s.fh = tsdbutil.GenerateTestFloatHistogram(total)
	case 3:
		s.h = tsdbutil.GenerateTestGaugeHistogram(total)
	case 4:
		s.h = tsdbutil.GenerateTestCustomBucketsHistogram(total)
	case 5:
		s.fh = tsdbutil.GenerateTestCustomBucketsFloatHistogram(total)
	case 6:
		if t/50%2 == 0 {
			s.fh = tsdbutil.GenerateTestFloatHistogram(total)
		} else {
			s.v = float64(total)
		}
	default:
		s.v = float64(total)
	}
	return s
}

// maxt is the end of random blocks in ms.
const maxt = int64(4000)

// randomBlock makes a block of n series of the given kinds, all if none are given, by Prometheus's own writer, in a
// bucket that is a directory.
func randomBlock(t *testing.T, r *rand.Rand, n int, kinds ...int) *made {
	t.Helper()
	m := &made{series: map[string]labels.Labels{}, content: content{}, dir: t.TempDir()}
	var all []storage.Series
	for i := range n {
		kind := i % numKinds
		if len(kinds) > 0 {
			kind = kinds[i%len(kinds)]
		}
		b := labels.NewBuilder(labels.FromStrings("__name__", fmt.Sprint("m", i%5), "i", fmt.Sprint(i%11)))
		b.Set("kind", fmt.Sprint(kind)).Set("id", fmt.Sprint(i))
		if i%3 == 0 {
			b.Set("job", fmt.Sprint("job-", i%4))
		}
		ls := b.Labels()
		samples, total := []chunks.Sample{}, int64(1)
		by := map[int64]sample{}
		for ts := r.Int64N(30); ts < maxt; ts += 1 + r.Int64N(40) {
			if total += r.Int64N(9); r.IntN(60) == 0 {
				total = 1
			}
			s := randomSample(kind, ts, total)
			samples, by[ts] = append(samples, s), s
		}
		m.series[ls.String()], m.content[ls.String()] = ls, by
		all = append(all, storage.NewListSeries(ls, samples))
	}
	path, err := tsdb.CreateBlock(all, m.dir, 1<<40, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m.open(t, path)
	return m
}

// open makes a block in a bucket of the one in path.
func (m *made) open(t *testing.T, path string) {
	t.Helper()
	m.bkt = bucketAt(t, m.dir)
	id, _ := block.ParseID(filepath.Base(path))
	meta, err := block.FetchMeta(t.Context(), m.bkt, id)
	if err != nil {
		t.Fatal(err)
	}
	m.meta = meta
}

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// randomMatcher is of any type, about labels of which series lack some.
func randomMatcher(r *rand.Rand) *labels.Matcher {
	name := pick(r, "__name__", "i", "kind", "job", "nowhere")
	text := pick(r, "", "m1", "3", "job-0", "5")
	typ := labels.MatchType(r.IntN(4))
	if typ == labels.MatchRegexp || typ == labels.MatchNotRegexp {
		text = pick(r, "", ".+", "m[12]|", "job-.*", "[0-5]", "1.*")
	}
	return labels.MustNewMatcher(typ, name, text)
}

func randomDeletions(r *rand.Rand) (out []Deletion) {
	for range r.IntN(4) {
		var d Deletion
		for range 1 + r.IntN(3) {
			d.Matchers = append(d.Matchers, randomMatcher(r))
		}
		for range r.IntN(4) {
			from := r.Int64N(maxt+200) - 100
			d.Intervals = append(d.Intervals, Interval{from, from + r.Int64N(pick(r, int64(3), 300, 3000))})
		}
		out = append(out, d)
	}
	return out
}

var ruleTexts = []string{
	`[{action: labeldrop, regex: id}]`,
	`[{action: labeldrop, regex: job}]`,
	`[{source_labels: [kind, i], regex: "(.);(.)", target_label: kind, replacement: "${2}x"}]`,
	`[{source_labels: [__name__], regex: m1, action: drop}, {source_labels: [job], target_label: aa}]`,
	`[{source_labels: [job], regex: "", action: keep}, {action: labeldrop, regex: i}]`,
	`[{action: labelmap, regex: (job), replacement: "zz_$1"}, {action: labeldrop, regex: "id|__name__"}]`,
	`[{action: labeldrop, regex: "__name__|i|job"}, {target_label: id, replacement: one}, {action: labeldrop, regex: kind}]`,
	`[{action: labeldrop, regex: ".*"}]`,
}

// apply is what a rewrite must leave, by the rules as they are documented.
func (m *made) apply(cfg *Config) (out content, relabelled map[string]labels.Labels) {
	out, relabelled = content{}, map[string]labels.Labels{}
	for text, by := range m.content {
		b := labels.NewBuilder(m.series[text])
		keep := relabel.ProcessBuilder(b, cfg.Relabels...)
		ls := b.Labels()
		if !keep || ls.IsEmpty() {
			continue
		}
		relabelled[ls.String()] = ls
		for ts, s := range by {
			have, ok := out[ls.String()][ts]
			if out[ls.String()] == nil {
				out[ls.String()] = map[int64]sample{}
			}
			if !ok || less(have, s) {
				out[ls.String()][ts] = s
			}
		}
	}
	for text, by := range out {
		for ts := range by {
			for _, d := range cfg.Deletions {
				if d.deletes(relabelled[text], ts) {
					delete(by, ts)
				}
			}
		}
		if len(by) == 0 {
			delete(out, text)
		}
	}
	return out, relabelled
}

func less(a, b sample) bool {
	aStale, aKind, av := a.rank()
	bStale, bKind, bv := b.rank()
	switch {
	case aStale != bStale:
		return aStale
	case aKind != bKind:
		return aKind < bKind
	}
	return av < bv
}

// deletes is the rule, without any cleverness.
func (d Deletion) deletes(ls labels.Labels, ts int64) bool {
	for _, m := range d.Matchers {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	for _, in := range d.Intervals {
		if in.Mint <= ts && ts <= in.Maxt {
			return true
		}
	}
	return len(d.Intervals) == 0
}

// read reads the block id below dir by Prometheus's own reader.
func read(t *testing.T, dir string, id ulid.ULID) (content, map[string][]chunks.Meta) {
	t.Helper()
	b, err := tsdb.OpenBlock(nil, filepath.Join(dir, id.String()), nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockChunkQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	out, metas := content{}, map[string][]chunks.Meta{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "", ".*"))
	for set.Next() {
		text := set.At().Labels().String()
		out[text] = map[int64]sample{}
		for it := set.At().Iterator(nil); it.Next(); {
			c := it.At()
			copied, err := chunkenc.FromData(c.Chunk.Encoding(), slices.Clone(c.Chunk.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			metas[text] = append(metas[text], chunks.Meta{Chunk: copied, MinTime: c.MinTime, MaxTime: c.MaxTime})
			decode(t, c.Chunk, out[text])
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return out, metas
}

func decode(t *testing.T, c chunkenc.Chunk, into map[int64]sample) {
	t.Helper()
	it := c.Iterator(nil)
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
		into[s.t] = s
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
}

// compare fails if got is not want.
func compare(t *testing.T, got, want content) {
	t.Helper()
	g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))
	if !slices.Equal(g, w) {
		t.Fatalf("%d series, want %d:\n%.600v\n%.600v", len(g), len(w), g, w)
	}
	for l := range want {
		times := slices.Sorted(maps.Keys(want[l]))
		if have := slices.Sorted(maps.Keys(got[l])); !slices.Equal(have, times) {
			t.Fatalf("%s: %d samples, want %d", l, len(have), len(times))
		}
		for _, ts := range times {
			if a, b := got[l][ts].text(), want[l][ts].text(); a != b {
				t.Fatalf("%s: %s, want %s", l, a, b)
			}
		}
	}
}
