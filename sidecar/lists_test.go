package sidecar

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// canned answers some paths as a Prometheus does that has targets, rules and metadata.
func canned(answers map[string]string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if text, ok := answers[strings.TrimPrefix(r.URL.Path, "/api/v1")]; ok {
			_, _ = io.WriteString(w, `{"status":"success","data":`+text+`}`)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// TestLists: targets, rules, metadata, statistics and exemplars belong to the one tenant, and have external labels
// where series have them.
func TestLists(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	f.set(func() {
		f.fault = canned(map[string]string{
			"/targets": `{"activeTargets":[{"labels":{"job":"a"},"discoveredLabels":{"__address__":"x"},"health":"up",
				"scrapePool":"a","lastScrape":"2026-01-01T00:00:00Z"}],"droppedTargets":[{"discoveredLabels":{"d":"1"}}]}`,
			"/rules": `{"groups":[{"name":"g","file":"f","interval":15,"limit":3,"evaluationTime":0.5,
				"lastEvaluation":"2026-01-01T00:00:00Z","rules":[
				{"type":"recording","name":"r","query":"1","labels":{"cluster":"own"},"health":"ok"},
				{"type":"alerting","name":"a","query":"2","duration":60,"keepFiringFor":30,"state":"firing","health":"err",
				"lastError":"e","labels":{},"annotations":{"x":"y"},"alerts":[{"labels":{"l":"1"},"annotations":{},
				"state":"firing","activeAt":"2026-01-01T00:00:00Z","value":"1e+00"}]}]}]}`,
			"/metadata": `{"up":[{"type":"gauge","help":"h","unit":"u"}]}`,
			"/status/tsdb": `{"headStats":{"numSeries":7,"numLabelPairs":3,"chunkCount":2,"minTime":1,"maxTime":2},
				"seriesCountByMetricName":[{"name":"up","value":7}]}`,
		})
	})
	s := f.open(t, func(o *Options) { o.Tenant = owner })
	ctx := t.Context()

	groups, _, err := s.Rules(ctx, "", rulestate.Query{})
	if err != nil || len(groups) != 1 || groups[0].Tenant != owner || groups[0].Limit != 3 ||
		groups[0].Interval != 15*time.Second || len(groups[0].Rules) != 2 {
		t.Fatalf("%+v, %v", groups, err)
	}
	recording, alerting := groups[0].Rules[0], groups[0].Rules[1]
	if recording.Alerting || recording.Labels.String() != `{cluster="eu"}` {
		t.Errorf("%+v", recording)
	}
	if !alerting.Alerting || alerting.State != rulestate.Firing || alerting.For != time.Minute ||
		alerting.LastError != "e" || len(alerting.Alerts) != 1 ||
		alerting.Alerts[0].Labels.String() != `{cluster="eu", l="1"}` {
		t.Errorf("%+v", alerting)
	}
	targets, external, err := s.Targets(ctx, owner)
	if err != nil || len(targets.Active) != 1 || len(targets.Dropped) != 1 || external.String() != `{cluster="eu"}` {
		t.Errorf("%+v, %v, %v", targets, external, err)
	}
	meta, _, err := s.Metadata(ctx, owner, "", 0)
	if err != nil || len(meta["up"]) != 1 || meta["up"][0].Help != "h" {
		t.Errorf("%v, %v", meta, err)
	}
	stats, found, err := s.Statistics(ctx, owner, 5, []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "cluster", "eu")})
	if err != nil || !found || stats.HeadStats.NumSeries != 7 || len(stats.SeriesCountByMetricName) != 1 {
		t.Errorf("%+v, %v, %v", stats, found, err)
	}
	if _, found, err := s.Statistics(ctx, owner, 5, []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "cluster", "us")}); found || err != nil {
		t.Errorf("statistics of another Prometheus: %v, %v", found, err)
	}

	// Another tenant has nothing of all that.
	if groups, _, err := s.Rules(ctx, "other", rulestate.Query{}); len(groups) != 0 || err != nil {
		t.Errorf("%v, %v", groups, err)
	}
	if targets, _, err := s.Targets(ctx, "other"); len(targets.Active) != 0 || err != nil {
		t.Errorf("%v, %v", targets, err)
	}
	if meta, _, err := s.Metadata(ctx, "other", "", 0); len(meta) != 0 || err != nil {
		t.Errorf("%v, %v", meta, err)
	}
	if _, found, err := s.Statistics(ctx, "other", 0, nil); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	// Nor has anybody, with an error, while Prometheus is away.
	f.set(func() { f.down = true })
	_, _, rules := s.Rules(ctx, owner, rulestate.Query{})
	_, _, targetsErr := s.Targets(ctx, owner)
	_, _, metaErr := s.Metadata(ctx, owner, "", 0)
	for _, err := range []error{rules, targetsErr, metaErr} {
		if errs.KindOf(err) != errs.Unavailable {
			t.Error(err)
		}
	}
}

// TestExemplars: selectors on external labels are decided here, and series have these labels.
func TestExemplars(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	now := time.Now().UnixMilli()
	ls := labels.FromStrings("__name__", "m")
	f.write(t, sourcetest.Series{Labels: ls, Samples: []sourcetest.Sample{{T: now, V: 1}}})
	app := f.db.Appender(t.Context())
	var ref storage.SeriesRef
	if _, err := app.AppendExemplar(ref, ls, exemplar.Exemplar{Labels: labels.FromStrings("trace", "1"), Value: 1, Ts: now,
		HasTs: true}); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	s := f.open(t, func(o *Options) { o.Tenant = owner })
	m := func(name, value string) *labels.Matcher { return labels.MustNewMatcher(labels.MatchEqual, name, value) }
	found, _, err := s.Exemplars(t.Context(), owner, now-1, now+1,
		[]*labels.Matcher{m("cluster", "eu"), m("__name__", "m")},
		[]*labels.Matcher{m("cluster", "us")})
	if err != nil || len(found) != 1 || found[0].SeriesLabels.String() != `{__name__="m", cluster="eu"}` ||
		len(found[0].Exemplars) != 1 || found[0].Exemplars[0].Ts != now {
		t.Errorf("%+v, %v", found, err)
	}
	found, _, err = s.Exemplars(t.Context(), owner, now-1, now+1, []*labels.Matcher{m("cluster", "us")})
	if err != nil || len(found) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
}
