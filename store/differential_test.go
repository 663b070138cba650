package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
)

// randomBlock makes random blocks and questions about them.
type randomBlock struct {
	*rand.Rand
	series []rawSeries
	maxt   int64
	// names has the labels of the series, and values what they have for each.
	names  []string
	values map[string][]string
}

// newRandomBlock makes series whose labels are as odd as a block can have them, with chunks of all kinds, or only of
// aggregates if it is downsampled.
func newRandomBlock(t testing.TB, seed uint64, downsampled bool) *randomBlock {
	b := &randomBlock{Rand: rand.New(rand.NewPCG(seed, 12)), maxt: 7200_000, values: map[string][]string{}}
	b.names = []string{"__name__", "a", "job", "ü", "label.with-dots", "\u65e5\u672c"}
	for i := range b.IntN(75) {
		b.names = append(b.names, fmt.Sprintf("l%02d", i))
	}
	for _, name := range b.names {
		for i := range 1 + b.IntN(40) {
			v := fmt.Sprintf("v%d", i)
			switch n := b.IntN(1200); {
			case n < 2: // few, since each is in many series
				v = strings.Repeat("long", 16<<10) + v
			case n < 100:
				v = string(rune('a' + i%26))
			case n < 200:
				v = "ü" + v
			case n < 300:
				v = "v" + strings.Repeat("1", i%5)
			}
			b.values[name] = append(b.values[name], v)
		}
		b.values[name] = append(b.values[name], "v0", "")
	}
	seen := map[string]bool{}
	for range 1 + b.IntN(300) {
		s := rawSeries{labels: b.labels()}
		if seen[s.labels.String()] {
			continue
		}
		seen[s.labels.String()] = true
		for at := int64(b.IntN(3000_000)); at < b.maxt; at += int64(b.IntN(4000_000)) {
			var m chunks.Meta
			m, at = b.chunk(t, at, downsampled)
			s.chunks = append(s.chunks, m)
		}
		if len(s.chunks) > 0 {
			b.series = append(b.series, s)
		}
	}
	return b
}

// labels are some of the names, in order, with random values.
func (b *randomBlock) labels() labels.Labels {
	some := slices.Clone(b.names)
	b.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	some = some[:1+b.IntN(min(len(some), cmp.Or(b.IntN(2)*80, 6)))]
	if !slices.Contains(some, "a") {
		some = append(some, "a")
	}
	slices.Sort(some)
	var pairs []string
	for _, name := range some {
		v := pick(b.Rand, b.values[name])
		if name == "a" {
			v = fmt.Sprintf("v%d", b.IntN(1000)) // not empty
		}
		if v != "" { // Prometheus writes no empty ones, and reads them in two ways
			pairs = append(pairs, name, v)
		}
	}
	return asWritten(pairs...)
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// chunk makes a chunk that begins at from, and returns when it ends.
func (b *randomBlock) chunk(t testing.TB, from int64, downsampled bool) (chunks.Meta, int64) {
	t.Helper()
	n := int64(1 + b.IntN(100))
	last := from + (n-1)*15_000
	m := chunks.Meta{MinTime: from, MaxTime: last}
	var err error
	must := func(c chunkenc.Chunk) chunkenc.Appender {
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		m.Chunk = c
		return app
	}
	switch kind := b.IntN(4); {
	case downsampled:
		parts := &series.AggrChunks{}
		for a := range parts {
			if b.IntN(3) > 0 {
				parts[a] = series.Encoded{Encoding: chunkenc.EncXOR, Data: xor(t, float64(from), b.Float64()).Bytes()}
			}
		}
		m.Chunk = aggregated{data: series.AppendAggregates(nil, parts)}
	case kind == 0:
		app := must(chunkenc.NewHistogramChunk())
		for i := range n {
			_, _, app, err = app.AppendHistogram(nil, 0, from+i*15_000, tsdbutil.GenerateTestHistogram(i), true)
		}
	case kind == 1:
		app := must(chunkenc.NewFloatHistogramChunk())
		for i := range n {
			_, _, app, err = app.AppendFloatHistogram(nil, 0, from+i*15_000, tsdbutil.GenerateTestFloatHistogram(i), true)
		}
	default:
		app := must(chunkenc.NewXORChunk())
		for i := range n {
			app.Append(0, from+i*15_000, b.Float64())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return m, last + 1
}

// matchers are up to 8 matchers, few of which match nothing.
func (b *randomBlock) matchers() (ms []*labels.Matcher) {
	names := append(slices.Clone(b.names), "absent")
	for range b.IntN(9) {
		name := pick(b.Rand, names[:min(len(names), cmp.Or(b.IntN(2)*6, len(names)))])
		value := pick(b.Rand, append(slices.Clone(b.values[name]), "v1", "nothing"))
		typ := labels.MatchType(b.IntN(4))
		if typ == labels.MatchRegexp || typ == labels.MatchNotRegexp {
			value = pick(b.Rand, []string{".*", ".+", "", "v.*", "v1.*", "v1|v2|v3|a", "a|", ".*1", "v[0-4]|ü.*", "(?i:V1)",
				".?", "v1|v1.+", "long.*", "absent|nothing", "v.", "(v1|v2)?", "[^v].*"})
		}
		if b.IntN(3) > 0 { // otherwise most selections are empty
			typ |= 1
		}
		ms = append(ms, match(typ, name, value))
	}
	return ms
}

// chunkPool lets Prometheus read the chunks of a downsampled block.
type chunkPool struct{ chunkenc.Pool }

func (p chunkPool) Get(e chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	if e == series.EncAggregates {
		return aggregated{data: b}, nil
	}
	return p.Pool.Get(e, b)
}

// oracle answers as Prometheus does.
type oracle struct {
	t testing.TB
	b *tsdb.Block
}

// lines writes out each series with its chunks in [mint, maxt], as r wants them.
func (o oracle) lines(r *series.Request) (out []string) {
	q, err := tsdb.NewBlockChunkQuerier(o.b, r.MinTime, r.MaxTime)
	if err != nil {
		o.t.Fatal(err)
	}
	defer q.Close()
	hints := &storage.SelectHints{Start: r.MinTime, End: r.MaxTime, DisableTrimming: true}
	set := q.Select(context.Background(), true, hints, orAll(r.Matchers)...)
	found := map[string][]string{}
	var all []labels.Labels
	for set.Next() {
		ls := labels.NewBuilder(set.At().Labels()).Del(r.WithoutLabels...).Labels()
		it := set.At().Iterator(nil)
		var list []string
		for it.Next() {
			m := it.At()
			list = append(list, chunkText(m.MinTime, m.MaxTime, m.Chunk.Encoding(), m.Chunk.Bytes()))
		}
		if it.Err() != nil {
			o.t.Fatal(it.Err())
		}
		if len(list) == 0 || !r.Shard.Has(ls) {
			continue
		}
		if key := ls.String(); found[key] == nil {
			found[key], all = list, append(all, ls)
		}
	}
	if set.Err() != nil {
		o.t.Fatal(set.Err())
	}
	slices.SortFunc(all, labels.Compare)
	for _, ls := range all {
		out = append(out, line(ls, found[ls.String()], r))
	}
	if r.Limit > 0 && len(out) > r.Limit {
		out = out[:r.Limit]
	}
	return out
}

// orAll is a copy of ms, or what selects all series: without a matcher Prometheus selects none.
func orAll(ms []*labels.Matcher) []*labels.Matcher {
	if len(ms) == 0 {
		return []*labels.Matcher{match(labels.MatchEqual, "", "")}
	}
	return slices.Clone(ms)
}

func chunkText(mint, maxt int64, e chunkenc.Encoding, data []byte) string {
	return fmt.Sprintf(" %d-%d:%d:%s", mint, maxt, e, hex.EncodeToString(data))
}

// line is a series as text. Series that become one when labels are removed have the chunks of all, united.
func line(ls labels.Labels, list []string, r *series.Request) string {
	if r.SkipChunks || len(r.WithoutLabels) > 0 {
		return ls.String()
	}
	return ls.String() + strings.Join(list, "")
}

// labels asks Prometheus for names or values in r's time.
func (o oracle) labels(r *series.Request, ask func(q storage.Querier) ([]string, error)) []string {
	q, err := tsdb.NewBlockQuerier(o.b, r.MinTime, r.MaxTime)
	if err != nil {
		o.t.Fatal(err)
	}
	defer q.Close()
	found, err := ask(q)
	if err != nil {
		o.t.Fatal(err)
	}
	return series.SortedUnique(slices.DeleteFunc(found, func(s string) bool { return s == "" }), 0)
}

func served(t testing.TB, set series.Set, r *series.Request) (out []string, w series.Warnings) {
	t.Helper()
	defer set.Close()
	for set.Next() {
		s := set.At()
		var list []string
		for _, c := range s.Chunks {
			e, data := c.Raw.Encoding, c.Raw.Data
			if c.Aggr != nil {
				e, data = series.EncAggregates, series.AppendAggregates(nil, c.Aggr)
			}
			list = append(list, chunkText(c.MinTime, c.MaxTime, e, data))
		}
		out = append(out, line(s.Labels, list, r))
	}
	if set.Err() != nil {
		t.Fatalf("%v: %v", r.Matchers, set.Err())
	}
	return out, set.Warnings()
}

// bare is a line of a series that has lost all of its labels.
const bare = "{}"

// withoutBare is what the oracle has for r if the gateway leaves out a series without labels, which belongs before all
// others: series.Relabel may have yielded some when it reads that one, and warns.
func (o oracle) withoutBare(r *series.Request) []string {
	all := *r
	all.Limit = 0
	out := o.lines(&all)[1:]
	if r.Limit > 0 && len(out) > r.Limit {
		out = out[:r.Limit]
	}
	return out
}

// FuzzAgreesWithBlockQuerier asks random blocks random questions, and compares with Prometheus's own querier of the
// block. Without -fuzz it does so for some seeds.
func FuzzAgreesWithBlockQuerier(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		downsampled := seed%4 == 3
		b := newRandomBlock(t, seed, downsampled)
		if len(b.series) == 0 {
			return
		}
		dir := writeBlock(t, b.series)
		local, err := tsdb.OpenBlock(discard, dir, chunkPool{chunkenc.NewPool()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		bkt := inMemory(t)
		upload(t, bkt, dir, ring(team, "r1"), func(m *block.Meta) {
			if downsampled {
				m.Thanos.Downsample.Resolution = 300_000
			}
			m.Thanos.IndexStats = pick(b.Rand, []block.IndexStats{{}, {SeriesMaxSize: 1, ChunkMaxSize: 1},
				{SeriesMaxSize: 512, ChunkMaxSize: 1024}, {SeriesMaxSize: math.MaxInt64, ChunkMaxSize: math.MinInt64}})
		})
		g := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = pick(b.Rand, []int64{0, 64 << 20}) })
		for range 12 {
			b.compare(t, g, oracle{t, local})
		}
	})
}

// compare asks both for series, names and values.
func (b *randomBlock) compare(t *testing.T, g *Gateway, o oracle) {
	t.Helper()
	r := ask(team, b.Int64N(b.maxt), 0, b.matchers()...)
	r.MaxTime, r.MaxResolution = r.MinTime+b.Int64N(b.maxt), 3600_000
	r.SkipChunks = b.IntN(4) == 0
	if b.IntN(3) == 0 {
		r.Limit = 1 + b.IntN(20)
	}
	if b.IntN(4) == 0 {
		r.Shard = series.Shard{Count: 3, Index: b.Uint64N(3)}
	}
	if b.IntN(4) == 0 {
		r.WithoutLabels = []string{"absent"}
		for _, name := range b.names {
			if b.IntN(3) > 0 {
				r.WithoutLabels = append(r.WithoutLabels, name)
			}
		}
	}
	asked := slices.Clone(r.Matchers)
	want := o.lines(r)
	got, w := served(t, g.Select(t.Context(), r), r)
	told := len(w) == 1 && len(r.WithoutLabels) > 0 && strings.Contains(w[0], "no labels but those to be removed")
	if slices.Contains(want, bare) && !slices.Contains(got, bare) && (told || r.Limit > 0 && len(got) == r.Limit) {
		want = o.withoutBare(r)
	}
	if len(w) > 0 && !told {
		t.Fatalf("%v, request %+v: %q", asked, *r, w)
	}
	if !slices.Equal(got, want) {
		wrong := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return slices.Contains(want, s) })
		missing := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(got, s) })
		t.Fatalf("%v, request %+v: %d series instead of %d; wrong %.2000q, missing %.2000q", asked, *r, len(got), len(want),
			wrong, missing)
	}
	r.Shard, r.WithoutLabels = series.Shard{}, nil
	same := func(what string, got []string, w series.Warnings, err error, want []string) {
		t.Helper()
		if err != nil || len(w) > 0 || len(got) != len(want) && r.Limit == 0 ||
			r.Limit > 0 && len(got) != min(r.Limit, len(want)) {
			t.Fatalf("%s of %v, limit %d: %d of %d, %v, %v", what, asked, r.Limit, len(got), len(want), w, err)
		}
		for _, s := range got {
			if _, found := slices.BinarySearch(want, s); !found {
				t.Fatalf("%s of %v, limit %d: %.100q is not among them", what, asked, r.Limit, s)
			}
		}
	}
	names, w, err := g.LabelNames(t.Context(), r)
	same("names", names, w, err, o.labels(r, func(q storage.Querier) ([]string, error) {
		found, _, err := q.LabelNames(context.Background(), nil, slices.Clone(asked)...)
		return found, err
	}))
	name := pick(b.Rand, append(b.names[:min(len(b.names), 6)], "absent"))
	values, w, err := g.LabelValues(t.Context(), name, r)
	same("values of "+name, values, w, err, o.labels(r, func(q storage.Querier) ([]string, error) {
		found, _, err := q.LabelValues(context.Background(), name, nil, slices.Clone(asked)...)
		return found, err
	}))
}
