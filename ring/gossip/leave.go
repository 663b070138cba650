package gossip

import (
	"context"
	"errors"
	"time"

	dring "github.com/grafana/dskit/ring"
)

// SetReadOnly takes this member out of the placement: it gets no new series and is still read. This lasts until the
// process ends; after a restart it takes writes again. The error is errs.Unavailable before Open.
func (g *Gossip) SetReadOnly(ctx context.Context) error {
	if err := g.available(); err != nil {
		return err
	}
	g.mu.Lock()
	g.wanted.ReadOnly = true
	g.wanted.ReadOnlyUpdatedTimestamp = g.opts.Now().Unix()
	g.mu.Unlock()
	return errors.Join(g.writeEntries(ctx), g.publishSelf(ctx))
}

// Leave takes this member off the ring for good and ends its incarnation. drained says that the store gateways serve
// all its blocks, so nothing is missing without it. The caller must still call Close. A process that is started again
// with the same directory joins as a member again. The error is errs.Unavailable before Open.
func (g *Gossip) Leave(ctx context.Context, drained bool) error {
	if err := g.available(); err != nil {
		return err
	}
	g.mu.Lock()
	g.silent = true
	g.wanted.State = dring.LEFT
	g.mu.Unlock()
	if len(g.opts.Roles) == 0 {
		return nil
	}
	err := g.edit(ctx, func(c *cluster, now time.Time) bool {
		ended := c.endAll(g.opts.Instance.ID, now.Unix(), drained, now, g.opts.HistoryRetention)
		return c.leave(g.opts.Instance.ID, now) || ended
	})
	if err := errors.Join(err, g.writeEntries(ctx)); err != nil {
		return err
	}
	g.log.Info("left the ring", "instance", g.opts.Instance.ID, "drained", drained)
	return nil
}

// announceLeaving marks this member as stopping and expected back. If this does not reach the others they see it soon
// anyway: its heartbeat grows old.
func (g *Gossip) announceLeaving(ctx context.Context) {
	g.mu.Lock()
	quiet := g.silent
	g.silent = true
	g.wanted.State = dring.LEAVING
	g.mu.Unlock()
	if quiet {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := g.writeEntries(ctx); err != nil {
		g.log.Warn("leaving not written", "err", err)
	}
}

// writeEntries writes all ring entries of this process now.
func (g *Gossip) writeEntries(ctx context.Context) error {
	var faults []error
	for _, role := range g.opts.Roles {
		faults = append(faults, g.writeEntry(ctx, role))
	}
	g.refresh(ctx)
	return errors.Join(faults...)
}
