package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// gcPace keeps memory in proportion to what is done with it. The garbage collector lets garbage grow to as much as
// there is memory in use. Thousands of small tenants are mostly memory that never changes, and a process with them
// would take twice of it. So for what open tenants take whatever they hold, garbage may be only a quarter. A GOGC that
// is set wins.
type gcPace struct {
	log   *slog.Logger
	still func() int64 // bytes that never change

	stop context.CancelFunc
	wg   sync.WaitGroup
}

const (
	gcDefault = 100 // percent
	gcLeast   = 25
	gcEvery   = 2 * time.Second
)

// gcPercent is how much garbage there may be, in percent of live bytes; still of these never change.
func gcPercent(live, still int64) int {
	if live <= 0 {
		return gcDefault
	}
	still = min(still, live)
	garbage := (live-still)*gcDefault + still*gcLeast
	return int(min(max(garbage/live, gcLeast), gcDefault))
}

// Open begins to look after the garbage collector.
func (g *gcPace) Open(context.Context, func(error)) error {
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	if os.Getenv("GOGC") == "" {
		g.wg.Go(func() { g.run(ctx) })
	}
	return nil
}

func (g *gcPace) run(ctx context.Context) {
	tick := time.NewTicker(gcEvery)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := gcDefault; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(live)
		next := gcPercent(int64(live[0].Value.Uint64()), g.still())
		if diff := next - now; diff > 4 || diff < -4 { // setting it stops the world
			debug.SetGCPercent(next)
			g.log.Debug("garbage collector", "percent", next)
			now = next
		}
	}
}

// Close leaves it as it is.
func (g *gcPace) Close() error {
	if g.stop != nil {
		g.stop()
		g.wg.Wait()
	}
	return nil
}
