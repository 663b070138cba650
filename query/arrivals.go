package query

import (
	"context"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

var _ series.ArrivalSource = (*Querier)(nil)

// Arrivals implements series.ArrivalSource: what the receivers know together of tenant id. All of them are asked at
// each call, within the time of a poll. Data of sources that are no receivers of Hearth may change without a word:
// then the error is of kind Unsupported.
func (q *Querier) Arrivals(ctx context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	ctx, cancel := context.WithTimeout(ctx, q.opts.InfoTimeout)
	defer cancel()
	var mu sync.Mutex // guards said and answered
	var said []series.Arrivals
	var answered []series.Info
	var wg sync.WaitGroup
	receivers := 0
	for _, e := range q.known() {
		switch {
		case e.info.Blocks.Bucket != "" || e.info.Role == series.RoleStore && e.info.Instance != "": // blocks do not change
			continue
		case e.info.Role != series.RoleReceive || e.info.Instance == "":
			return series.Arrivals{}, errs.E(errs.Unsupported, "%s does not say when its samples arrived", e.label())
		}
		receivers++
		src, ok := e.Source.(series.ArrivalSource)
		if !ok || e.down() != nil {
			continue
		}
		wg.Go(func() {
			info := e.info
			found, err := src.Arrivals(series.OnIdentity(ctx, func(is series.Identity) {
				mu.Lock()
				defer mu.Unlock()
				info.Instance, info.Since = is.Instance, is.Since
			}), id, since)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				said, answered = append(said, found), append(answered, info)
			}
		})
	}
	wg.Wait()
	var ms Membership
	if q.opts.Membership != nil {
		ms = q.opts.Membership(id)
	}
	if ms.ReplicationFactor <= 0 { // no ring is known: each receiver may have what no other one has
		return series.UniteArrivals(said, receivers-len(said), 1), nil
	}
	return series.UniteArrivals(said, unheard(ms.History, answered, since), ring.Quorum(ms.ReplicationFactor)), nil
}

// unheard is how many receivers that took samples at time since (ms) or later did not say anything. What they knew is
// gone with those that left.
func unheard(history []ring.Incarnation, answered []series.Info, since int64) (n int) {
	for _, i := range history {
		if lifetime(i).maxt >= since && !isAnswered(i, answered) {
			n++
		}
	}
	return n
}
