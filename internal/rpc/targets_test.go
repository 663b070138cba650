package rpc

import (
	"context"
	"testing"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// oneScraper scrapes for one tenant.
type oneScraper struct{ id tenant.ID }

func (s oneScraper) Targets(_ context.Context, id tenant.ID) (promv1.TargetsResult, labels.Labels, error) {
	if id != s.id {
		return promv1.TargetsResult{}, labels.EmptyLabels(), nil
	}
	return promv1.TargetsResult{
		Active: []promv1.ActiveTarget{{
			Labels: model.LabelSet{"job": "a", "cluster": "own"}, DiscoveredLabels: map[string]string{"__address__": "x"},
			ScrapePool: "a", LastScrape: time.Unix(5, 0), LastScrapeDuration: 0.5, Health: promv1.HealthBad, LastError: "no",
		}},
		Dropped: []promv1.DroppedTarget{{DiscoveredLabels: map[string]string{"d": "1"}}},
	}, labels.FromStrings("cluster", "eu"), nil
}

func (s oneScraper) Statistics(_ context.Context, id tenant.ID, limit int, ms []*labels.Matcher) (promv1.TSDBResult,
	bool, error) {
	if id != s.id || len(ms) > 0 && !ms[0].Matches("eu") {
		return promv1.TSDBResult{}, false, nil
	}
	return promv1.TSDBResult{HeadStats: promv1.TSDBHeadStats{NumSeries: 7, MinTime: -1},
		SeriesCountByMetricName: []promv1.Stat{{Name: "up", Value: uint64(limit)}}}, true, nil
}

// TestTargets asks a process that scrapes, as Thanos does.
func TestTargets(t *testing.T) {
	const id = tenant.ID("team-a")
	addr := serve(t, func(s *Server) {
		src := &sourcetest.Memory{About: series.Info{MaxTime: 1, Tenants: []tenant.ID{id}}}
		RegisterStore(s, Store{Sources: map[string]series.Source{series.RoleSidecar: src}, Scraper: oneScraper{id},
			Tenants: Tenants{All: true}})
	})
	c := dial(t, addr, ClientOptions{})
	ctx := t.Context()
	var info infopb.InfoResponse
	if err := c.conn.Invoke(ctx, "/thanos.info.Info/Info", &infopb.InfoRequest{}, &info); err != nil ||
		info.Targets == nil || info.Status == nil {
		t.Errorf("%v, %v", &info, err)
	}
	targets := func(state thanospb.TargetsRequest_State) *thanospb.TargetDiscovery {
		t.Helper()
		all := &thanospb.TargetDiscovery{}
		var frame thanospb.TargetsResponse
		err := c.each(ctx, "/thanos.Targets/Targets", &thanospb.TargetsRequest{State: state}, &frame, func() error {
			all.ActiveTargets = append(all.ActiveTargets, frame.GetTargets().GetActiveTargets()...)
			all.DroppedTargets = append(all.DroppedTargets, frame.GetTargets().GetDroppedTargets()...)
			frame.Reset()
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return all
	}
	all := targets(thanospb.TargetsRequest_ANY)
	if len(all.ActiveTargets) != 1 || len(all.DroppedTargets) != 1 {
		t.Fatalf("%v", all)
	}
	one := all.ActiveTargets[0]
	if labelsFromPB(one.Labels).String() != `{cluster="eu", job="a"}` || one.Health != thanospb.ActiveTarget_DOWN ||
		labelsFromPB(one.DiscoveredLabels).String() != `{__address__="x", cluster="eu"}` || one.LastScrape.Seconds != 5 {
		t.Errorf("%v", one)
	}
	active, dropped := targets(thanospb.TargetsRequest_ACTIVE), targets(thanospb.TargetsRequest_DROPPED)
	if len(active.ActiveTargets) != 1 || len(active.DroppedTargets) != 0 || len(dropped.ActiveTargets) != 0 ||
		len(dropped.DroppedTargets) != 1 {
		t.Errorf("%v, %v", active, dropped)
	}

	statistics := func(req *thanospb.TSDBStatisticsRequest) (got map[string]*thanospb.TSDBStatisticsEntry, err error) {
		var frame thanospb.TSDBStatisticsResponse
		err = c.each(ctx, "/thanos.Status/TSDBStatistics", req, &frame, func() error {
			got = frame.GetStatistics().GetStatistics()
			return nil
		})
		return got, err
	}
	got, err := statistics(&thanospb.TSDBStatisticsRequest{Limit: 3})
	if err != nil || len(got) != 1 || got["team-a"].HeadStatistics.NumSeries != 7 ||
		got["team-a"].SeriesCountByMetricName[0].Value != 3 {
		t.Errorf("%v, %v", got, err)
	}
	for _, req := range []*thanospb.TSDBStatisticsRequest{{Tenant: "other"},
		{Matchers: []*thanospb.LabelMatcher{{Name: "cluster", Value: "us"}}}} {
		if got, err := statistics(req); err != nil || len(got) != 0 {
			t.Errorf("%v: %v, %v", req, got, err)
		}
	}
	if _, err := statistics(&thanospb.TSDBStatisticsRequest{Limit: -1}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a negative limit: %v", err)
	}
}

// TestTargetsOfOthers: a process that scrapes nothing says so.
func TestTargetsOfOthers(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterStore(s, Store{}) })
	c := dial(t, addr, ClientOptions{})
	var frame thanospb.TargetsResponse
	err := c.each(t.Context(), "/thanos.Targets/Targets", &thanospb.TargetsRequest{}, &frame, func() error { return nil })
	if errs.KindOf(err) != errs.Unsupported {
		t.Errorf("%v", err)
	}
}
