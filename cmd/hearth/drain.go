package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/receive"
	"github.com/hearth-metrics/hearth/ring"
)

// drainFlags say how a member leaves for good.
type drainFlags struct {
	opts   receive.DrainOptions
	onStop bool
}

func (f *drainFlags) bind(c *kingpin.CmdClause) {
	f.opts = receive.DefaultDrainOptions()
	c.Flag("drain-on-stop", "A signal to stop drains this member: it hands its data over and leaves the ring. Without "+
		"it a stop is a restart in place. A second signal stops at once.").
		BoolVar(&f.onStop)
	durationFlag(c, "drain.timeout", "How long a drain waits for the bucket and for store gateways.", &f.opts.Timeout)
}

// draining is what a drain concerns.
type draining struct {
	cluster  *cluster
	clients  *clients
	bucket   *bucket // nil = there is none
	receiver *receive.Receiver
}

// possible is the error that says why the member cannot be drained.
func (m draining) possible() error {
	switch {
	case m.cluster.static != nil:
		return errs.E(errs.Conflict, "a hashring file places series here: take this member out of the file instead")
	case !m.cluster.gossips:
		return errs.E(errs.Conflict, "this process is alone: there is nobody to leave to (--gossip.join names others)")
	case m.bucket == nil:
		return errs.E(errs.Conflict, "there is no bucket to leave the data in (--objstore.config names one)")
	}
	return nil
}

// build adds the drain of a member, and returns the route that begins it. refuse makes that route refuse everybody.
func (f *drainFlags) build(b *builder, m draining, refuse bool) []httpx.Route {
	route := func(h http.HandlerFunc) []httpx.Route {
		return []httpx.Route{{Pattern: "/ring/drain", Class: httpx.Operator, Handler: h}}
	}
	if err := m.possible(); err != nil {
		if f.onStop {
			b.check(fmt.Errorf("--drain-on-stop: %w", err))
		}
		return route(func(w http.ResponseWriter, r *http.Request) { httpx.WriteError(w, r, err) })
	}
	f.opts.Refuse, f.opts.Left = refuse, b.end
	d, err := receive.NewDrainer(b.log, b.reg, m.receiver, memberRing{m.cluster}, m.gateways, f.opts)
	if err != nil {
		b.check(fmt.Errorf("--drain.timeout: %w", err))
	}
	b.addPart("drain", d.Open, d.Close, nil)
	if f.onStop {
		b.onStop(d.Begin)
	}
	return route(d.HandleDrain)
}

// gateways are the live store gateways of other processes. A gateway that has stopped does not count: it looks at the
// bucket again when it starts.
func (m draining) gateways() []receive.Gateway {
	var all []receive.Gateway
	for _, g := range m.cluster.gateways(m.clients) {
		if g.ID != m.cluster.self.ID {
			all = append(all, receive.Gateway{Name: g.ID, Draining: g.Leaves, States: g.States})
		}
	}
	return all
}

// memberRing is this member's place on the gossiped ring of receivers.
type memberRing struct{ c *cluster }

// others is how many other receivers take writes.
func (m memberRing) others() int {
	active := 0
	for _, r := range m.c.members(series.RoleReceive) {
		if r.ID != m.c.self.ID && r.State == ring.Active {
			active++
		}
	}
	return active
}

// Spare is an error while the other receivers are too few for a quorum.
func (m memberRing) Spare() error {
	others, need := m.others(), ring.Quorum(m.c.rf)
	if others < need {
		return errs.E(errs.Conflict, "%d other receivers are active, and a write needs %d", others, need)
	}
	return nil
}

// Consequence implements receive.Ring.
func (m memberRing) Consequence() string { return consequence(m.others(), m.c.rf) }

// consequence says what the next failure does to a cluster of n receivers with rf copies of each series. It is "" when
// there are enough receivers for all copies.
func consequence(n, rf int) string {
	quorum := ring.Quorum(rf)
	if n >= rf || n < quorum {
		return ""
	}
	text := fmt.Sprintf("%d receivers stay for %d copies of each series, so there are %d copies: ", n, rf, n)
	if spare := n - quorum; spare > 0 {
		return text + fmt.Sprintf("writes fail when more than %d of them are away; add a receiver to have %d copies again",
			spare, rf)
	}
	return text + fmt.Sprintf("writes fail (503) as soon as one of them is away; add a receiver first, or soon, to "+
		"have %d copies again", rf)
}

// SetReadOnly implements receive.Ring.
func (m memberRing) SetReadOnly(ctx context.Context) error { return m.c.gossip.SetReadOnly(ctx) }

// Leave implements receive.Ring.
func (m memberRing) Leave(ctx context.Context, drained bool) error {
	return m.c.gossip.Leave(ctx, drained)
}
