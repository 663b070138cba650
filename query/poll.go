package query

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
)

// pollTick is how often the poller looks for new endpoints and for those that are due.
const pollTick = time.Second

// snapshot is what the last poll found. It is immutable.
type snapshot struct {
	endpoints []*endpoint
	info      series.Info // of all that have answered once, united
}

// newSnapshot unites what the endpoints say. It is done once for each poll and not for each call, since there may be
// many tenants.
func newSnapshot(endpoints []*endpoint) *snapshot {
	nameBuckets(endpoints)
	info := series.Info{Role: series.RoleQuery, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	known := len(endpoints) > 0
	for _, m := range endpoints {
		if !m.heard { // it may hold samples of any time
			info.MinTime, info.MaxTime = math.MinInt64, math.MaxInt64
			continue
		}
		info.MinTime, info.MaxTime = min(info.MinTime, m.info.MinTime), max(info.MaxTime, m.info.MaxTime)
		info.Labels = append(info.Labels, m.info.Labels...)
		info.Tenants = append(info.Tenants, m.info.Tenants...)
		info.ReplicationFactor = max(info.ReplicationFactor, m.info.ReplicationFactor)
		known = known && m.info.Tenants != nil
	}
	slices.Sort(info.Tenants)
	info.Tenants = slices.Clip(slices.Compact(info.Tenants))
	if !known {
		info.Tenants = nil
	}
	return &snapshot{endpoints, info}
}

// endpoint is an endpoint as the last poll found it.
type endpoint struct {
	Endpoint
	info    series.Info   // the last response, or what discovery knows
	heard   bool          // it has answered a poll at least once
	err     error         // of the last poll
	checked time.Time     // of the last poll
	heardAt time.Time     // when it last answered
	gone    time.Duration // from heardAt to the last poll
	silent  *atomic.Bool  // a query gave it up after the last poll; nil for an endpoint that was never polled
}

// role is its role in metrics and messages.
func (m *endpoint) role() string { return cmp.Or(m.info.Role, "unknown") }

// label is its name in messages.
func (m *endpoint) label() string {
	if m.info.Instance == "" || m.info.Instance == m.Name {
		return m.role() + " " + m.Name
	}
	return m.role() + " " + m.info.Instance + " (" + m.Name + ")"
}

func (q *Querier) run(ctx context.Context) {
	tick := time.NewTicker(pollTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			q.poll(ctx)
		}
	}
}

// poll asks every endpoint that is new, due, or did not answer last time, all at once, and replaces the snapshot.
func (q *Querier) poll(ctx context.Context) {
	old := map[string]*endpoint{}
	for _, m := range q.snapshot.Load().endpoints {
		old[m.Name] = m
	}
	var next []*endpoint
	var wg sync.WaitGroup
	for _, e := range q.endpoints() {
		was := old[e.Name]
		m := &endpoint{Endpoint: e, info: e.Known, silent: new(atomic.Bool)}
		if was != nil {
			*m = *was
			m.Endpoint = e
			if !m.heard { // discovery may know more of it by now, such as a gateway's bucket
				m.info = e.Known
			}
		}
		next = append(next, m)
		if was == nil || was.down() != nil || q.now().Sub(was.checked) >= q.opts.InfoInterval {
			wg.Go(func() { q.ask(ctx, m) })
		}
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	slices.SortStableFunc(next, func(a, b *endpoint) int { return cmp.Compare(a.Name, b.Name) })
	q.m.endpoints.Reset()
	for _, m := range next {
		state := "up"
		if m.err != nil {
			state = "down"
		}
		q.m.endpoints.WithLabelValues(m.role(), state).Inc()
		q.logChange(old[m.Name], m)
	}
	q.snapshot.Store(newSnapshot(next))
}

// ask polls m and fills it in. No other goroutine sees m yet.
func (q *Querier) ask(ctx context.Context, m *endpoint) {
	ctx, cancel := context.WithTimeout(ctx, q.opts.InfoTimeout)
	defer cancel()
	info, err := m.Source.Info(ctx)
	if m.err, m.checked = err, q.now(); err == nil {
		m.info, m.heard, m.heardAt = info, true, m.checked
		m.silent.Store(false)
	}
	m.gone = m.checked.Sub(m.heardAt)
}

// latest is what m may hold by now. A store that does not answer may still take new samples, so its maximum time grows.
func (m *endpoint) latest() series.Info {
	info := m.info
	if m.err != nil && m.heard && info.MaxTime >= info.MinTime {
		info.MaxTime = shift(info.MaxTime, m.gone)
	}
	return info
}

func (q *Querier) logChange(was, is *endpoint) {
	switch {
	case is.err != nil && (was == nil || was.err == nil):
		q.log.Warn("endpoint does not answer", "endpoint", is.Name, "role", is.role(), "err", is.err)
	case is.err == nil && (was == nil || was.err != nil):
		q.log.Info("endpoint answers", "endpoint", is.Name, "role", is.role(), "instance", is.info.Instance)
	}
}
