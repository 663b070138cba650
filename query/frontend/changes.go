package frontend

import (
	"context"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	// freshFor is for how long it counts what was heard of changes: an answer may lack a sample that is that old.
	freshFor = time.Second
	// askTimeout bounds the question what has changed.
	askTimeout = 5 * time.Second
	// clockSlack is how far the clock of this process may be ahead of that of a receiver.
	clockSlack = time.Minute
	// foreignAge is how old samples must be before an answer about them is kept, where a source does not say when
	// samples arrive. Prometheus ships a block when it is about 3 h old.
	foreignAge = 3 * time.Hour
	// mostHeard is for how many tenants and hours it is kept what was heard.
	mostHeard = 10_000
)

// changes knows what has changed of the samples of tenants.
type changes struct {
	source series.ArrivalSource
	now    func() time.Time

	mu    sync.Mutex // guards heard
	heard map[changeKey]*heard
}

// changeKey is what was asked: the changes of a tenant since an hour, in Unix ms.
type changeKey struct {
	id   tenant.ID
	hour int64
}

// heard is what a source said. Only done may be looked at before it is closed.
type heard struct {
	done chan struct{}
	at   time.Time // when it was asked
	series.Arrivals
	foreign bool // some source does not say when samples arrive
	err     error
}

func newChanges(source series.ArrivalSource, now func() time.Time) *changes {
	return &changes{source: source, now: now, heard: map[changeKey]*heard{}}
}

// since returns what has changed of the samples of a tenant since a time in Unix ms. It is at most freshFor old.
func (c *changes) since(ctx context.Context, id tenant.ID, since int64) (*heard, error) {
	k := changeKey{id, series.HourOf(since)}
	c.mu.Lock()
	h := c.heard[k]
	if h == nil || c.now().Sub(h.at) > freshFor {
		if len(c.heard) >= mostHeard {
			clear(c.heard)
		}
		h = &heard{done: make(chan struct{}), at: c.now()}
		c.heard[k] = h
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		go func() {
			defer cancel()
			defer close(h.done)
			h.Arrivals, h.err = c.source.Arrivals(asking, id, k.hour)
			if errs.KindOf(h.err) == errs.Unsupported {
				h.foreign, h.err = true, nil
			}
		}()
	}
	c.mu.Unlock()
	select {
	case <-h.done:
		return h, h.err
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Unavailable, ctx.Err())
	}
}

// known is what is known of the samples of a request.
type known struct {
	asked   int64 // the time, in Unix ms, up to which changes are known
	settled int64 // samples up to this time, in Unix ms, change only with a notice
	all     []*heard
}

// of returns what is known of the samples of tenants since a time, in Unix ms. ok is false if it is not known what
// has changed.
func (c *changes) of(ctx context.Context, tenants []tenant.ID, since int64) (k known, ok bool) {
	k.asked = c.now().Add(-clockSlack).UnixMilli()
	foreign := false
	for _, id := range tenants {
		h, err := c.since(ctx, id, since)
		if err != nil {
			return k, false
		}
		k.all = append(k.all, h)
		k.asked = min(k.asked, h.at.Add(-clockSlack).UnixMilli())
		foreign = foreign || h.foreign
	}
	k.settled = k.asked - series.DelayedAfter.Milliseconds()
	if foreign {
		k.settled = k.asked - foreignAge.Milliseconds()
	}
	return k, true
}

// changed reports whether samples between two times, both in Unix ms, may have changed since an entry was asked.
func (k known) changed(mint, maxt, asked int64) bool {
	for _, h := range k.all {
		if !h.foreign && h.MayHaveChanged(mint, maxt, asked) {
			return true
		}
	}
	return false
}
