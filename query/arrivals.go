package query

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

var _ series.ArrivalSource = (*Querier)(nil)

// Arrivals implements series.ArrivalSource: what the receivers know together of tenant id, and what the store
// gateways know of the buckets. All of them are asked at each call, within the time of a poll. Data of sources that
// are neither of Hearth may change without a word: then the error is of kind Unsupported.
func (q *Querier) Arrivals(ctx context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	ctx, cancel := context.WithTimeout(ctx, q.opts.InfoTimeout)
	defer cancel()
	a := &arrivals{buckets: map[string][]series.Arrivals{}}
	var wg sync.WaitGroup
	for _, e := range q.known() {
		src, ok := e.Source.(series.ArrivalSource)
		gateway := e.info.Role == series.RoleStore
		if !ok || e.info.Instance == "" || !gateway && e.info.Role != series.RoleReceive {
			wg.Wait()
			return series.Arrivals{}, errs.E(errs.Unsupported, "%s does not say when its samples arrived", e.label())
		}
		if gateway {
			a.expect(e)
		} else {
			a.receivers++
		}
		if e.down() == nil {
			wg.Go(func() { a.ask(ctx, e, src, id, since) })
		}
	}
	wg.Wait()
	if errs.KindOf(a.err) == errs.Unsupported {
		return series.Arrivals{}, a.err
	}
	var ms Membership
	if q.opts.Membership != nil {
		ms = q.opts.Membership(id)
	}
	silent, copies := a.receivers-len(a.said), 1 // where no ring is known each receiver may have what no other one has
	if ms.ReplicationFactor > 0 {
		silent, copies = unheard(ms.History, a.answered, since), ring.Quorum(ms.ReplicationFactor)
	}
	out := series.UniteArrivals(a.said, silent, copies)
	if a.receivers == 0 && copies == 1 { // all samples are in buckets
		out.Since, out.Complete = 0, 0
	}
	return out.WithBlocks(slices.Collect(maps.Values(a.buckets))), nil
}

// arrivals collects what receivers and gateways say.
type arrivals struct {
	receivers int

	mu       sync.Mutex // guards what follows, while they are asked
	said     []series.Arrivals
	answered []series.Info
	buckets  map[string][]series.Arrivals // what gateways say, by bucket
	err      error                        // of one that cannot say anything
}

// expect notes that the bucket of a gateway must be known.
func (a *arrivals) expect(e *endpoint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if of := blocksOf(e); a.buckets[of] == nil {
		a.buckets[of] = []series.Arrivals{} // of nobody, until one answers
	}
}

// blocksOf names the blocks of a gateway: those of its bucket, or its own where it serves a part of one.
func blocksOf(e *endpoint) string {
	if e.info.Blocks.Bucket == "" {
		return "of " + e.label()
	}
	return e.info.Blocks.Bucket
}

// ask asks one endpoint.
func (a *arrivals) ask(ctx context.Context, e *endpoint, src series.ArrivalSource, id tenant.ID, since int64) {
	info := e.info
	found, err := src.Arrivals(series.OnIdentity(ctx, func(is series.Identity) {
		a.mu.Lock()
		defer a.mu.Unlock()
		info.Instance, info.Since = is.Instance, is.Since
	}), id, since)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil:
		if errs.KindOf(err) == errs.Unsupported || a.err == nil {
			a.err = err
		}
	case info.Role == series.RoleStore:
		a.buckets[blocksOf(e)] = append(a.buckets[blocksOf(e)], found)
	default:
		a.said, a.answered = append(a.said, found), append(a.answered, info)
	}
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
