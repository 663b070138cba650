package receive

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb"
)

// visible is what reads find in the TSDBs: all but the samples of series that operators asked to delete. These stay in
// heads and local blocks, which end up in the bucket; compactors delete them there.
type visible struct {
	*tsdb.DB
	r *Receiver
}

func (r *Receiver) visible() visible { return visible{r.db, r} }

// erased are the requests for series of a tenant that overlap [mint, maxt]; nil for nearly all tenants.
func (r *Receiver) erased(id tenant.ID, mint, maxt int64) []*block.Request {
	list := r.asked.Load()
	if len(list.SeriesOf(id)) == 0 {
		return nil
	}
	return list.Hidden(id, mint, maxt, r.opts.Now())
}

// hidden are the samples that a read does not find because of requests.
func (v visible) hidden(requests []*block.Request, mint, maxt int64) rewrite.Hidden {
	return rewrite.Hidden{Deletions: rewrite.DeletionsOf(requests, v.r.added), MinTime: mint, MaxTime: maxt}
}

// Select implements series.Source. Where something may be hidden, series are read with their chunks and own labels, and
// labels are removed and series counted afterwards.
func (v visible) Select(ctx context.Context, req *series.Request) series.Set {
	requests := v.r.erased(req.Tenant, req.MinTime, req.MaxTime)
	if requests == nil {
		return v.DB.Select(ctx, req)
	}
	inner := *req
	inner.WithoutLabels, inner.Limit, inner.SkipChunks = nil, 0, false
	set := rewrite.Hide(v.DB.Select(ctx, &inner), v.hidden(requests, req.MinTime, req.MaxTime))
	if req.SkipChunks {
		set = withoutChunks{set}
	}
	return series.Limit(series.Relabel(set, labels.EmptyLabels(), req.WithoutLabels, series.SortBudget), req.Limit)
}

// withoutChunks is a set of which the chunks are not wanted.
type withoutChunks struct{ series.Set }

// At implements series.Set.
func (s withoutChunks) At() series.Series { return series.Series{Labels: s.Set.At().Labels} }

// Exemplars is as that of the TSDBs.
func (v visible) Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64,
	matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, series.Warnings, error) {
	found, warnings, err := v.DB.Exemplars(ctx, id, mint, maxt, matchers...)
	requests := v.r.erased(id, mint, maxt)
	if requests == nil || err != nil {
		return found, warnings, err
	}
	hidden := v.hidden(requests, mint, maxt)
	var left []exemplar.QueryResult
	for _, q := range found {
		times := hidden.Times(q.SeriesLabels)
		q.Exemplars = slices.DeleteFunc(slices.Clone(q.Exemplars), func(e exemplar.Exemplar) bool {
			return times.Hide(e.Ts, e.Ts)
		})
		if len(q.Exemplars) > 0 {
			left = append(left, q)
		}
	}
	return left, warnings, nil
}
