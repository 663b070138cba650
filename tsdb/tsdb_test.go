package tsdb

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

const team tenant.ID = "team"

func testOptions(t testing.TB) Options {
	o := DefaultOptions()
	o.Dir = t.TempDir()
	o.Tick = time.Hour // tests call look and cut themselves
	return o
}

// openDB opens a DB that is closed with the test.
func openDB(t testing.TB, o Options) *DB {
	t.Helper()
	d, err := New(slog.New(slog.DiscardHandler), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, func() bool { return d.Ready() == nil })
	return d
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 20s")
		}
	}
}

// put appends float samples {t, v}... of one series and fails the test if any is refused.
func put(t testing.TB, d *DB, id tenant.ID, ls labels.Labels, tv ...float64) {
	t.Helper()
	b := wire.NewBatch(id)
	s := b.Add(ls)
	for i := 0; i < len(tv); i += 2 {
		s.Samples = append(s.Samples, wire.Sample{T: int64(tv[i]), V: tv[i+1]})
	}
	mustAppend(t, d, b)
}

func mustAppend(t testing.TB, d *DB, b *wire.Batch) {
	t.Helper()
	failures, err := d.Append(context.Background(), wire.All(b))
	if err != nil || len(failures) > 0 {
		t.Fatalf("append: %v %v", failures, err)
	}
}

func request(id tenant.ID, mint, maxt int64, ms ...*labels.Matcher) *series.Request {
	return &series.Request{Tenant: id, MinTime: mint, MaxTime: maxt, Matchers: ms}
}

type point2 struct {
	t int64
	v string // a float, or a histogram as text
}

// collect reads a set as series name -> samples, each timestamp once.
func collect(t testing.TB, set series.Set) map[string][]point2 {
	t.Helper()
	defer set.Close()
	out := map[string][]point2{}
	last := labels.EmptyLabels()
	for set.Next() {
		s := set.At()
		if len(out) > 0 && labels.Compare(last, s.Labels) >= 0 {
			t.Fatalf("%s after %s", s.Labels, last)
		}
		last = s.Labels
		out[s.Labels.String()] = points(t, s)
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}

func points(t testing.TB, s series.Series) (out []point2) {
	it := series.NewIterator(s.Chunks, series.PickAvg)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		out = append(out, pointOf(it, typ))
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return out
}

func pointOf(it chunkenc.Iterator, typ chunkenc.ValueType) point2 {
	p := point2{t: it.AtT()}
	switch typ {
	case chunkenc.ValFloat:
		_, v := it.At()
		p.v = fmt.Sprint(v)
		if value.IsStaleNaN(v) {
			p.v = "stale"
		}
	case chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		p.v = h.String()
	case chunkenc.ValFloatHistogram:
		_, h := it.AtFloatHistogram(nil)
		p.v = h.String()
	}
	return p
}

func TestSource(t *testing.T) {
	load := func(t *testing.T, id tenant.ID, in []sourcetest.Series) *DB {
		o := testOptions(t)
		d := openDB(t, o)
		for _, s := range in {
			b := wire.NewBatch(id)
			w := b.Add(s.Labels)
			for _, p := range s.Samples {
				if p.H != nil || p.FH != nil {
					w.Histograms = append(w.Histograms, wire.Histogram{T: p.T, H: p.H, FH: p.FH})
				} else {
					w.Samples = append(w.Samples, wire.Sample{T: p.T, V: p.V})
				}
			}
			mustAppend(t, d, b)
		}
		return d
	}
	t.Run("head", func(t *testing.T) {
		sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source { return load(t, id, in) })
	})
	t.Run("blocks", func(t *testing.T) {
		sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
			d := load(t, id, in)
			if err := d.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
			return d
		})
	})
	t.Run("half and half", func(t *testing.T) {
		sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
			first, second := slices.Clone(in), slices.Clone(in)
			for i := range in {
				n := len(in[i].Samples) / 2
				first[i].Samples, second[i].Samples = in[i].Samples[n:], in[i].Samples[:n] // out of order
			}
			d := load(t, id, first)
			if err := d.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, s := range second {
				b := wire.NewBatch(id)
				w := b.Add(s.Labels)
				for _, p := range s.Samples {
					if p.H != nil || p.FH != nil {
						w.Histograms = append(w.Histograms, wire.Histogram{T: p.T, H: p.H, FH: p.FH})
					} else {
						w.Samples = append(w.Samples, wire.Sample{T: p.T, V: p.V})
					}
				}
				mustAppend(t, d, b)
			}
			return d
		})
	})
}

func TestUnknownTenant(t *testing.T) {
	d := openDB(t, testOptions(t))
	if got := collect(t, d.Select(t.Context(), request("nobody", 0, 1<<60))); len(got) != 0 {
		t.Fatalf("series of nobody: %v", got)
	}
	if err := d.Cut(t.Context(), "nobody"); errs.KindOf(err) != errs.NotFound {
		t.Fatalf("cut of nobody: %v", err)
	}
	info, err := d.Info(t.Context())
	if err != nil || info.MinTime <= info.MaxTime || info.Tenants == nil || len(info.Tenants) != 0 {
		t.Fatalf("info of nothing: %+v %v", info, err)
	}
	if _, err := New(slog.New(slog.DiscardHandler), nil, Options{}); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("zero options: %v", err)
	}
}

// The receiver's own files stand beside the tenants' directories.
func TestTenantNamedLikeFile(t *testing.T) {
	o := testOptions(t)
	path := filepath.Join(o.Dir, "hearth-instance.json")
	if err := os.WriteFile(path, []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	d := openDB(t, o)
	b := wire.NewBatch("hearth-instance.json")
	b.Add(labels.FromStrings("a", "1")).Samples = []wire.Sample{{T: time.Now().UnixMilli()}}
	if _, err := d.Append(t.Context(), wire.All(b)); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("append: %v", err)
	}
	if broken := d.Broken(); len(broken) > 0 {
		t.Errorf("quarantined: %v", broken)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "{}" {
		t.Errorf("the file: %q %v", content, err)
	}
}
