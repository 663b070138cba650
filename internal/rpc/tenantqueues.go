package rpc

import (
	"sync"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// lanes runs the work of one stream: that of one tenant in order, one after the other, that of several tenants side by
// side. The order keeps samples of one series in order when shards follow each other closely.
type tenantQueues struct {
	mu     sync.Mutex // guards queues and closed
	queues map[tenant.ID][]func()
	closed bool
	wg     sync.WaitGroup
}

func newTenantQueues() *tenantQueues { return &tenantQueues{queues: map[tenant.ID][]func(){}} }

// add queues work for tenant id. It is false, and nothing is queued, after close.
func (l *tenantQueues) add(id tenant.ID, work func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	queue, running := l.queues[id]
	l.queues[id] = append(queue, work)
	if !running {
		l.wg.Go(func() { l.run(id) })
	}
	return true
}

// run works a tenant's queue off and ends when it is empty.
func (l *tenantQueues) run(id tenant.ID) {
	for {
		l.mu.Lock()
		queue := l.queues[id]
		if len(queue) == 0 {
			delete(l.queues, id)
			l.mu.Unlock()
			return
		}
		l.queues[id] = nil // taken; the entry says that this goroutine runs
		l.mu.Unlock()
		for _, work := range queue {
			work()
		}
	}
}

// close refuses further work and waits for what was queued.
func (l *tenantQueues) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
}
