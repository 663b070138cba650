package rpc

import (
	"context"
	"sync"

	grpcpeer "google.golang.org/grpc/peer"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxWriteStreams is how many write streams one connection may have open. A sender has one, and aged ones that wait for
// their last responses. A proxy may carry the streams of several senders on one connection.
const maxWriteStreams = 64

// streamCounter counts the write streams of each connection, each of which may hold a frame that waits for memory. The
// zero value is ready.
type streamCounter struct {
	mu   sync.Mutex // guards open
	open map[string]int
}

// enter counts one more stream of the caller's connection, until leave is called.
func (c *streamCounter) enter(ctx context.Context) (leave func(), err error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return func() {}, nil
	}
	from := p.Addr.String()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[from] >= maxWriteStreams {
		return nil, errs.E(errs.Exhausted,
			"%s has %d write streams open already, which is as many as one connection may have", from, maxWriteStreams)
	}
	if c.open == nil {
		c.open = map[string]int{}
	}
	c.open[from]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open[from]--; c.open[from] == 0 {
			delete(c.open, from)
		}
	}, nil
}
