package receive

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	askBatch   = 4096 // blocks that one call asks about
	askTimeout = 5 * time.Second
)

// ask asks all live gateways for the blocks that are not known to be served, and remembers those that are.
func (d *Drainer) ask() {
	d.mu.Lock()
	ids, was := d.unserved(), d.asked
	d.mu.Unlock()
	gateways := d.gateways()
	responses := make([]response, len(gateways))
	var wg sync.WaitGroup
	for i, g := range gateways {
		wg.Go(func() { responses[i] = d.askOne(g, ids) })
	}
	wg.Wait()
	left := unservedBy(ids, responses)
	d.mu.Lock()
	for _, id := range ids {
		d.served[id] = true
	}
	for _, id := range left {
		delete(d.served, id)
	}
	d.asked = len(gateways)
	d.mu.Unlock()
	if len(gateways) == 0 && was != 0 {
		d.log.Warn("no store gateway is known: this member stays readable until the deadline", "blocks", len(left))
	}
}

// askOne asks one gateway, in calls of bounded size.
func (d *Drainer) askOne(g Gateway, ids []ulid.ULID) response {
	r := response{stays: !g.Draining}
	for batch := range slices.Chunk(ids, askBatch) {
		ctx, cancel := context.WithTimeout(d.ctx, askTimeout)
		states, err := g.States(ctx, batch)
		cancel()
		if err != nil {
			d.log.Debug("gateway did not say what it serves", "gateway", g.Name, "err", err)
			return response{stays: r.stays}
		}
		r.states = append(r.states, states...)
	}
	return r
}
