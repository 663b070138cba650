package store

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/internal/series"
)

// LabelNames implements series.Source. Without matchers a block answers for its whole time range, from its local header.
func (g *Gateway) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return g.names(ctx, r, hearthView)
}

// LabelNames implements series.Source.
func (s *streamSource) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return s.g.names(ctx, r, s.view())
}

// LabelValues implements series.Source. Without matchers a block answers for its whole time range, from its local header.
func (g *Gateway) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	return g.values(ctx, name, r, hearthView)
}

// LabelValues implements series.Source.
func (s *streamSource) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	return s.g.values(ctx, name, r, s.view())
}

func (g *Gateway) names(ctx context.Context, r *series.Request, v view) ([]string, series.Warnings, error) {
	g.metrics.requests.WithLabelValues("names").Inc()
	found := map[string]bool{}
	w, err := g.collect(ctx, r, v, func(b *bucketBlock, added labels.Labels) error {
		for _, name := range b.header.LabelNames() {
			if !found[name] {
				found[strings.Clone(name)] = true
			}
		}
		added.Range(func(l labels.Label) { found[l.Name] = true })
		return nil
	}, func(ls labels.Labels) {
		ls.Range(func(l labels.Label) {
			if !found[l.Name] {
				found[strings.Clone(l.Name)] = true
			}
		})
	})
	for _, name := range r.WithoutLabels {
		delete(found, name)
	}
	return sorted(found, r.Limit), w, err
}

func (g *Gateway) values(ctx context.Context, name string, r *series.Request, v view) ([]string, series.Warnings, error) {
	g.metrics.requests.WithLabelValues("values").Inc()
	found := map[string]bool{}
	if slices.Contains(r.WithoutLabels, name) {
		return nil, nil, nil
	}
	w, err := g.collect(ctx, r, v, func(b *bucketBlock, added labels.Labels) error {
		if value := added.Get(name); value != "" {
			found[value] = true
			return nil
		}
		left := r.Limit
		return b.header.Values(name, func(v string, _ index.Range) bool {
			if v != "" && !found[v] {
				found[strings.Clone(v)] = true
			}
			left--
			return left != 0 && ctx.Err() == nil
		})
	}, func(ls labels.Labels) {
		if v := ls.Get(name); v != "" && !found[v] {
			found[strings.Clone(v)] = true
		}
	})
	return sorted(found, r.Limit), w, err
}

// collect calls ofBlock with each block that answers r whole, and ofSeries with each series of a request with matchers
// on labels that blocks do not have as a whole. Blocks of all resolutions answer: they have the same labels, and often
// only the coarse ones are left.
func (g *Gateway) collect(ctx context.Context, r *series.Request, v view,
	ofBlock func(*bucketBlock, labels.Labels) error, ofSeries func(labels.Labels)) (series.Warnings, error) {
	type whole struct {
		b     *bucketBlock
		added labels.Labels
	}
	var local []whole
	withMatchers := false
	q, err := g.begin(ctx, r, func(t *tenantBlocks) (held []*bucketBlock) {
		for _, gr := range v.groups(t.streams, r.Matchers) {
			withMatchers = withMatchers || len(gr.matchers) > 0
			for _, st := range gr.streams {
				for _, b := range st.blocks {
					if b.meta.MinTime <= r.MaxTime && b.meta.MaxTime > r.MinTime {
						local, held = append(local, whole{b, gr.added}), append(held, b)
					}
				}
			}
		}
		return held
	})
	if err != nil {
		return nil, err
	}
	if !withMatchers {
		defer q.end()
		warnings := q.warnings
		for _, l := range local {
			if err := ofBlock(l.b, l.added); err != nil {
				warnings = append(warnings, missing{id: l.b.meta.ULID, err: err}.warning())
			}
		}
		return warnings, ctx.Err()
	}
	q.end()
	all := *r
	all.SkipChunks, all.Limit, all.MaxResolution, all.WithoutLabels = true, 0, math.MaxInt64, nil
	set := g.selectFrom(ctx, &all, v)
	defer set.Close()
	for set.Next() {
		ofSeries(set.At().Labels)
	}
	return set.Warnings(), set.Err()
}

func sorted(found map[string]bool, limit int) []string {
	all := slices.Sorted(maps.Keys(found))
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}
