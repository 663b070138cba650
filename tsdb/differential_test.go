package tsdb

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestDifferential writes the same at random into a DB and into a plain Prometheus TSDB: in order, out of order, again,
// floats, stale markers and histograms of all kinds. The DB is cut, closed and opened in between. Both must answer
// alike.
func TestDifferential(t *testing.T) {
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { differential(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func differential(t *testing.T, rnd *rand.Rand) {
	o := testOptions(t)
	start := time.Now().Truncate(2 * time.Hour).Add(time.Hour) // ranges are crossed on the way
	now := start
	var clock atomic.Int64
	clock.Store(now.UnixMilli())
	o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	d := openDB(t, o)

	po := promtsdb.DefaultOptions()
	po.OutOfOrderTimeWindow = (o.Window + o.Future + 5*time.Minute).Milliseconds()
	plain, err := promtsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, po, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	plain.DisableCompactions()

	var sets []labels.Labels
	for i := range 30 {
		sets = append(sets, labels.FromStrings("__name__", fmt.Sprint("m", i%7), "kind", fmt.Sprint(i%6), "i", fmt.Sprint(i)))
	}
	for step := range 150 {
		now = now.Add(time.Duration(rnd.IntN(4)) * time.Minute)
		clock.Store(now.UnixMilli())
		writeBoth(t, d, plain, sets, now.UnixMilli(), rnd)
		switch rnd.IntN(20) {
		case 0:
			if err := d.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := d.lookup(team).cut(t.Context(),
				due(now.UnixMilli(), o.BlockDuration.Milliseconds(), team, "")); err != nil {
				t.Fatal(err)
			}
		case 2:
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = openDB(t, o)
		}
		if step%10 == 0 {
			compare(t, d, plain, start.UnixMilli(), now.UnixMilli(), rnd)
		}
	}
	compare(t, d, plain, start.UnixMilli(), now.UnixMilli(), rnd)
}

// sampleAt is what series i has at time at, whenever it is written.
func sampleAt(i int, at int64) (float64, *histogram.Histogram, *histogram.FloatHistogram) {
	n := at/1000%50 + 1
	switch i % 6 {
	case 0:
		return 0, tsdbutil.GenerateTestHistogram(n), nil
	case 1:
		return 0, nil, tsdbutil.GenerateTestFloatHistogram(n)
	case 2:
		return 0, tsdbutil.GenerateTestCustomBucketsHistogram(n), nil
	case 3:
		if at/1000%2 == 0 { // changes its kind
			return float64(n), nil, nil
		}
		return 0, tsdbutil.GenerateTestGaugeHistogram(n), nil
	}
	if at/1000%17 == 0 {
		return math.Float64frombits(value.StaleNaN), nil, nil
	}
	return float64(at), nil, nil
}

func writeBoth(t *testing.T, d *DB, plain *promtsdb.DB, sets []labels.Labels, now int64, rnd *rand.Rand) {
	b := wire.NewBatch(team)
	app := plain.AppenderV2(context.Background())
	for i, ls := range sets {
		if rnd.IntN(3) == 0 {
			continue
		}
		times := []int64{now / 1000 * 1000}
		for range rnd.IntN(4) {
			times = append(times, times[0]-1000*rnd.Int64N(2*3600)) // up to 2 h ago, some of them again
		}
		slices.Sort(times)
		s := b.Add(ls)
		for _, at := range slices.Compact(times) {
			v, h, fh := sampleAt(i, at)
			if h != nil || fh != nil {
				s.Histograms = append(s.Histograms, wire.Histogram{T: at, H: h, FH: fh})
			} else {
				s.Samples = append(s.Samples, wire.Sample{T: at, V: v})
			}
			_, h, fh = sampleAt(i, at)
			if _, err := app.Append(0, ls, 0, at, v, h, fh, storage.AOptions{}); err != nil {
				t.Fatalf("plain: %s at %d: %v", ls, at, err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, d, b)
}

func compare(t *testing.T, d *DB, plain *promtsdb.DB, from, to int64, rnd *rand.Rand) {
	t.Helper()
	matchers := [][]*labels.Matcher{
		{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")},
		{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m3")},
		{labels.MustNewMatcher(labels.MatchRegexp, "kind", "[123]"),
			labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "m1")},
	}
	for _, ms := range matchers {
		mint := from - 2*3600_000 + rnd.Int64N(to-from+2*3600_000)
		maxt := mint + rnd.Int64N(4*3600_000)
		got := map[string]string{}
		for name, ps := range collect(t, d.Select(t.Context(), request(team, mint, maxt, ms...))) {
			ps = slices.DeleteFunc(ps, func(p point2) bool { return p.t < mint || p.t > maxt })
			if len(ps) > 0 {
				got[name] = fmt.Sprint(ps)
			}
		}
		want := readPlain(t, plain, mint, maxt, ms)
		if !maps.Equal(got, want) {
			for name := range want {
				if got[name] != want[name] {
					t.Fatalf("[%d, %d] %v: %s\n got %s\nwant %s", mint, maxt, ms, name, got[name], want[name])
				}
			}
			t.Fatalf("[%d, %d] %v: %d series, want %d", mint, maxt, ms, len(got), len(want))
		}
	}
}

func readPlain(t *testing.T, plain *promtsdb.DB, mint, maxt int64, ms []*labels.Matcher) map[string]string {
	t.Helper()
	q, err := plain.Querier(mint, maxt)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	out := map[string]string{}
	set := q.Select(context.Background(), true, nil, ms...)
	for set.Next() {
		var ps []point2
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			ps = append(ps, pointOf(it, typ))
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
		if len(ps) > 0 {
			out[set.At().Labels().String()] = fmt.Sprint(ps)
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}
