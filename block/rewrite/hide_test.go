package rewrite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block"
	requests "github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
)

// stored are the series of a block, with their chunks, in order.
func stored(t *testing.T, m *made) []series.Series {
	t.Helper()
	s := &storing{}
	in := []merge.Input{merge.FromBucket(m.bkt, m.meta)}
	if _, err := merge.Run(t.Context(), in, s, merge.Options{Scratch: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return s.all
}

// storing is a merge.Sink that keeps series as sources have them.
type storing struct {
	symbols merge.Symbols
	all     []series.Series
}

func (s *storing) Begin(symbols merge.Symbols) error { s.symbols = symbols; return nil }
func (s *storing) End() error                        { return nil }
func (s *storing) Add(from *merge.Series) (err error) {
	one := series.Series{Labels: labelsOf(s.symbols, from.Symbols)}
	for _, c := range from.Chunks {
		to := series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime}
		data := bytes.Clone(c.Data)
		if c.Encoding == byte(series.EncAggregates) {
			to.Aggr, err = series.DecodeAggregates(data, series.EveryAggregate)
		} else {
			to.Raw = series.Encoded{Encoding: chunkenc.Encoding(c.Encoding), Data: data}
		}
		one.Chunks = append(one.Chunks, to)
	}
	s.all = append(s.all, one)
	return err
}

// TestHide: reads find what a plain map of samples says is left, of samples in their range, and what is not hidden
// stays byte for byte. A series of which nothing is left is not found.
func TestHide(t *testing.T) {
	hidden, cut := 0, 0
	for round := range 30 {
		r := rand.New(rand.NewPCG(9, uint64(round)))
		m := randomBlock(t, r, 5+r.IntN(35))
		cfg := &Config{Deletions: randomDeletions(r)}
		want, _ := m.apply(cfg)
		h := Hidden{Deletions: cfg.Deletions, MinTime: r.Int64N(maxt), MaxTime: maxt}
		if r.IntN(2) == 0 {
			h.MaxTime = h.MinTime + r.Int64N(500)
		}
		inRange := func(c content) content {
			out := content{}
			for name, by := range c {
				by = maps.Clone(by)
				maps.DeleteFunc(by, func(ts int64, _ sample) bool { return ts < h.MinTime || ts > h.MaxTime })
				if len(by) > 0 {
					out[name] = by
				}
			}
			return out
		}
		all := stored(t, m)
		before := map[string]bool{}
		for _, s := range all {
			for _, c := range s.Chunks {
				before[s.Labels.String()+string(c.Raw.Data)] = true
			}
		}
		got := content{}
		set := Hide(series.List(all), h)
		for set.Next() {
			by := map[int64]sample{}
			name := set.At().Labels.String()
			for _, c := range set.At().Chunks {
				if !before[name+string(c.Raw.Data)] {
					cut++
				}
				chunk, err := chunkenc.FromData(c.Raw.Encoding, c.Raw.Data)
				if err != nil {
					t.Fatal(err)
				}
				decode(t, chunk, by)
			}
			got[name] = by
		}
		if set.Err() != nil || set.Warnings() != nil {
			t.Fatal(set.Err(), set.Warnings())
		}
		compare(t, inRange(got), inRange(want))
		hidden += len(all) - len(got)
	}
	if hidden == 0 || cut == 0 {
		t.Errorf("%d series hidden, %d chunks cut: the test tries too little", hidden, cut)
	}
}

// TestHideWindows: of downsampled data the same windows are hidden that a rewrite deletes, whichever aggregates a read
// asks for.
func TestHideWindows(t *testing.T) {
	m, end := downsampledBlock(t)
	all := stored(t, m)
	r := rand.New(rand.NewPCG(6, 7))
	for round := range 12 {
		d := Deletion{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "id", "3")}}
		for range 1 + r.IntN(6) {
			from := r.Int64N(end)
			d.Intervals = append(d.Intervals, Interval{from, from + r.Int64N(pick(r, int64(1), 400_000, 20_000_000))})
		}
		out, _, err := Block(t.Context(), m.bkt, m.meta, &Config{Deletions: []Deletion{d}}, small(t))
		if err != nil {
			t.Fatal(err)
		}
		want := windowsOf(t, m.bkt, out.ULID)
		asked := func(n int) []series.Series { // of some aggregates alone
			var some []series.Series
			for _, s := range all {
				one := series.Series{Labels: s.Labels}
				for _, c := range s.Chunks {
					c.Aggr = new(series.AggrChunks)
					*c.Aggr = *s.Chunks[len(one.Chunks)].Aggr
					for i := range c.Aggr {
						if n >= 0 && i != n {
							c.Aggr[i] = series.Encoded{}
						}
					}
					one.Chunks = append(one.Chunks, c)
				}
				some = append(some, one)
			}
			return some
		}
		for only := -1; only < int(series.NumAggregates); only++ {
			set := Hide(series.List(asked(only)), Hidden{Deletions: []Deletion{d}, MaxTime: end, Resolution: 300_000})
			got := map[string]int{}
			for set.Next() {
				for _, c := range set.At().Chunks {
					for i, e := range c.Aggr {
						if e.Encoding == chunkenc.EncNone {
							continue
						}
						points, err := points(e)
						if err != nil {
							t.Fatal(err)
						}
						n := len(points)
						if series.Aggregate(i) == series.Counter && e.Encoding == chunkenc.EncXOR {
							n--
						}
						got[fmt.Sprint(set.At().Labels.Get("id"), "/", i)] += n
					}
				}
			}
			for key, samples := range want.samples {
				if i := fmt.Sprint("/", only); only >= 0 && !strings.HasSuffix(key, i) {
					continue
				}
				if got[key] != len(samples) {
					t.Fatalf("round %d, aggregate %d: %s has %d windows, want %d", round, only, key, got[key], len(samples))
				}
			}
		}
	}
}

// TestHideDamaged: what may have hidden samples and cannot be decoded is left out, and said.
func TestHideDamaged(t *testing.T) {
	ls := labels.FromStrings("a", "b")
	bad := series.Encoded{Encoding: chunkenc.EncXOR, Data: []byte{0, 9, 1}}
	damaged := series.Chunk{MinTime: 0, MaxTime: 100, Raw: bad}
	aggr := series.Chunk{MinTime: 0, MaxTime: 100, Aggr: &series.AggrChunks{bad}}
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b")}
	h := Hidden{MaxTime: 1000, Deletions: []Deletion{{Matchers: ms, Intervals: []Interval{{50, 60}}}}}
	set := Hide(series.List([]series.Series{{Labels: ls, Chunks: []series.Chunk{damaged, aggr}}}), h)
	if set.Next() || set.Err() != nil || len(set.Warnings()) != 1 {
		t.Error(set.Err(), set.Warnings())
	}
	set = Hide(series.List([]series.Series{{Labels: ls}}), h)
	if !set.Next() {
		t.Error("a series without chunks is not found")
	}
}

// TestDeletionsOf: selectors see the labels that queries see.
func TestDeletionsOf(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	r, err := requests.NewSeries("acme", requests.Series{Selectors: []string{`{cluster="eu",a="1"}`, `{cluster="us"}`, `{cluster="eu"}`},
		MinTime: 5, MaxTime: 9}, at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	got := DeletionsOf([]*block.Request{{Request: r}}, labels.FromStrings("cluster", "eu"))
	raw, err := json.Marshal(got)
	if err != nil || len(got) != 2 || len(got[0].Matchers) != 1 || len(got[1].Matchers) != 0 ||
		!slices.Equal(got[1].Intervals, []Interval{{5, 9}}) || got[1].RequestID != r.ID.String() {
		t.Errorf("%s, %v", raw, err)
	}
}

func BenchmarkHide(b *testing.B) {
	var all []series.Series
	for i := range 1000 {
		all = append(all, series.Series{Labels: labels.FromStrings("__name__", "m", "i", fmt.Sprint(i), "job", "a", "pod", fmt.Sprint("pod-", i)),
			Chunks: []series.Chunk{{MinTime: 0, MaxTime: 100}}})
	}
	for _, n := range []int{0, 1, 100} {
		h := Hidden{MaxTime: 1000}
		for i := range n {
			h.Deletions = append(h.Deletions, Deletion{Intervals: []Interval{{50, 60}},
				Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "job", fmt.Sprint("x", i))}})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set := Hide(series.List(all), h)
				for set.Next() {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(all)), "ns/series")
		})
	}
}
