package rpc

import (
	"sync"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// tenantQueues runs the work of one stream. The work of one tenant runs in order, one piece after the other. Several
// tenants run side by side. Without the order, samples of one series would change places when shards follow each other
// closely.
type tenantQueues struct {
	mu     sync.Mutex             // guards queues and closed
	queues map[tenant.ID][]func() // a tenant is in the map while a goroutine runs its work
	closed bool
	wg     sync.WaitGroup // the goroutines
}

func newTenantQueues() *tenantQueues { return &tenantQueues{queues: map[tenant.ID][]func(){}} }

// add queues work for tenant id. After close it queues nothing and returns false.
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

// run runs a tenant's queue until it is empty.
func (l *tenantQueues) run(id tenant.ID) {
	for {
		l.mu.Lock()
		queue := l.queues[id]
		if len(queue) == 0 {
			delete(l.queues, id)
			l.mu.Unlock()
			return
		}
		l.queues[id] = nil // the entry stays, and says that this goroutine runs
		l.mu.Unlock()
		for _, work := range queue {
			work()
		}
	}
}

// close refuses further work and waits until the queues are empty.
func (l *tenantQueues) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
}
