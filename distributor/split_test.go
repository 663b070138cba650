package distributor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// byTenant remembers what is written, with tenants.
type byTenant struct {
	mu    sync.Mutex
	texts []string
}

func (m *byTenant) Write(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range s.Series {
		m.texts = append(m.texts, fmt.Sprintf("%s %s", s.Batch.Tenant, s.Batch.Series[i].Text()))
	}
	for _, i := range s.Metadata {
		m.texts = append(m.texts, fmt.Sprintf("%s %s", s.Batch.Tenant, s.Batch.Metadata[i].Family))
	}
	slices.Sort(m.texts)
	return nil, nil
}

// teams is a batch of the default tenant whose series are of the teams named, "" = none.
func teams(names ...string) *wire.Batch {
	b := wire.NewBatch(tenant.Default)
	for i, name := range names {
		s := b.Add(labels.FromStrings("__name__", "m_total", "i", fmt.Sprint(i), "team", name, "z", "z"))
		s.Samples = []wire.Sample{{T: 1000, V: 1}}
	}
	return b
}

func splitting() Options {
	o := DefaultOptions()
	o.SplitLabel = "team"
	return o
}

func TestSplit(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), splitting())
	defer c.close()
	m := &byTenant{}
	c.member("a").become(m.Write)
	b := teams("red", "blue", "", "red", "../x")
	b.Metadata = []wire.Metadata{{Family: "m"}, {Family: "other"}}
	r := c.push(b)
	if r.Series != 5 || r.Samples != 4 || r.Tenant != "" || len(r.Failures) != 1 || r.Failures[0].Series != 4 ||
		r.Kind() != errs.Invalid {
		t.Fatalf("%+v", r)
	}
	if text := r.Err().Error(); !strings.Contains(text, "team") || !strings.Contains(text, "../x") {
		t.Error(text)
	}
	want := []string{
		"blue m", `blue {__name__="m_total", i="1", z="z"}`,
		"default-tenant m", "default-tenant other", `default-tenant {__name__="m_total", i="2", z="z"}`,
		"red m", `red {__name__="m_total", i="0", z="z"}`, `red {__name__="m_total", i="3", z="z"}`,
	}
	slices.Sort(want)
	if !slices.Equal(m.texts, want) {
		t.Fatalf("got  %q\nwant %q", m.texts, want)
	}
	freed(t, b)

	// No label at all: nothing is rewritten.
	if r := c.push(teams("", "")); r.Samples != 2 || r.Tenant != tenant.Default {
		t.Fatalf("%+v", r)
	}
}

// TestSplitOutcomes: one answer for all tenants: the worst status, the sum of counts, and failures by the places that
// series had in the request.
// TestUnsplit: series of a push that must not be split stay the tenant's, with the label.
func TestUnsplit(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), splitting())
	defer c.close()
	m := &byTenant{}
	c.member("a").become(m.Write)
	b := teams("red", "../x")
	defer b.Release()
	result, err := c.Push(Unsplit(context.Background()), b)
	if err != nil || len(result.Failures) != 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range m.texts {
		if !strings.HasPrefix(text, string(tenant.Default)+" ") || !strings.Contains(text, "team") {
			t.Error(text)
		}
	}
	if len(m.texts) != 2 {
		t.Error(m.texts)
	}
}

func TestSplitOutcomes(t *testing.T) {
	opts := splitting()
	slow := &tenant.Limits{SamplesPerSecond: 0.001, SamplesBurst: 2}
	none := &tenant.Limits{}
	opts.Limits = func(id tenant.ID) *tenant.Limits {
		if id == "slow" {
			return slow
		}
		return none
	}
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	c.member("a").become(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
		if s.Batch.Tenant == "bad" {
			return refusing(errs.Conflict, 1)(ctx, s)
		}
		return nil, nil
	})
	r := c.push(teams("good", "bad", "good", "bad", "good"))
	if r.Kind() != errs.Conflict || r.Samples != 4 || len(r.Failures) != 1 || r.Failures[0].Series != 3 {
		t.Fatalf("%+v", r)
	}
	if text := r.Err().Error(); !strings.Contains(text, "tenant bad:") || strings.Contains(text, "tenant :") {
		t.Error(text)
	}
	c.push(teams("slow", "slow")) // which uses up what may come at once
	r = c.push(teams("good", "slow", "slow", "bad", "bad"))
	if r.Kind() != errs.Limited || r.Samples != 2 || len(r.Failures) != 3 {
		t.Fatalf("%+v", r)
	}
	if err := r.Err(); errs.RetryAfter(err) == 0 || !strings.Contains(err.Error(), "samples_burst") {
		t.Errorf("%v, after %v", err, errs.RetryAfter(err))
	}
	if _, err := c.Push(context.Background(), teams("slow", "slow")); errs.KindOf(err) != errs.Limited {
		t.Error(err)
	}
}

// TestSplitKeepsToTheUser: a label is no way around what a user may use.
func TestSplitKeepsToTheUser(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), splitting())
	defer c.close()
	m := &byTenant{}
	c.member("a").become(m.Write)
	users, err := tenant.ParseUsers("users", []byte("users: {alice: {tenants: ['red*']}}"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := tenant.WithGrant(context.Background(), users.Named("alice"))
	r, err := c.Push(ctx, teams("red", "blue", "red2"))
	if err != nil || r.Kind() != errs.Forbidden || r.Samples != 2 || r.Failures[0].Series != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if want := []string{`red {__name__="m_total", i="0", z="z"}`,
		`red2 {__name__="m_total", i="2", z="z"}`}; !slices.Equal(m.texts, want) {
		t.Fatalf("%q", m.texts)
	}
}

func TestSplitWithPairs(t *testing.T) {
	opts := paired(nil)
	opts.SplitLabel = "team"
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	send := func(replica string) Result {
		b := wire.NewBatch(tenant.Default)
		for i, team := range []string{"red", "blue"} {
			s := b.Add(
				labels.FromStrings("__name__", "m", "i", fmt.Sprint(i), "team", team, "cluster", "eu", "__replica__", replica))
			s.Samples = []wire.Sample{{T: 1000, V: 1}}
		}
		return c.push(b)
	}
	if r := send("one"); r.Samples != 2 || r.Duplicates.Samples != 0 {
		t.Fatalf("%+v", r)
	}
	if r := send("two"); r.Samples != 0 || r.Duplicates.Samples != 2 || r.Err() != nil {
		t.Fatalf("%+v", r)
	}
	want := []string{`{__name__="m", cluster="eu", i="0"} x1`, `{__name__="m", cluster="eu", i="1"} x1`}
	if got := c.member("a").stored(); !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
}

// TestSplitOTLP: data points are counted by the places that their series had before the request was split.
func TestSplitOTLP(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), splitting())
	defer c.close()
	m := &byTenant{}
	c.member("a").become(m.Write)
	md := pmetric.NewMetrics()
	metric := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	metric.SetName("m")
	points := metric.SetEmptyGauge().DataPoints()
	for _, team := range []string{"red", "../x", "blue", "../x", "red"} {
		point := points.AppendEmpty()
		point.SetTimestamp(1e9)
		point.SetIntValue(1)
		point.Attributes().PutStr("team", team)
		point.Attributes().PutInt("n", int64(points.Len()))
	}
	body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	w := c.otlp(httpRequest{content: contentV1, body: body})
	answer := pmetricotlp.NewExportResponse()
	if err := answer.UnmarshalProto(w.Body.Bytes()); err != nil || w.Code != 200 {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	if n := answer.PartialSuccess().RejectedDataPoints(); n != 2 ||
		!strings.Contains(answer.PartialSuccess().ErrorMessage(), "../x") {
		t.Errorf("%d rejected: %s", n, answer.PartialSuccess().ErrorMessage())
	}
	var series []string
	for _, text := range m.texts {
		if strings.Contains(text, "{") {
			series = append(series, text)
		}
	}
	want := []string{`blue {__name__="m", n="3"}`, `red {__name__="m", n="1"}`, `red {__name__="m", n="5"}`}
	if !slices.Equal(series, want) {
		t.Errorf("%q", series)
	}
}

func TestSplitOptions(t *testing.T) {
	for label, good := range map[string]bool{"": true, "team": true, "__name__": false, "a\xff": false} {
		o := DefaultOptions()
		o.SplitLabel = label
		if err := o.Validate(); (err == nil) != good {
			t.Errorf("%q: %v", label, err)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	names := make([]string, 2000)
	for i := range names {
		names[i] = fmt.Sprint("team-", i/50)
	}
	c := newCluster(b, newFakeRing(1, "a"), splitting())
	defer c.close()
	request := teams(names...)
	b.ReportAllocs()
	for b.Loop() {
		r := c.newRequest(context.Background(), request)
		if err := c.split(r, r.parts[0]); err != nil || len(r.parts) != 40 {
			b.Fatal(err)
		}
		c.release(r)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/series")
}
