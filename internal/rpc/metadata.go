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
	"github.com/hearth-metrics/hearth/internal/tenant"
)

type families = map[string][]metadata.Metadata

// metricMetadata sends one frame with all metadata, and one frame for each warning. Metadata has no labels, so a Thanos
// caller gets the metadata of all granted tenants together.
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
	if g.own {
		sendIdentity(ctx, sources)
	}
	partial := !g.own && partialAllowed(false, in.PartialResponseStrategy)
	limit := max(0, int(in.Limit)) // Thanos asks for all families with -1; 0 means all here, too
	all := newMerger()
	var warnings series.Warnings
	for _, src := range sources {
		if err := absorb(all.query(ctx, src, g, in.Metric, limit, &warnings), partial, &warnings); err != nil {
			return err
		}
	}
	if err := out.SendMsg(metadataToPB(all.families, limit)); err != nil {
		return err
	}
	for _, w := range warnings {
		frame := &thanospb.MetricMetadataResponse{Result: &thanospb.MetricMetadataResponse_Warning{Warning: w}}
		if err := out.SendMsg(frame); err != nil {
			return err
		}
	}
	return nil
}

// query adds the metadata that src has of all granted tenants. A source without metadata adds nothing.
func (m *merger) query(
	ctx context.Context, src series.Source, g grant, family string, limit int, warnings *series.Warnings,
) error {
	ms, ok := src.(series.MetadataSource)
	if !ok {
		return nil
	}
	ids, err := g.in(ctx, src)
	if err != nil {
		return err
	}
	for _, id := range ids {
		found, w, err := ms.Metadata(ctx, id, family, limit)
		if err != nil {
			return err
		}
		m.add(found)
		*warnings = append(*warnings, w...)
	}
	return nil
}

// in returns the granted tenants. If every tenant is granted, these are the tenants that src holds.
func (g grant) in(ctx context.Context, src series.Source) ([]tenant.ID, error) {
	if !g.all {
		return g.tenants, nil
	}
	info, err := src.Info(ctx)
	return g.among(info.Tenants), err
}

// merger unites metadata. Each tenant may describe a family in its own words. A map finds repetitions: comparing each
// description with all others would cost the square of the number of tenants.
type merger struct {
	families families
	seen     map[described]bool
}

// described is one description of a family.
type described struct {
	family string
	metadata.Metadata
}

func newMerger() *merger { return &merger{families: families{}, seen: map[described]bool{}} }

// add adds the descriptions that are not there yet.
func (m *merger) add(found families) {
	for family, said := range found {
		for _, one := range said {
			if d := (described{family, one}); !m.seen[d] {
				m.seen[d] = true
				m.families[family] = append(m.families[family], one)
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
			out[family] = append(out[family], metadata.Metadata{
				Type: model.MetricType(m.Type), Help: m.Help, Unit: m.Unit,
			})
		}
	}
	return out
}
