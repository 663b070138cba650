package query

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var _ series.MetadataSource = (*Querier)(nil)

// Metadata implements series.MetadataSource.
func (q *Querier) Metadata(ctx context.Context, id tenant.ID, family string, limit int) (map[string][]metadata.Metadata,
	series.Warnings, error) {
	found, warnings, err := q.tenantMetadata(ctx, id, family)
	trimMetadata(found, limit, 0)
	return found, warnings, err
}

func (q *Querier) tenantMetadata(ctx context.Context, id tenant.ID, family string) (map[string][]metadata.Metadata,
	series.Warnings, error) {
	var mu sync.Mutex // guards all
	all := map[string][]metadata.Metadata{}
	now := q.now().UnixMilli()
	s, err := q.newSelection(ctx, &series.Request{Tenant: id, MinTime: now, MaxTime: now}, true)
	if err != nil {
		return nil, nil, err
	}
	warnings, err := q.askAll(ctx, s, func(ctx context.Context, a *asking) (series.Warnings, error) {
		src, ok := a.at.Source.(series.MetadataSource)
		if !ok { // it has no metadata
			return nil, nil
		}
		found, warnings, err := src.Metadata(ctx, id, family, 0)
		mu.Lock()
		defer mu.Unlock()
		addMetadata(all, found)
		return warnings, err
	})
	return all, warnings, err
}

// metadata is what the tenants of ctx said of families. limit bounds the families, and perFamily the texts of each; 0
// or less = no bound.
func (q *Querier) metadata(ctx context.Context, family string, limit, perFamily int) (map[string][]metadata.Metadata,
	series.Warnings, error) {
	all := map[string][]metadata.Metadata{}
	var warnings series.Warnings
	for _, id := range q.scope(ctx).ids {
		found, w, err := q.tenantMetadata(ctx, id, family)
		if err != nil {
			return nil, nil, err
		}
		addMetadata(all, found)
		warnings = append(warnings, w...)
	}
	trimMetadata(all, limit, perFamily)
	slices.Sort(warnings)
	return all, slices.Compact(warnings), nil
}

// addMetadata adds to all what it does not have yet. Two endpoints may have different texts for a family after a
// change.
func addMetadata(all, found map[string][]metadata.Metadata) {
	for family, ms := range found {
		for _, m := range ms {
			if !slices.Contains(all[family], m) {
				all[family] = append(all[family], m)
			}
		}
	}
}

func trimMetadata(all map[string][]metadata.Metadata, limit, perFamily int) {
	if limit > 0 && len(all) > limit {
		for _, family := range slices.Sorted(maps.Keys(all))[limit:] {
			delete(all, family)
		}
	}
	for family, ms := range all {
		slices.SortFunc(ms, func(a, b metadata.Metadata) int { // endpoints answer in any order
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Help, b.Help))
		})
		if perFamily > 0 && len(ms) > perFamily {
			all[family] = ms[:perFamily]
		}
	}
}
