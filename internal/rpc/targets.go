package rpc

import (
	"context"
	"maps"
	"slices"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Scraper is a process that scrapes, or that stands for one. It is safe for concurrent use.
type Scraper interface {
	// Targets returns what is scraped for tenant id and what was dropped, and the external labels of the series that are
	// scraped.
	Targets(ctx context.Context, id tenant.ID) (promv1.TargetsResult, labels.Labels, error)
	// Statistics returns those of the head with the series of tenant id, with lists of at most limit entries; 0 = a few.
	// found is false when no head of the tenant has external labels that the matchers match.
	Statistics(ctx context.Context, id tenant.ID, limit int, matchers []*labels.Matcher) (all promv1.TSDBResult,
		found bool, err error)
}

// scraperTenants are those whose targets and statistics the caller may see.
func (h *storeServer) scraperTenants(ctx context.Context) ([]tenant.ID, error) {
	if h.Scraper == nil {
		return nil, errs.E(errs.Unsupported, "this process scrapes nothing")
	}
	g, err := h.Tenants.grantTo(callerOf(ctx))
	if err != nil || !g.all {
		return g.tenants, err
	}
	var ids []tenant.ID
	for _, role := range h.roles() {
		of, err := g.in(ctx, h.Sources[role])
		if err != nil {
			return nil, err
		}
		ids = append(ids, of...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// targets sends what the process scrapes for the tenants that the caller may see, in one frame.
func (h *storeServer) targets(in *thanospb.TargetsRequest, out grpc.ServerStream) error {
	ids, err := h.scraperTenants(out.Context())
	if err != nil {
		return err
	}
	all := &thanospb.TargetDiscovery{}
	for _, id := range ids {
		found, external, err := h.Scraper.Targets(out.Context(), id)
		if err != nil {
			return err
		}
		if in.State != thanospb.TargetsRequest_DROPPED {
			for i := range found.Active {
				all.ActiveTargets = append(all.ActiveTargets, targetToPB(&found.Active[i], external))
			}
		}
		if in.State != thanospb.TargetsRequest_ACTIVE {
			for _, d := range found.Dropped {
				all.DroppedTargets = append(all.DroppedTargets,
					&thanospb.DroppedTarget{DiscoveredLabels: withExternal(d.DiscoveredLabels, external)})
			}
		}
	}
	return out.SendMsg(&thanospb.TargetsResponse{Result: &thanospb.TargetsResponse_Targets{Targets: all}})
}

func targetToPB(t *promv1.ActiveTarget, external labels.Labels) *thanospb.ActiveTarget {
	health := thanospb.ActiveTarget_UNKNOWN
	switch t.Health {
	case promv1.HealthGood:
		health = thanospb.ActiveTarget_UP
	case promv1.HealthBad:
		health = thanospb.ActiveTarget_DOWN
	}
	return &thanospb.ActiveTarget{
		DiscoveredLabels: withExternal(t.DiscoveredLabels, external), Labels: withExternal(t.Labels, external),
		ScrapePool: t.ScrapePool, ScrapeUrl: t.ScrapeURL, GlobalUrl: t.GlobalURL, LastError: t.LastError,
		LastScrape: timestamppb.New(t.LastScrape), LastScrapeDuration: t.LastScrapeDuration, Health: health,
	}
}

// withExternal are labels with those of ext, which win.
func withExternal[N, V ~string](set map[N]V, ext labels.Labels) *thanospb.ZLabelSet {
	b := labels.NewBuilder(labels.EmptyLabels())
	for name, value := range maps.All(set) {
		b.Set(string(name), string(value))
	}
	ext.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return labelsToPB(b.Labels())
}

// tsdbStatistics sends the statistics of the heads of the tenants that the caller may see, by tenant, in one frame.
func (h *storeServer) tsdbStatistics(in *thanospb.TSDBStatisticsRequest, out grpc.ServerStream) error {
	if in.Limit < 0 {
		return errs.E(errs.Invalid, "limit %d must not be negative", in.Limit)
	}
	matchers, err := matchersFromPB(new(expr.Matchers), in.Matchers)
	if err != nil {
		return err
	}
	ids, err := h.scraperTenants(out.Context())
	if err != nil {
		return err
	}
	all := &thanospb.TSDBStatistics{Statistics: map[string]*thanospb.TSDBStatisticsEntry{}}
	for _, id := range ids {
		if in.Tenant != "" && in.Tenant != string(id) {
			continue
		}
		found, ok, err := h.Scraper.Statistics(out.Context(), id, int(in.Limit), matchers)
		if err != nil {
			return err
		}
		if ok {
			all.Statistics[string(id)] = statisticsToPB(found)
		}
	}
	return out.SendMsg(&thanospb.TSDBStatisticsResponse{
		Result: &thanospb.TSDBStatisticsResponse_Statistics{Statistics: all}})
}

func statisticsToPB(s promv1.TSDBResult) *thanospb.TSDBStatisticsEntry {
	list := func(in []promv1.Stat) (out []*thanospb.Statistic) {
		for _, one := range in {
			out = append(out, &thanospb.Statistic{Name: one.Name, Value: one.Value})
		}
		return out
	}
	head := s.HeadStats
	return &thanospb.TSDBStatisticsEntry{
		HeadStatistics: &thanospb.HeadStatistics{
			NumSeries: uint64(max(head.NumSeries, 0)), NumLabelPairs: int64(head.NumLabelPairs),
			ChunkCount: int64(head.ChunkCount), MinTime: int64(head.MinTime), MaxTime: int64(head.MaxTime),
		},
		SeriesCountByMetricName:     list(s.SeriesCountByMetricName),
		LabelValueCountByLabelName:  list(s.LabelValueCountByLabelName),
		MemoryInBytesByLabelName:    list(s.MemoryInBytesByLabelName),
		SeriesCountByLabelValuePair: list(s.SeriesCountByLabelValuePair),
	}
}
