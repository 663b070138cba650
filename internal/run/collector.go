package run

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Collector sets how often the garbage collector runs. By default Go lets garbage grow to the size of the memory in
// use. In a process with thousands of small tenants most of that memory never changes, and the process would take
// twice of it. So garbage may be only a quarter of the part that never changes. A GOGC in the environment wins.
type Collector struct {
	log   *slog.Logger
	fixed func() int64

	stop context.CancelFunc
	wg   sync.WaitGroup
}

const (
	collectorDefault  = 100 // percent of the memory in use
	collectorLeast    = 25
	collectorInterval = 2 * time.Second
	collectorStep     = 4 // percent; a smaller change is not worth stopping the world for
)

// NewCollector makes a Collector. fixed tells how many bytes of the memory in use never change; it may be called from
// any goroutine.
func NewCollector(log *slog.Logger, fixed func() int64) *Collector {
	return &Collector{log: log, fixed: fixed}
}

// garbagePercent is how much garbage there may be, in percent of the live bytes. fixed of these never change.
func garbagePercent(live, fixed int64) int {
	if live <= 0 {
		return collectorDefault
	}
	fixed = min(fixed, live)
	garbage := (live-fixed)*collectorDefault + fixed*collectorLeast
	return int(min(max(garbage/live, collectorLeast), collectorDefault))
}

// Open begins to set the garbage collector.
func (c *Collector) Open(context.Context, func(error)) error {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	if os.Getenv("GOGC") == "" {
		c.wg.Go(func() { c.run(ctx) })
	}
	return nil
}

func (c *Collector) run(ctx context.Context) {
	tick := time.NewTicker(collectorInterval)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := collectorDefault; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(live)
		next := garbagePercent(int64(live[0].Value.Uint64()), c.fixed())
		if diff := next - now; diff > collectorStep || diff < -collectorStep {
			debug.SetGCPercent(next)
			c.log.Debug("garbage collector", "percent", next)
			now = next
		}
	}
}

// Close stops that. The garbage collector keeps the last setting.
func (c *Collector) Close() error {
	if c.stop != nil {
		c.stop()
		c.wg.Wait()
	}
	return nil
}
