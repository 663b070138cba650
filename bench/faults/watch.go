package main

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// point is what was seen at one time.
type point struct {
	at          time.Time
	distributor int64            // resident bytes
	resident    int64            // of all processes
	stored      [members]float64 // samples stored since the start, over restarts
}

// watch looks at memory and at what each member stores, twice a second.
type watch struct {
	c      *cluster
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	points []point
	stored [members]float64
	last   [members]float64 // counter as it was read last
}

const watchEvery = 500 * time.Millisecond

func startWatch(c *cluster) *watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{c: c, cancel: cancel}
	w.done.Go(func() { every(ctx, w.look) })
	for i := range members {
		w.done.Go(func() { every(ctx, func() { w.count(ctx, i) }) })
	}
	return w
}

func every(ctx context.Context, f func()) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}

func (w *watch) stop() {
	w.cancel()
	w.done.Wait()
}

func (w *watch) look() {
	p := point{at: time.Now()}
	w.c.mu.Lock()
	for _, n := range w.c.nodes() {
		u, err := n.process.Usage()
		if err != nil {
			continue // it is down, as a fault wants it
		}
		p.resident += u.Resident
		if n == w.c.distributor {
			p.distributor = u.Resident
		}
	}
	w.c.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	p.stored = w.stored
	w.points = append(w.points, p)
}

// count reads what member i has stored. One that does not answer has stored nothing more.
func (w *watch) count(ctx context.Context, i int) {
	n, err := metric(ctx, w.c.receivers[i], "prometheus_tsdb_head_samples_appended_total")
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n < w.last[i] { // it began anew
		w.last[i] = 0
	}
	w.stored[i] += n - w.last[i]
	w.last[i] = n
}

// metric is the sum of a metric's series that n shows.
func metric(ctx context.Context, n *node, name string) (sum float64, err error) {
	err = get(ctx, "http://"+n.http+"/metrics", func(resp *http.Response) error {
		text, err := io.ReadAll(resp.Body)
		if err == nil {
			sum, err = server.SumOf(text, name)
		}
		return err
	})
	return sum, err
}

// between gives the points of [from, to).
func (w *watch) between(from, to time.Time) []point {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []point
	for _, p := range w.points {
		if !p.at.Before(from) && p.at.Before(to) {
			out = append(out, p)
		}
	}
	return out
}

// share is how much member i stored over some points, as a part of what the others did on average.
func share(points []point, i int) float64 {
	if len(points) < 2 {
		return 0
	}
	first, last := points[0], points[len(points)-1]
	others := 0.0
	for m := range members {
		if m != i {
			others += (last.stored[m] - first.stored[m]) / (members - 1)
		}
	}
	if others == 0 {
		return 0
	}
	return (last.stored[i] - first.stored[i]) / others
}
