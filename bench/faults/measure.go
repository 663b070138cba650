package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// measurement is what one fault did.
type measurement struct {
	fault                 fault
	before, during, after window
	// part of its samples that the member stored during the fault, and once it was back
	stored, caughtUp      float64
	grew, grewDistributor int64         // resident bytes: the most since the fault began, above the most before
	back                  time.Duration // since the fault ended, at most; 0 = not within the time
}

func (m measurement) failed() int   { return m.during.failed + m.after.failed }
func (m measurement) requests() int { return m.during.requests + m.after.requests }

func (m measurement) problem() string {
	if m.during.problem != "" {
		return m.during.problem
	}
	return m.after.problem
}

func (m measurement) backAfter() string {
	if m.back == 0 {
		return "never"
	}
	return fmt.Sprintf("%.1f s", m.back.Seconds())
}

const (
	inService = 0.9             // of what the others store: the member is back
	calmAgain = 5 * time.Second // that still belong to the fault once the member is back
)

// measure measures before, during and after one fault.
func measure(ctx context.Context, o options, f fault, c *cluster, l *load, w *watch) (measurement, error) {
	m, n := measurement{fault: f}, c.receivers[f.member]
	calm := time.Now()
	if err := server.Pause(ctx, o.calm); err != nil {
		return m, err
	}
	began := time.Now()
	if err := f.begin(c, n); err != nil {
		return m, fmt.Errorf("begin: %w", err)
	}
	ended := time.Now()
	if f.end != nil {
		if err := server.Pause(ctx, o.lasts); err != nil {
			return m, err
		}
		ended = time.Now()
		if err := f.end(c, n); err != nil {
			return m, fmt.Errorf("end: %w", err)
		}
	}
	for m.back == 0 && time.Since(ended) < o.recovered {
		if err := server.Pause(ctx, watchEvery); err != nil {
			return m, err
		}
		now := time.Now()
		if from := now.Add(-3 * watchEvery); from.After(ended) && share(w.between(from, now), f.member) >= inService {
			m.back = now.Sub(ended)
		}
	}
	if err := server.Pause(ctx, min(calmAgain, o.calm)); err != nil {
		return m, err
	}
	if err := server.Poll(ctx, o.recovered, c.nothingWaits); err != nil && ctx.Err() != nil {
		return m, err
	} // one that still waits shows in what the member has
	if err := server.Pause(ctx, 2*watchEvery); err != nil {
		return m, err
	}
	over := time.Now()
	m.before = l.window(calm, began)
	m.during, m.after = l.window(began, ended), l.window(ended, over)
	if f.end == nil {
		m.during, m.after = m.after, window{}
	}
	m.stored, m.caughtUp = share(w.between(began, ended), f.member), share(w.between(began, over), f.member)
	all, distributor := most(w.between(calm, began))
	nowAll, nowDistributor := most(w.between(began, over))
	m.grew, m.grewDistributor = nowAll-all, nowDistributor-distributor
	return m, nil
}

// nothingWaits is an error while the distributor keeps copies that some member missed.
func (c *cluster) nothingWaits(ctx context.Context) error {
	n, err := metric(ctx, c.distributor, "hearth_distributor_replica_retry_length")
	if err == nil && n > 0 {
		err = fmt.Errorf("%.0f copies wait for another try", n)
	}
	return err
}

// most resident bytes of all processes, and of the distributor.
func most(points []point) (all, distributor int64) {
	for _, p := range points {
		all, distributor = max(all, p.resident), max(distributor, p.distributor)
	}
	return all, distributor
}
