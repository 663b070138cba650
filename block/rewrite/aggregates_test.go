package rewrite

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/compact/downsample"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// windows are the samples of each aggregate of each series of a downsampled block, and the ranges of its chunks.
type windows struct {
	samples map[string][]string
	times   map[string][]int64
	ranges  []Interval
}

// collector is a merge.Sink that keeps windows.
type collector struct {
	t       *testing.T
	symbols merge.Symbols
	windows
}

func (c *collector) Begin(symbols merge.Symbols) error {
	c.symbols, c.samples, c.times = symbols, map[string][]string{}, map[string][]int64{}
	return nil
}
func (c *collector) End() error { return nil }
func (c *collector) Add(s *merge.Series) error {
	name := labelsOf(c.symbols, s.Symbols).Get("id")
	for _, chunk := range s.Chunks {
		c.ranges = append(c.ranges, Interval{chunk.MinTime, chunk.MaxTime})
		parts, err := series.DecodeAggregates(chunk.Data, series.EveryAggregate)
		if err != nil {
			c.t.Fatal(err)
		}
		for i, e := range parts {
			if e.Encoding == chunkenc.EncNone {
				continue
			}
			all, err := points(e)
			if err != nil {
				c.t.Fatal(err)
			}
			key := fmt.Sprint(name, "/", i)
			if n := len(all); series.Aggregate(i) == series.Counter && e.Encoding == chunkenc.EncXOR {
				if n < 2 || all[n-1].t != all[n-2].t {
					c.t.Fatalf("%s: a counter ends without the value that it goes on with", key)
				}
				all = all[:n-1]
			}
			for _, p := range all {
				text := fmt.Sprintf("%d %x", p.t, math.Float64bits(p.v))
				if p.h != nil {
					p.h.CounterResetHint = 0
					text = fmt.Sprint(p.t, p.h.Compact(0))
				}
				c.samples[key], c.times[key] = append(c.samples[key], text), append(c.times[key], p.t)
			}
		}
	}
	return nil
}

func windowsOf(t *testing.T, bkt objstore.Bucket, id ulid.ULID) windows {
	t.Helper()
	m, err := block.FetchMeta(t.Context(), bkt, id)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{t: t}
	in := []merge.Input{merge.FromBucket(bkt, m)}
	if _, err := merge.Run(t.Context(), in, c, merge.Options{Scratch: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return c.windows
}

// downsampledBlock makes a block of windows of floats and histograms, with resets.
func downsampledBlock(t *testing.T) (*made, int64) {
	t.Helper()
	m := &made{dir: t.TempDir()}
	r := rand.New(rand.NewPCG(5, 5))
	var all []storage.Series
	end := int64(4 * 24 * downsample.Hour)
	for i := range 4 {
		total, samples := int64(1), []chunks.Sample{}
		for ts := r.Int64N(1000); ts < end; ts += 60_000 {
			if total += r.Int64N(9); r.IntN(200) == 0 {
				total = 1
			}
			samples = append(samples, randomSample(i, ts, total))
		}
		all = append(all, storage.NewListSeries(labels.FromStrings("id", fmt.Sprint(i), "shared", "x"), samples))
	}
	raw, err := tsdb.CreateBlock(all, m.dir, 1<<40, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m.open(t, raw)
	id := ulid.MustNew(7, ulid.DefaultEntropy())
	dir := filepath.Join(t.TempDir(), id.String())
	w := merge.NewBlockWriter(dir, merge.WriterOptions{})
	defer w.Close()
	in := []merge.Input{merge.FromBucket(m.bkt, m.meta)}
	if _, err := merge.Run(t.Context(), in, downsample.New(downsample.FiveMinutes, w),
		merge.Options{Scratch: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	meta := *m.meta
	meta.ULID, meta.Compaction.Sources, meta.Stats = id, []ulid.ULID{m.meta.ULID}, w.Written().Stats
	meta.Thanos = block.Thanos{Labels: map[string]string{"a": "b"}}
	meta.Thanos.Downsample.Resolution = downsample.FiveMinutes
	if err := block.Upload(t.Context(), m.bkt, dir, meta); err != nil {
		t.Fatal(err)
	}
	if m.meta, err = block.FetchMeta(t.Context(), m.bkt, id); err != nil {
		t.Fatal(err)
	}
	return m, end
}

// TestAggregates: of a downsampled block the windows go that an interval has a part of, in all aggregates, and nothing
// else changes.
func TestAggregates(t *testing.T) {
	m, end := downsampledBlock(t)
	before := windowsOf(t, m.bkt, m.meta.ULID)
	r := rand.New(rand.NewPCG(6, 6))
	for round := range 12 {
		var deleted []Interval
		for range 1 + r.IntN(6) {
			from := r.Int64N(end)
			deleted = append(deleted, Interval{from, from + r.Int64N(pick(r, int64(1), 400_000, 20_000_000))})
		}
		cfg := &Config{Deletions: []Deletion{{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "id", "3")},
			Intervals: deleted}}}
		out, stats, err := Block(t.Context(), m.bkt, m.meta, cfg, small(t))
		if err != nil || stats.Cut != 3 {
			t.Fatalf("round %d: %v %v", round, err, stats)
		}
		after := windowsOf(t, m.bkt, out.ULID)
		for key, samples := range before.samples {
			var want []string
			for i, ts := range before.times[key] {
				from := ts - ts%downsample.FiveMinutes
				if key[0] == '3' || !slices.ContainsFunc(deleted, func(in Interval) bool {
					return in.Mint < from+downsample.FiveMinutes && in.Maxt >= from
				}) {
					want = append(want, samples[i])
				}
			}
			if !slices.Equal(after.samples[key], want) {
				t.Fatalf("round %d: aggregate %s has %d samples, want %d", round, key, len(after.samples[key]), len(want))
			}
		}
		for _, c := range after.ranges {
			if !slices.ContainsFunc(before.ranges, func(b Interval) bool { return b.Mint <= c.Mint && c.Maxt <= b.Maxt }) {
				t.Fatalf("a chunk of %v, which none was", c)
			}
		}
	}
	same := &Config{Relabels: rulesOf(t, `[{action: labeldrop, regex: id}]`)}
	if _, _, err := Block(t.Context(), m.bkt, m.meta, same, small(t)); errs.KindOf(err) != errs.Conflict {
		t.Errorf("windows of several series were united: %v", err)
	}
	renamed := &Config{Relabels: rulesOf(t, `[{source_labels: [shared], target_label: other}, {action: labeldrop, regex: shared}]`)}
	out, stats, err := Block(t.Context(), m.bkt, m.meta, renamed, small(t))
	if err != nil || stats.Relabelled != 4 {
		t.Fatalf("%v %v", err, stats)
	}
	if got := windowsOf(t, m.bkt, out.ULID); !slices.Equal(got.samples["2/4"], before.samples["2/4"]) {
		t.Error("relabelling changed a window")
	}
}

// FuzzCutAggregates: no bytes make it panic, and what is left is within what was there.
func FuzzCutAggregates(f *testing.F) {
	chunk := chunkenc.NewXORChunk()
	app, err := chunk.Appender()
	if err != nil {
		f.Fatal(err)
	}
	for i := range 9 {
		app.Append(0, int64(i)*300_000+299_999, float64(i))
	}
	var parts series.AggrChunks
	for i := range parts {
		parts[i] = series.Encoded{Encoding: chunkenc.EncXOR, Data: chunk.Bytes()}
	}
	f.Add(series.AppendAggregates(nil, &parts), int64(1_000_000))
	f.Fuzz(func(t *testing.T, data []byte, until int64) {
		c := merge.Chunk{MinTime: 0, MaxTime: 9 * 300_000, Encoding: byte(series.EncAggregates), Data: data}
		out, err := cutAggregates(nil, &c, func(ts int64) bool { return ts > until })
		if err != nil || len(out) == 0 {
			return
		}
		if len(out) > 1 || len(out[0].Data) == 0 {
			t.Errorf("%+v", out)
		}
	})
}

// TestGreedyAggregate: an aggregate that claims more buckets than it can hold is refused, and no memory is made for
// them.
func TestGreedyAggregate(t *testing.T) {
	var parts series.AggrChunks
	greedy := []byte{0, 1, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0x40, 0, 0, 0, 0} // 2^31 buckets
	parts[series.Sum] = series.Encoded{Encoding: chunkenc.EncFloatHistogram, Data: greedy}
	c := merge.Chunk{Encoding: byte(series.EncAggregates), Data: series.AppendAggregates(nil, &parts)}
	_, err := cutAggregates(nil, &c, func(int64) bool { return true })
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "claims 2147483648 buckets") {
		t.Error(err)
	}
}
