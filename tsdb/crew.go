package tsdb

import (
	"context"
	"runtime"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// crew keeps transactions that are not in use, with a goroutine each: a transaction may hang in a head (wedge.go), and
// whoever waits for it must be able to leave it behind. A goroutine of its own for each call would cost more than a small
// transaction itself. The zero value is ready.
type crew struct {
	mu     sync.Mutex // guards what follows
	idle   []*transaction
	closed bool
}

// job is one transaction to run.
type job struct {
	ctx   context.Context
	shard wire.Shard
	end   func() // called before the outcome is told
}

// get returns a transaction whose goroutine waits for a job.
func (c *crew) get() *transaction {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		tx := c.idle[n-1]
		c.idle = c.idle[:n-1]
		return tx
	}
	tx := &transaction{builder: labels.NewScratchBuilder(16), jobs: make(chan job), done: make(chan error, 1)}
	go tx.serve()
	return tx
}

// put takes a transaction that is through with its job.
func (c *crew) put(tx *transaction) {
	tx.reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= 4*runtime.GOMAXPROCS(0) {
		tx.leave()
		return
	}
	c.idle = append(c.idle, tx)
}

// close ends the goroutines of transactions that are not in use, now and later.
func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tx := range c.idle {
		tx.leave()
	}
	c.idle, c.closed = nil, true
}

func (tx *transaction) serve() {
	for j := range tx.jobs {
		err := tx.survive(j.ctx, j.shard)
		j.end()
		tx.done <- err
	}
}

// leave ends the transaction's goroutine, once what it does is done.
func (tx *transaction) leave() { close(tx.jobs) }
