package store

import (
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// Viewed is what a gateway knows of its bucket.
type Viewed struct {
	// View is the last one. Nobody may change it.
	View block.View
	// Served are the blocks of it that this gateway serves, in no order.
	Served []*block.Meta
	// At is when the bucket was listed; zero = not yet.
	At time.Time
}

// Viewed returns what the gateway knows of its bucket at present.
func (g *Gateway) Viewed() Viewed {
	g.mu.RLock()
	now := g.current
	g.mu.RUnlock()
	if now == nil {
		return Viewed{}
	}
	v := Viewed{View: now.view}
	if at := g.lookedAt.Load(); at != nil {
		v.At = *at
	}
	for _, p := range now.planned {
		if p.place != elsewhere && p.fault == nil {
			v.Served = append(v.Served, p.meta)
		}
	}
	return v
}
