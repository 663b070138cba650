package rpc

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

type families = map[string][]metadata.Metadata

// metricMetadata answers in one frame. Metadata has no labels: in Thanos's view it is what all granted tenants' say.
func (h *storeServer) metricMetadata(in *thanospb.MetricMetadataRequest, out grpc.ServerStream) error {
	ctx := out.Context()
	c := callerOf(ctx)
	g, err := h.Tenants.grantTo(c)
	if err != nil {
		return err
	}
	sources, err := h.sources(c.role)
	if err != nil {
		return err
	}
	limit := max(0, int(in.Limit)) // Thanos has -1 for all, and so does nobody ask for none
	all := families{}
	for _, src := range sources {
		if ms, ok := src.(series.MetadataSource); ok {
			if err := gatherMetadata(ctx, ms, src, g, all, in.Metric, limit); err != nil {
				return err
			}
		}
	}
	return out.SendMsg(metadataToPB(all, limit))
}

func gatherMetadata(ctx context.Context, ms series.MetadataSource, src series.Source, g grant, all families, family string, limit int) error {
	ids := g.tenants
	if g.all {
		info, err := src.Info(ctx)
		if err != nil {
			return err
		}
		ids = g.among(info.Tenants)
	}
	for _, id := range ids {
		found, err := ms.Metadata(ctx, id, family, limit)
		if err != nil {
			return err
		}
		mergeMetadata(all, found)
	}
	return nil
}

// mergeMetadata adds what is not in all yet.
func mergeMetadata(all, found families) {
	for family, said := range found {
		for _, m := range said {
			if !slices.Contains(all[family], m) {
				all[family] = append(all[family], m)
			}
		}
	}
}

func metadataToPB(all families, limit int) *thanospb.MetricMetadataResponse {
	out := &thanospb.MetricMetadata{Metadata: map[string]*thanospb.MetricMetadataEntry{}}
	for i, family := range slices.Sorted(maps.Keys(all)) {
		if limit > 0 && i >= limit {
			break
		}
		entry := &thanospb.MetricMetadataEntry{}
		for _, m := range all[family] {
			entry.Metas = append(entry.Metas, &thanospb.Meta{Type: string(m.Type), Help: m.Help, Unit: m.Unit})
		}
		out.Metadata[family] = entry
	}
	return &thanospb.MetricMetadataResponse{Result: &thanospb.MetricMetadataResponse_Metadata{Metadata: out}}
}

func metadataFromPB(in *thanospb.MetricMetadata) families {
	out := families{}
	for family, entry := range in.GetMetadata() {
		for _, m := range entry.GetMetas() {
			out[family] = append(out[family], metadata.Metadata{Type: model.MetricType(m.Type), Help: m.Help, Unit: m.Unit})
		}
	}
	return out
}
