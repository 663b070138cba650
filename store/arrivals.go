package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var _ series.ArrivalSource = (*Gateway)(nil)

// arrivals records when samples of tenants came into the bucket, or went, otherwise than by a receiver that says so
// itself: with blocks of others, by retention, and by deletion. A block that was made of blocks which were there
// changes nothing.
type arrivals struct {
	since   atomic.Int64 // when the first view came, in Unix ms; 0 = not yet
	changes series.Changes
}

// Arrivals implements series.ArrivalSource. Before the first look at the bucket nothing is known.
func (g *Gateway) Arrivals(_ context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	out := g.arrivals.changes.AddTo(series.Arrivals{BlocksSince: g.arrivals.since.Load()}, id)
	if out.BlocksSince == 0 {
		out.BlocksSince = series.Never
	}
	return out.From(since), nil
}

// note records how the blocks that are served change at time now, in Unix ms, before they do. gone and came are the
// blocks in which was and is differ.
func (g *Gateway) note(first bool, was, is, gone, came []*block.Meta, now int64) {
	if first {
		g.arrivals.since.Store(now)
		return
	}
	announced := func(m *block.Meta) bool { return g.opts.Announced != nil && g.opts.Announced(m) }
	for _, m := range append(news(was, came, announced), losses(is, gone)...) {
		if id, err := g.tenantOf(m); err == nil { // else it is not served
			g.arrivals.changes.Note(id, now, m.MinTime, max(m.MaxTime, 1))
		}
	}
}

// noteHidden records that samples are hidden, or are not any more, from the view on that is about to be used.
func (g *Gateway) noteHidden(was, is *block.Requests, now time.Time) {
	for _, e := range is.HiddenElse(was, now) {
		g.arrivals.changes.Note(e.Tenant, now.UnixMilli(), e.Series.MinTime, max(e.Series.MaxTime, 1))
	}
}

// source is a block of level 1 from which samples of a resolution are.
type source struct {
	id         ulid.ULID
	resolution int64
}

// news are the blocks of came with samples that are in none of was, and that nobody has announced.
func news(was, came []*block.Meta, announced func(*block.Meta) bool) (all []*block.Meta) {
	known := sourcesOf(was, came, false)
	for _, m := range came {
		for _, id := range m.Compaction.Sources {
			if !known[source{id: id}] {
				if !announced(m) {
					all = append(all, m)
				}
				break
			}
		}
	}
	return all
}

// losses are the blocks of gone with samples that are in none of is at their resolution.
func losses(is, gone []*block.Meta) (all []*block.Meta) {
	known := sourcesOf(is, gone, true)
	for _, m := range gone {
		for _, id := range m.Compaction.Sources {
			if !known[source{id, m.Thanos.Downsample.Resolution}] {
				all = append(all, m)
				break
			}
		}
	}
	return all
}

// sourcesOf are the sources of those blocks of all that may have samples of some others: that overlap the time in
// which these are.
func sourcesOf(all, others []*block.Meta, byResolution bool) map[source]bool {
	if len(others) == 0 {
		return nil
	}
	mint, maxt := others[0].MinTime, others[0].MaxTime
	for _, m := range others {
		mint, maxt = min(mint, m.MinTime), max(maxt, m.MaxTime)
	}
	known := map[source]bool{}
	for _, m := range all {
		if m.MaxTime <= mint || m.MinTime >= maxt {
			continue
		}
		s := source{}
		if byResolution {
			s.resolution = m.Thanos.Downsample.Resolution
		}
		for _, s.id = range m.Compaction.Sources {
			known[s] = true
		}
	}
	return known
}
