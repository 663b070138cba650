package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// clients keeps one gRPC client per address and role for the life of the process. None is closed earlier: a member may
// come back, and a client without calls has no connection.
type clients struct {
	opts rpc.ClientOptions
	// sidecarTenant is whose the series of a Thanos sidecar at an address are; nil = the default tenant's. It is set
	// before the first call of get.
	sidecarTenant func(addr string) tenant.ID

	mu     sync.Mutex // guards what follows
	byName map[target]*rpc.Client
	owners map[string]tenant.ID // by address, the last that was known
}

// target has its own client. An address may be given to another pod, whose sidecar is another tenant's.
type target struct {
	addr, role string
	owner      tenant.ID
}

// owner is whose the series of a Thanos sidecar at addr are. An address that its name has just lost keeps its tenant,
// so that no series are shown to the default tenant meanwhile. mu is held.
func (c *clients) owner(addr string) tenant.ID {
	if c.sidecarTenant == nil {
		return ""
	}
	id := c.sidecarTenant(addr)
	if id == "" {
		return c.owners[addr]
	}
	c.owners[addr] = id
	return id
}

// newClients adds the clients to the process. Their connections end when it stops.
func newClients(b *builder, opts rpc.ClientOptions, cl *cluster) *clients {
	opts.Instance, opts.Log, opts.Observer = cl.instance.ID, b.log, b.observer
	c := &clients{opts: opts, byName: map[target]*rpc.Client{}, owners: map[string]tenant.ID{}}
	b.add("clients", c.open, c.close)
	return c
}

// open makes a client that is never used, so that wrong TLS files stop the start and not the first write.
func (c *clients) open(context.Context, func(error)) error {
	probe, err := rpc.Dial("localhost:1", c.opts)
	if err != nil {
		return fmt.Errorf("--grpc-client-tls-*: %w", err)
	}
	return probe.Close()
}

// get dials without waiting for a connection. role "" stands for all that is at addr.
func (c *clients) get(addr, role string) (*rpc.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := target{addr, role, c.owner(addr)}
	if have := c.byName[t]; have != nil {
		return have, nil
	}
	opts := c.opts
	opts.Role, opts.SidecarTenant = role, t.owner
	made, err := rpc.Dial(addr, opts)
	if err != nil {
		return nil, err
	}
	c.byName[t] = made
	return made, nil
}

// source is what a querier asks at addr; role "" stands for all that is there.
func (c *clients) source(addr, role string) (series.Source, error) {
	client, err := c.get(addr, role)
	return client, err
}

// writer is how the distributor reaches a member.
func (c *clients) writer(m ring.Member) (distributor.Writer, error) {
	client, err := c.get(m.Addr, "")
	return sharedWriter{client}, err
}

// sharedWriter hides Close: the client stays when a member leaves the ring.
type sharedWriter struct{ distributor.Ordered }

func (c *clients) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []error
	for _, client := range c.byName {
		all = append(all, client.Close())
	}
	clear(c.byName)
	return errors.Join(all...)
}
