package series_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// one is a series with a chunk for each number: one sample at that time with that value.
func one(l labels.Labels, times ...int64) series.Series {
	s := series.Series{Labels: l}
	for _, t := range times {
		s.Chunks = append(s.Chunks, sourcetest.Encode([]sourcetest.Sample{{T: t, V: float64(t)}}, 0)...)
	}
	return s
}

func text(s series.Series) string {
	out := s.Labels.String()
	for _, c := range s.Chunks {
		out += fmt.Sprint(" ", c.MinTime)
	}
	return out
}

func texts(t *testing.T, set series.Set) (out []string) {
	t.Helper()
	for set.Next() {
		out = append(out, text(set.At()))
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMerge(t *testing.T) {
	a, b, c := labels.FromStrings("n", "a"), labels.FromStrings("n", "b"), labels.FromStrings("n", "c")
	f := func(want []string, in ...[]series.Series) {
		t.Helper()
		var sets []series.Set
		for _, s := range in {
			sets = append(sets, series.List(s))
		}
		if got := texts(t, series.Merge(sets...)); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(nil)
	f(nil, nil, nil)
	f([]string{`{n="a"} 1`}, []series.Series{one(a, 1)})
	f([]string{`{n="a"} 1`}, nil, []series.Series{one(a, 1)}, nil)
	f([]string{`{n="a"} 1`, `{n="b"} 2`, `{n="c"} 3`}, []series.Series{one(b, 2)}, []series.Series{one(c, 3)},
		[]series.Series{one(a, 1)})
	f([]string{`{n="a"} 1 2 3 4`, `{n="b"} 1`}, []series.Series{one(a, 2, 4)}, []series.Series{one(a, 1, 3), one(b, 1)})
	f([]string{`{n="a"} 1 2 3`}, []series.Series{one(a, 1, 2)}, []series.Series{one(a, 1, 2)},
		[]series.Series{one(a, 2, 3)})
	f([]string{`{n="a"} 1`, `{n="c"} 9`}, []series.Series{one(a), one(c, 9)}, []series.Series{one(a, 1)},
		[]series.Series{one(a)})
}

func TestMergeErrorAndWarnings(t *testing.T) {
	a := labels.FromStrings("n", "a")
	boom := errs.E(errs.Limited, "too many series")
	set := series.Merge(series.List([]series.Series{one(a, 1)}, "w1", "w2"), series.Failed(boom),
		series.List(nil, "w2", "w3"))
	if set.Next() || !errors.Is(set.Err(), boom) || errs.KindOf(set.Err()) != errs.Limited {
		t.Errorf("error %v, want %v", set.Err(), boom)
	}
	if got, want := set.Warnings(), (series.Warnings{"w1", "w2", "w3"}); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
}

func TestRelabel(t *testing.T) {
	parse := func(pairs ...string) series.Series { return one(labels.FromStrings(pairs...), 1) }
	f := func(ext labels.Labels, without []string, in []series.Series, want ...string) {
		t.Helper()
		slices.SortFunc(in, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
		set := series.Relabel(series.List(in), ext, without, 0)
		if got := texts(t, set); !slices.Equal(got, want) || set.Err() != nil {
			t.Errorf("got %q, want %q, error %v", got, want, set.Err())
		}
	}
	none := labels.EmptyLabels()
	f(none, nil, []series.Series{parse("a", "1")}, `{a="1"} 1`)
	f(none, []string{"r"}, nil)
	// Removing a label changes the order of the rest, and makes series equal.
	f(
		none,
		[]string{"r"},
		[]series.Series{parse("__name__", "x", "r", "1", "z", "2"), parse("__name__", "x", "r", "2", "z", "1"),
			parse("__name__", "x", "r", "3", "z", "1"), parse("__name__", "y", "r", "0")},
		`{__name__="x", z="1"} 1`,
		`{__name__="x", z="2"} 1`,
		`{__name__="y"} 1`,
	)
	// Adding one does too.
	f(labels.FromStrings("z", "9"), nil,
		[]series.Series{parse("__name__", "x", "a", "1"), parse("__name__", "x"), parse("__name__", "y")},
		`{__name__="x", a="1", z="9"} 1`, `{__name__="x", z="9"} 1`, `{__name__="y", z="9"} 1`)
	// Added labels win over the series' own, removal wins over both.
	f(labels.FromStrings("a", "ext", "b", "ext"), []string{"b"},
		[]series.Series{parse("__name__", "x", "a", "own", "b", "own")}, `{__name__="x", a="ext"} 1`)
	// A changed label that sorts before the first one of the series.
	f(labels.FromStrings("A", "1"), nil,
		[]series.Series{parse("A", "2", "b", "1"), parse("a", "1"), parse("a", "2"), parse()}, `{A="1"} 1`,
		`{A="1", a="1"} 1`, `{A="1", a="2"} 1`, `{A="1", b="1"} 1`)
	f(none, []string{"r"}, []series.Series{parse("r", "1"), parse("r", "2"), parse("s", "1")}, `{} 1`, `{s="1"} 1`)
}

func TestRelabelFaults(t *testing.T) {
	in := []series.Series{one(labels.FromStrings("__name__", "x", "r", "1"), 1),
		one(labels.FromStrings("__name__", "x", "r", "2"), 2), one(labels.FromStrings("r", "1"), 1)}
	f := func(without string, budget int64, want errs.Kind) {
		t.Helper()
		set := series.Relabel(series.List(in), labels.EmptyLabels(), []string{without}, budget)
		texts(t, set)
		if got := errs.KindOf(set.Err()); got != want {
			t.Errorf("without %s, budget %d: %v (%v), want %v", without, budget, got, set.Err(), want)
		}
	}
	f("absent", 0, errs.OK)
	f("absent", 1_000, errs.OK)
	f("absent", 200, errs.Exhausted)

	// The last series would have to come first: it is left out, and what is behind it comes.
	set := series.Relabel(series.List(append(in, one(labels.FromStrings("s", "1"), 1))), labels.EmptyLabels(),
		[]string{"r"}, 0)
	n := 0
	for set.Next() {
		n++
	}
	if w := set.Warnings(); n != 2 || set.Err() != nil || len(w) != 1 ||
		!strings.Contains(w[0], "no labels but those to be removed (1)") {
		t.Errorf("%d series, %v, %q", n, set.Err(), set.Warnings())
	}
}

func BenchmarkMerge(b *testing.B) {
	var in []series.Series
	for i := range 20_000 {
		l := labels.FromStrings("__name__", "http_requests_total", "instance", fmt.Sprintf("10.0.%d.%d:9090", i/200, i%200),
			"job", "api", "namespace", fmt.Sprint("ns-", i%50))
		in = append(in, one(l, 1, 2, 3))
	}
	slices.SortFunc(in, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	for _, replicas := range []int{2, 3, 8} {
		b.Run(fmt.Sprint("replicas=", replicas), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sets := make([]series.Set, replicas)
				for i := range sets {
					sets[i] = series.List(in)
				}
				n := 0
				for set := series.Merge(sets...); set.Next(); n++ {
				}
				if n != len(in) {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(in)), "ns/series")
		})
	}
}
