// Package sourcetest is the contract test of series.Source. Every implementation runs it over its own storage, so that
// callers can rely on the same behaviour of all sources. The package also has what tests need to make sources: Memory,
// a source in memory, and Encode and Downsample, which make chunks.
//
// Flow: data (known series) -> the implementer's open -> Select, LabelNames, LabelValues, Info -> compared with the
// data
//
// Invariants: expected results are computed from the known series alone, with Prometheus's own matchers.
//
// Locks: none. Memory may be read by several goroutines once its fields are set.
package sourcetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const owner tenant.ID = "team-a"

// Run tests a source. open must return a source that holds exactly the given series, all of tenant id, and clean it up
// with t.Cleanup. The samples are up to an hour old.
func Run(t *testing.T, open func(t *testing.T, id tenant.ID, in []Series) series.Source) {
	from := base()
	in := data(from)
	slices.SortFunc(in, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	s := &suite{src: open(t, owner, in), in: in, mint: from, maxt: from + samples*step}
	t.Run("matchers", s.matchers)
	t.Run("time range", s.timeRange)
	t.Run("histograms", s.histograms)
	t.Run("skip chunks", s.skipChunks)
	t.Run("limit", s.limit)
	t.Run("without labels", s.without)
	t.Run("label names", s.labelNames)
	t.Run("label values", s.labelValues)
	t.Run("other tenant", s.otherTenant)
	t.Run("info", s.info)
	t.Run("canceled", s.canceled)
	t.Run("close", s.close)
	t.Run("concurrent", s.concurrent)
}

// suite is one source under test: in is what it holds, all within [mint, maxt].
type suite struct {
	src        series.Source
	in         []Series
	mint, maxt int64
}

// selectors use every type of matcher, also with values that match an absent label.
var selectors = []string{
	`{__name__="up"}`, `{__name__!="up"}`, `{__name__=~".+"}`, `{__name__=~"up|bare"}`, `{__name__!~"up|h.*"}`,
	`{__name__="up", env=""}`, `{__name__=~".+", env=""}`, `{__name__=~".+", env!=""}`, `{__name__="up", env!="dev"}`,
	`{__name__="up", zone=~""}`, `{__name__="up", zone!~""}`, `{__name__="up", zone=~".*"}`,
	`{__name__="up", env=~"dev|", replica="0"}`, `{__name__="up", instance!~"a"}`, `{__name__="up", missing="x"}`,
	`{__name__="up", missing!="x"}`, `{env="prod"}`, `{tenant_id="mine-too"}`, `{tenant_id="team-a"}`,
	`{receive_replica=~"mi.*"}`, `{receive_replica!="mine", __name__="own"}`,
	`{__name__="up", zone="ü\"\\\n"}`, `{__name__="nothing"}`, `{instance=~"(?i)A"}`,
}

// everything selects all series of the data.
func (s *suite) everything(t *testing.T) *series.Request {
	t.Helper()
	return &series.Request{
		Tenant: owner, MinTime: s.mint, MaxTime: s.maxt, Matchers: parse(t, `{__name__=~".+"}`),
	}
}

func (s *suite) matchers(t *testing.T) {
	for _, sel := range selectors {
		s.check(t, sel, &series.Request{Tenant: owner, MinTime: s.mint, MaxTime: s.maxt, Matchers: parse(t, sel)})
	}
}

func (s *suite) timeRange(t *testing.T) {
	for _, r := range [][2]int64{{0, 0}, {0, 25}, {19, 20}, {20, 20}, {30, 60}, {100, 100}, {179, 180}, {199, 500},
		{300, 400}, {-10, -1}, {-100, 1000}} {
		req := s.everything(t)
		req.MinTime, req.MaxTime = s.mint+r[0]*step, s.mint+r[1]*step
		s.check(t, fmt.Sprintf("steps %d to %d", r[0], r[1]), req)
	}
}

func (s *suite) histograms(t *testing.T) {
	for _, kind := range []string{"int", "float", "custom"} {
		sel := fmt.Sprintf(`{__name__="hist", kind=%q}`, kind)
		s.check(t, sel, &series.Request{Tenant: owner, MinTime: s.mint, MaxTime: s.maxt, Matchers: parse(t, sel)})
	}
}

func (s *suite) skipChunks(t *testing.T) {
	req := s.everything(t)
	req.SkipChunks = true
	got, err := collect(context.Background(), s.src, req)
	if err != nil {
		t.Fatal(err)
	}
	compareLabels(t, "all", got, s.expect(req))
}

func (s *suite) limit(t *testing.T) {
	for _, limit := range []int{1, 3, 1000} {
		req := s.everything(t)
		req.Limit = limit
		got, err := collect(context.Background(), s.src, req)
		if err != nil {
			t.Fatal(err)
		}
		if want := min(limit, len(s.in)); len(got) != want {
			t.Errorf("limit %d: %d series, want %d", limit, len(got), want)
		}
	}
}

func (s *suite) without(t *testing.T) {
	for _, names := range [][]string{{"replica"}, {"env", "replica"}, {"env"}, {"absent"}, {"instance", "kind"}} {
		req := s.everything(t)
		req.WithoutLabels = names
		got, err := collect(context.Background(), s.src, req)
		if err != nil {
			t.Fatal(err)
		}
		compareLabels(t, fmt.Sprint("without ", names), got, s.expect(req))
	}
}

func (s *suite) otherTenant(t *testing.T) {
	req := s.everything(t)
	req.Tenant = "team-b"
	if got, err := collect(context.Background(), s.src, req); err != nil || len(got) != 0 {
		t.Errorf("a tenant without data: %d series, error %v", len(got), err)
	}
	if names, _, err := s.src.LabelNames(context.Background(), req); err != nil || len(names) != 0 {
		t.Errorf("a tenant without data: label names %q, error %v", names, err)
	}
	if values, _, err := s.src.LabelValues(context.Background(), "env", req); err != nil || len(values) != 0 {
		t.Errorf("a tenant without data: label values %q, error %v", values, err)
	}
}

func (s *suite) info(t *testing.T) {
	info, err := s.src.Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if last := s.mint + (samples-1)*step; info.MinTime > s.mint || info.MaxTime < last {
		t.Errorf("info says %d to %d, the data are from %d to %d", info.MinTime, info.MaxTime, s.mint, last)
	}
	if !info.Covers(owner, s.mint, s.maxt) {
		t.Errorf("info %+v does not cover its tenant", info)
	}
}

func (s *suite) canceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	req := s.everything(t)
	if got, err := collect(ctx, s.src, req); err == nil && len(got) != len(s.in) {
		t.Errorf("canceled: %d of %d series and no error", len(got), len(s.in))
	}
}

func (s *suite) close(t *testing.T) {
	req := s.everything(t)
	for n := range 3 {
		set := s.src.Select(context.Background(), req)
		for range n {
			set.Next()
		}
		for range 2 {
			if err := set.Close(); err != nil {
				t.Errorf("close after %d series: %v", n, err)
			}
		}
	}
}

func (s *suite) concurrent(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		sel := selectors[i]
		wg.Go(func() {
			s.check(t, sel, &series.Request{Tenant: owner, MinTime: s.mint, MaxTime: s.maxt, Matchers: parse(t, sel)})
		})
	}
	wg.Wait()
}

// check compares the series that the source returns for r with the data: labels, order and samples within r's range.
func (s *suite) check(t *testing.T, what string, r *series.Request) {
	t.Helper()
	set := s.src.Select(context.Background(), r)
	defer set.Close()
	want := s.expect(r)
	var got []Series
	for set.Next() {
		at := set.At()
		got = append(got, Series{at.Labels, read(t, at, r.MinTime, r.MaxTime)})
	}
	if set.Err() != nil || len(set.Warnings()) > 0 {
		t.Errorf("%s: error %v, warnings %q", what, set.Err(), set.Warnings())
		return
	}
	// A source may return a series without a sample within the range, if a chunk of it overlaps the range.
	got = slices.DeleteFunc(got, func(s Series) bool { return len(s.Samples) == 0 })
	if !compareLabels(t, what, got, want) {
		return
	}
	for i := range got {
		if g, w := len(got[i].Samples), len(want[i].Samples); g != w {
			t.Errorf("%s: %s: %d samples, want %d", what, got[i].Labels, g, w)
			continue
		}
		for n, p := range got[i].Samples {
			if !same(p, want[i].Samples[n]) {
				t.Errorf("%s: %s: sample %d is %s, want %s", what, got[i].Labels, n, p, want[i].Samples[n])
				break
			}
		}
	}
}

// expect returns the series of the data that r selects.
func (s *suite) expect(r *series.Request) (want []Series) {
	builder := labels.NewBuilder(labels.EmptyLabels())
	for _, in := range s.in {
		if !matches(in.Labels, r.Matchers) {
			continue
		}
		out := Series{Labels: in.Labels}
		for _, p := range in.Samples {
			if p.T >= r.MinTime && p.T <= r.MaxTime {
				out.Samples = append(out.Samples, p)
			}
		}
		if len(out.Samples) == 0 {
			continue
		}
		builder.Reset(in.Labels)
		out.Labels = builder.Del(r.WithoutLabels...).Labels()
		want = append(want, out)
	}
	slices.SortFunc(want, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	return slices.CompactFunc(want, func(a, b Series) bool { return labels.Equal(a.Labels, b.Labels) })
}

func matches(l labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(l.Get(m.Name)) })
}

// compareLabels reports whether got and want have the same labels in the same order. If not, the test fails.
func compareLabels(t *testing.T, what string, got, want []Series) bool {
	t.Helper()
	text := func(all []Series) string {
		var b strings.Builder
		for _, s := range all {
			fmt.Fprintln(&b, s.Labels)
		}
		return b.String()
	}
	if g, w := text(got), text(want); g != w {
		t.Errorf("%s: got\n%swant\n%s", what, g, w)
		return false
	}
	return true
}

// collect returns the series that r selects, without samples.
func collect(ctx context.Context, src series.Source, r *series.Request) ([]Series, error) {
	set := src.Select(ctx, r)
	defer set.Close()
	var got []Series
	for set.Next() {
		got = append(got, Series{Labels: set.At().Labels.Copy()})
	}
	return got, set.Err()
}
