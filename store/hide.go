package store

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Samples of series that operators asked to delete are hidden after blocks and caches were read: what is kept of a
// block is what the block has, whatever was asked.

// hidden are the requests for series that r does not find samples of, nil for nearly all tenants. A window is hidden if
// a part of it is, so requests count that begin or end that much beside r's range.
func (s *snapshot) hidden(r *series.Request, now func() time.Time) []*block.Request {
	if len(s.view.Requests.SeriesOf(r.Tenant)) == 0 {
		return nil
	}
	mint, maxt, window := r.MinTime, r.MaxTime, max(r.MaxResolution, 0)
	if mint >= math.MinInt64+window {
		mint -= window
	}
	if maxt <= math.MaxInt64-window {
		maxt += window
	}
	return s.view.Requests.Hidden(r.Tenant, mint, maxt, now())
}

// hiddenIn are the samples of a block that q does not find.
func (q *request) hiddenIn(m *block.Meta) (h rewrite.Hidden) {
	if q.hidden == nil {
		return h
	}
	opts := &q.g.opts
	added := labels.NewBuilder(labels.FromMap(m.Thanos.Labels)).Del(opts.TenantLabel, opts.ReplicaLabel).Labels()
	return rewrite.Hidden{Deletions: rewrite.DeletionsOf(q.hidden, added), Resolution: m.Thanos.Downsample.Resolution,
		MinTime: q.MinTime, MaxTime: q.MaxTime}
}
