package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const team tenant.ID = "team"

// randomSeries are n series with samples in [from, to) ms, each 15 s.
func randomSeries(rnd *rand.Rand, n int, from, to int64) []sourcetest.Series {
	var in []sourcetest.Series
	for i := range n {
		ls := labels.FromStrings("__name__", fmt.Sprintf("m%d", i%9), "instance", fmt.Sprintf("i%03d", i/9), "job",
			fmt.Sprintf("j%d", i%4))
		if i%5 == 0 {
			ls = labels.NewBuilder(ls).Set("zone", fmt.Sprint(i%3)).Labels()
		}
		s := sourcetest.Series{Labels: ls}
		for t := from + rnd.Int64N(15_000); t < to; t += 15_000 {
			switch {
			case rnd.IntN(20) == 0: // a gap
			case i%9 == 8:
				s.Samples = append(s.Samples, sourcetest.Sample{T: t, H: tsdbutil.GenerateTestHistogram(t / 15_000 % 50)})
			case i%9 == 7:
				s.Samples = append(s.Samples, sourcetest.Sample{T: t, FH: tsdbutil.GenerateTestFloatHistogram(t / 15_000 % 50)})
			default:
				s.Samples = append(s.Samples, sourcetest.Sample{T: t, V: rnd.Float64()})
			}
		}
		in = append(in, s)
	}
	return in
}

func randomMatchers(rnd *rand.Rand) []*labels.Matcher {
	values := map[string][]string{
		"__name__": {"m1", "m8", "m[1-7]", "m.*", ".*", ".+", "", "nothing", "m1|m7|m8"},
		"instance": {"i001", "i00.", "i0[0-3].", ".+", "", "i.*5", "x"},
		"job":      {"j0", "j1|j2", "j.", "", "j9", ".*"},
		"zone":     {"0", "", ".+", "0|", ".*", "1|2"},
		"absent":   {"", "x", ".*", ".+"},
	}
	var out []*labels.Matcher
	for name, vs := range values {
		if rnd.IntN(2) == 0 {
			out = append(out, match(labels.MatchType(rnd.IntN(4)), name, vs[rnd.IntN(len(vs))]))
		}
	}
	return out
}

// TestAgreesWithPrometheus compares selects with Prometheus's own querier of the same blocks, which lie beside each
// other and overlap.
func TestAgreesWithPrometheus(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	bkt := onDisk(t)
	all := randomSeries(rnd, 250, 0, 3*3600_000)
	part := func(from, to int64) (out []sourcetest.Series) {
		for _, s := range all {
			i, _ := slices.BinarySearchFunc(s.Samples, from, func(p sourcetest.Sample, t int64) int { return int(p.T - t) })
			j, _ := slices.BinarySearchFunc(s.Samples, to, func(p sourcetest.Sample, t int64) int { return int(p.T - t) })
			out = append(out, sourcetest.Series{Labels: s.Labels, Samples: s.Samples[i:j]})
		}
		return out
	}
	dirs := []string{makeBlock(t, part(0, 3600_000)), makeBlock(t, part(3600_000, 2*3600_000)),
		makeBlock(t, part(5400_000, 3*3600_000))}
	for i, dir := range dirs {
		upload(t, bkt, dir, ring(team, fmt.Sprint("r", i%2)))
	}
	for _, cache := range []int64{0, 4 << 20} {
		g := opened(t, bkt, func(o *Options) { o.Cache.MaxBytes = cache })
		for range 25 {
			ms := randomMatchers(rnd)
			mint := rnd.Int64N(3 * 3600_000)
			maxt := mint + rnd.Int64N(2*3600_000)
			if len(ms) == 0 {
				ms = append(ms, match(labels.MatchRegexp, "__name__", ".*"))
			}
			want := withoutEmpty(plainText(t, dirs, mint, maxt, ms))
			got := withoutEmpty(text(g.Select(t.Context(), ask(team, mint, maxt, ms...)), mint, maxt))
			if got != want {
				t.Fatalf("%v in [%d, %d]: %s", ms, mint, maxt, firstDifference(got, want))
			}
		}
	}
}

// withoutEmpty removes series without a sample in time: a source may yield one whose chunk only spans the range.
func withoutEmpty(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		if !strings.HasSuffix(line, "}\n") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d:\n%.300s\nwant:\n%.300s", i, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// few are series whose order changes when an external label "cluster" joins them.
func few() []sourcetest.Series {
	one := func(kv ...string) sourcetest.Series {
		return sourcetest.Series{Labels: labels.FromStrings(kv...),
			Samples: []sourcetest.Sample{{T: 1000, V: 1}, {T: 2000, V: 2}}}
	}
	return []sourcetest.Series{
		one("__name__", "a", "b", "x"),
		one("__name__", "a", "cluster", "own"),
		one("__name__", "a", "d", "y"),
		one("__name__", "b"),
	}
}

func seriesOf(t *testing.T, set series.Set) string {
	t.Helper()
	defer set.Close()
	var out []string
	for set.Next() {
		out = append(out, set.At().Labels.String())
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	for _, w := range set.Warnings() {
		out = append(out, "warning: "+w)
	}
	return strings.Join(out, " ")
}

func TestExternalLabels(t *testing.T) {
	bkt := inMemory(t)
	dir := makeBlock(t, few())
	upload(t, bkt, dir, map[string]string{"cluster": "eu", "replica": "0"}) // a Thanos sidecar's: no tenant
	upload(t, bkt, makeBlock(t, few()), map[string]string{"tenant_id": "team", "receive_replica": "r1"})
	upload(t, bkt, makeBlock(t, few()), map[string]string{"tenant_id": "team", "receive_replica": "r2"})
	g := opened(t, bkt)
	f := func(id tenant.ID, want string, without []string, ms ...*labels.Matcher) {
		t.Helper()
		r := ask(id, 0, 5000, ms...)
		r.WithoutLabels = without
		if got := seriesOf(t, g.Select(t.Context(), r)); got != want {
			t.Fatalf("%s %v without %v:\n%s\nwant\n%s", id, ms, without, got, want)
		}
	}
	f(team, `{__name__="a", b="x"} {__name__="a", cluster="own"} {__name__="a", d="y"} {__name__="b"}`, nil)
	f(tenant.Default, `{__name__="a", b="x", cluster="eu", replica="0"} {__name__="a", cluster="eu", d="y", replica="0"} `+
		`{__name__="a", cluster="eu", replica="0"} {__name__="b", cluster="eu", replica="0"}`, nil)
	f(tenant.Default,
		`{__name__="a", b="x", cluster="eu"} {__name__="a", cluster="eu"} {__name__="a", cluster="eu", d="y"} {__name__="b", cluster="eu"}`,
		[]string{"replica"})
	f(tenant.Default, `{__name__="b", cluster="eu"}`, []string{"replica"}, match(labels.MatchEqual, "__name__", "b"),
		match(labels.MatchRegexp, "cluster", "e."))
	f(tenant.Default, ``, nil, match(labels.MatchEqual, "cluster", "own"))
	f(team, `{__name__="a", cluster="own"}`, nil, match(labels.MatchEqual, "cluster", "own"))
	f(team, ``, nil, match(labels.MatchEqual, "tenant_id", "team"))
	f("nobody", ``, nil)

	names, _, err := g.LabelNames(t.Context(), ask(tenant.Default, 0, 5000))
	if got := fmt.Sprint(names, err); got != `[__name__ b cluster d replica] <nil>` {
		t.Fatal(got)
	}
	names, _, err = g.LabelNames(t.Context(),
		ask(tenant.Default, 0, 5000, match(labels.MatchEqual, "d", "y"), match(labels.MatchEqual, "cluster", "eu")))
	if got := fmt.Sprint(names, err); got != `[__name__ cluster d replica] <nil>` {
		t.Fatal(got)
	}
	values, _, err := g.LabelValues(t.Context(), "cluster", ask(tenant.Default, 0, 5000))
	if got := fmt.Sprint(values, err); got != `[eu] <nil>` {
		t.Fatal(got)
	}
	values, _, err = g.LabelValues(t.Context(), "cluster",
		ask(tenant.Default, 0, 5000, match(labels.MatchEqual, "cluster", "us")))
	if got := fmt.Sprint(values, err); got != `[] <nil>` {
		t.Fatal(got)
	}
	if values, _, _ = g.LabelValues(t.Context(), "__name__", ask(team, 6000, 9000)); len(values) != 0 {
		t.Fatal(values)
	}
	info, err := g.Info(t.Context())
	if got := fmt.Sprint(info.Role, info.MinTime, info.MaxTime, info.Tenants, info.Labels, err); got !=
		`store1000 2000 [default-tenant team] [{cluster="eu", replica="0"} {receive_replica="r1", tenant_id="team"} {receive_replica="r2", tenant_id="team"}] <nil>` {
		t.Fatal(got)
	}
}

func TestStreams(t *testing.T) {
	bkt := inMemory(t)
	upload(t, bkt, makeBlock(t, few()[:1]), ring(team, "r1"))
	upload(t, bkt, makeBlock(t, few()[1:2]), ring(team, "r2"))
	upload(t, bkt, makeBlock(t, few()[3:]), map[string]string{"cluster": "eu"})
	g := opened(t, bkt)
	var got []string
	for _, st := range g.Streams(team) {
		got = append(got, st.External.String(), seriesOf(t, st.Source.Select(t.Context(), ask(team, 0, 5000))))
		names, _, err := st.Source.LabelNames(t.Context(), ask(team, 0, 5000))
		got = append(got, fmt.Sprint(names, err))
	}
	want := `{receive_replica="r1", tenant_id="team"} {__name__="a", b="x"} [__name__ b] <nil> ` +
		`{receive_replica="r2", tenant_id="team"} {__name__="a", cluster="own"} [__name__ cluster] <nil>`
	if strings.Join(got, " ") != want {
		t.Fatalf("%s\nwant\n%s", strings.Join(got, " "), want)
	}
	st := g.Streams(tenant.Default) // nothing is added, and matchers see the series' own labels
	if got := seriesOf(t, st[0].Source.Select(t.Context(), ask(tenant.Default, 0, 5000))); len(st) != 1 ||
		got != `{__name__="b"}` {
		t.Fatal(got)
	}
	if got := seriesOf(t,
		st[0].Source.Select(t.Context(), ask(tenant.Default, 0, 5000, match(labels.MatchEqual, "cluster", "eu")))); got != "" {
		t.Fatal(got)
	}
	if len(g.Streams("nobody")) != 0 || len(g.External(team)) != 2 {
		t.Fatal("streams of others")
	}
}

// TestShardsAndLimits puts the shards of a select together again, and cuts it.
func TestShardsAndLimits(t *testing.T) {
	bkt := inMemory(t)
	in := randomSeries(rand.New(rand.NewPCG(1, 1)), 600, 0, 60_000)
	upload(t, bkt, makeBlock(t, in), ring(team, "r1"))
	upload(t, bkt, makeBlock(t, in), map[string]string{"cluster": "eu"})
	g := opened(t, bkt)
	for _, id := range []tenant.ID{team, tenant.Default} {
		whole := strings.Split(seriesOf(t, g.Select(t.Context(), ask(id, 0, 60_000))), "} {")
		if len(whole) != 600 {
			t.Fatalf("%d series", len(whole))
		}
		n := 0
		for i := range uint64(4) {
			r := ask(id, 0, 60_000)
			r.Shard = series.Shard{Index: i, Count: 4}
			set := g.Select(t.Context(), r)
			for set.Next() {
				if labels.StableHash(set.At().Labels)%4 != i {
					t.Fatal("a series in the wrong shard")
				}
				n++
			}
			set.Close()
		}
		if n != 600 {
			t.Fatalf("%d series in all shards", n)
		}
		r := ask(id, 0, 60_000)
		r.Limit = 7
		if cut := strings.Split(seriesOf(t, g.Select(t.Context(), r)), "} {"); len(cut) != 7 || cut[0] != whole[0] ||
			!strings.HasPrefix(cut[6], strings.TrimSuffix(whole[6], "}")) {
			t.Fatalf("limit: %q", cut)
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	bkt := onDisk(b)
	in := randomSeries(rand.New(rand.NewPCG(1, 1)), 2000, 0, 2*3600_000)
	upload(b, bkt, makeBlock(b, in), ring(team, "r1"))
	g := opened(b, bkt)
	run := func(name string, r *series.Request) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set := g.Select(b.Context(), r)
				n := 0
				for set.Next() {
					n++
				}
				if set.Err() != nil || n == 0 {
					b.Fatal(n, set.Err())
				}
				set.Close()
			}
		})
	}
	run("one series",
		ask(team, 0, 2*3600_000, match(labels.MatchEqual, "__name__", "m1"), match(labels.MatchEqual, "instance", "i003")))
	run("2000 series", ask(team, 0, 2*3600_000))
	run("2000 series without chunks", &series.Request{Tenant: team, MaxTime: 2 * 3600_000, SkipChunks: true})
}

// TestSelectSpan: a select of a sampled request has one span, from the call to Close, which says how many blocks it
// read and how it ended.
func TestSelectSpan(t *testing.T) {
	bkt := inMemory(t)
	upload(t, bkt, makeBlock(t, few()), ring(team, "r1"))
	g := opened(t, bkt)
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	ctx, root := provider.Tracer("test").Start(t.Context(), "root")
	defer root.End()
	all := match(labels.MatchRegexp, "__name__", ".+")

	seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000, all)))
	set := g.Select(ctx, ask(team, 0, 5000, all))
	for set.Next() {
	}
	if got := spans.GetSpans(); len(got) != 0 {
		t.Fatalf("before Close there are %d spans", len(got))
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	set = g.Select(ctx, ask(team, 0, 5000, all))
	for set.Next() {
	}
	if set.Err() == nil {
		t.Fatal("a select whose caller is gone succeeds")
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Name != "gateway select" || got[0].Parent.SpanID() != root.SpanContext().SpanID() ||
		got[0].Status.Code != codes.Unset || got[1].Status.Code != codes.Error {
		t.Fatalf("spans %+v", got)
	}
	if a := got[0].Attributes; len(a) != 1 || a[0] != attribute.Int("blocks", 1) {
		t.Fatalf("attributes %v", a)
	}
}

// TestChosenBlocks: a caller of Thanos may choose blocks by their external labels and ids, and learns which were read.
func TestChosenBlocks(t *testing.T) {
	bkt := inMemory(t)
	one := upload(t, bkt, makeBlock(t, few()[:1]), ring(team, "r1"))
	two := upload(t, bkt, makeBlock(t, few()[3:]), ring(team, "r2"))
	g := opened(t, bkt)
	f := func(want string, ids []ulid.ULID, ms ...*labels.Matcher) {
		t.Helper()
		var all []func() series.Queried
		ctx := series.OnQueried(t.Context(), func(soFar func() series.Queried) { all = append(all, soFar) })
		r := ask(team, 0, 5000)
		r.Blocks.Matchers = ms
		if got := seriesOf(t, g.Select(ctx, r)); got != want {
			t.Errorf("%v: %s, want %s", ms, got, want)
		}
		names, _, err := g.LabelNames(ctx, r)
		if err != nil || (len(names) == 0) != (want == "") {
			t.Errorf("%v: names %q, %v", ms, names, err)
		}
		if len(all) != 2 {
			t.Fatalf("%v: the caller learned of %d calls", ms, len(all))
		}
		for _, soFar := range all {
			if got := soFar().Blocks; fmt.Sprint(got) != fmt.Sprint(ids) {
				t.Errorf("%v: %v were read, want %v", ms, got, ids)
			}
		}
		if q := all[0](); q.Series.Touched != int64(len(ids)) {
			t.Errorf("%v: %+v", ms, q)
		}
	}
	a, b := `{__name__="a", b="x"}`, `{__name__="b"}`
	f(a+" "+b, []ulid.ULID{one, two})
	f(b, []ulid.ULID{two}, match(labels.MatchEqual, block.IDLabel, two.String()))
	f(a, []ulid.ULID{one}, match(labels.MatchNotEqual, "receive_replica", "r2"))
	f("", nil, match(labels.MatchEqual, block.IDLabel, "x"))
}
