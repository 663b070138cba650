package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// allActive has all tenants open, with full chunks, and restarts them.
func allActive(ctx context.Context, o options, tenants int, note func(string, *receiver,
	time.Duration) error) (err error) {
	r, err := newReceiver(o, "--tsdb.idle-timeout=0s", "--tsdb.block-duration=12h") // nothing is cut meanwhile
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	took, err := r.start(ctx)
	if err != nil {
		return err
	}
	if err := note("started, empty", r, took); err != nil {
		return err
	}
	const step = 15 * time.Second
	at := time.Now().Add(-time.Duration(o.rounds+20) * step)
	round := func(n int, what string) error {
		var took time.Duration
		for range n {
			if took, err = r.round(ctx, 0, tenants, at); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			at = at.Add(step)
		}
		return note(what, r, took)
	}
	if err := round(1, "first sample of each series: all tenants are made"); err != nil {
		return err
	}
	if err := round(1, "second sample"); err != nil {
		return err
	}
	if err := round(max(0, o.rounds-2), fmt.Sprintf("%d samples of each series", o.rounds)); err != nil {
		return err
	}
	began := time.Now()
	if err := server.Pause(ctx, 70*time.Second); err != nil { // full chunks are mapped once a minute
		return err
	}
	if err := note("full chunks mapped", r, time.Since(began)); err != nil {
		return err
	}
	if o.profile != "" {
		profile, err := r.get(ctx, "/debug/pprof/heap?gc=1")
		if err = errors.Join(err, os.WriteFile(o.profile, profile, 0o644)); err != nil {
			return err
		}
	}
	r.p.Kill()
	if took, err = r.start(ctx); err != nil {
		return fmt.Errorf("start after kill -9: %w", err)
	}
	if err := note("started after kill -9, all logs replayed", r, took); err != nil {
		return err
	}
	if err := round(2, "another sample"); err != nil {
		return err
	}
	if err := r.restart(ctx, note); err != nil {
		return err
	}
	return round(2, "another sample")
}

// mostlyIdle writes to some tenants all the time, and to the others once; those are closed. files is how many the
// process may open (0 = not known). The others come in waves, each when enough tenants of the wave before are closed.
func mostlyIdle(
	ctx context.Context, o options, files int, note func(string, *receiver, time.Duration) error,
) (err error) {
	const timeout = 20 * time.Second
	most := affordable(o.active+o.idle, files, filesPerTenant+filesPerBlock) // what goes idle is cut before it is closed
	wave := min(500, o.idle, most-o.active)
	if wave < 1 {
		return fmt.Errorf("a process may open %d files here, enough for %d tenants: too few for %d active ones and others",
			files, most, o.active)
	}
	r, err := newReceiver(o, "--tsdb.idle-timeout="+timeout.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	took, err := r.start(ctx)
	if err != nil {
		return err
	}
	if err := note("started, empty", r, took); err != nil {
		return err
	}
	busy := func() (time.Duration, error) { return r.round(ctx, 0, o.active, time.Now()) }
	began := time.Now()
	for from := 0; from < o.idle; from += wave {
		if _, err := r.round(ctx, o.active+from, o.active+min(from+wave, o.idle), time.Now()); err != nil {
			return err
		}
		if err := r.await(ctx, busy, func(s state) bool { return int(s.open)+wave <= most }); err != nil {
			return fmt.Errorf("wait for idle tenants to be closed: %w", err)
		}
	}
	if err := note("all tenants have been written to", r, time.Since(began)); err != nil {
		return err
	}
	closed := func(s state) bool { return int(s.idle) == o.idle && int(s.open) == o.active }
	if err := r.await(ctx, busy, closed); err != nil {
		return fmt.Errorf("wait for idle tenants to be closed: %w", err)
	}
	if err := note("the idle ones are closed", r, time.Since(began)); err != nil {
		return err
	}
	for range 20 {
		if _, err := busy(); err != nil {
			return err
		}
		if err := server.Pause(ctx, timeout/10); err != nil {
			return err
		}
	}
	if took, err = busy(); err != nil {
		return err
	}
	if err := note("a minute later; a round of the active ones", r, took); err != nil {
		return err
	}
	if err := r.reopen(ctx, min(o.idle, reopened), note); err != nil {
		return err
	}
	r.p.Kill()
	if took, err = r.start(ctx); err != nil {
		return fmt.Errorf("start after kill -9: %w", err)
	}
	if err := note("started after kill -9", r, took); err != nil {
		return err
	}
	return r.restart(ctx, note)
}

// reopened is how many closed tenants are written to again.
const reopened = 100

// reopen writes to n closed tenants, one after another: the answer comes when the tenant is open and has the sample.
func (r *receiver) reopen(ctx context.Context, n int, note func(string, *receiver, time.Duration) error) error {
	before, err := r.state(ctx)
	if err != nil {
		return err
	}
	began, each := time.Now(), make([]time.Duration, n)
	for i := range each {
		first := r.opts.active + i*r.opts.idle/n
		if each[i], err = r.round(ctx, first, first+1, time.Now()); err != nil {
			return err
		}
	}
	took := time.Since(began)
	after, err := r.state(ctx)
	if err != nil {
		return err
	}
	if int(after.open-before.open) != n {
		return fmt.Errorf("%d closed tenants were written to, and %.0f more are open", n, after.open-before.open)
	}
	slices.Sort(each)
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	return note(fmt.Sprintf("%d closed ones written to, one after another: p50 %.1f ms, worst %.1f ms", n, ms(each[n/2]),
		ms(each[n-1])), r, took)
}

// restart stops the process in good order and starts it.
func (r *receiver) restart(ctx context.Context, note func(string, *receiver, time.Duration) error) error {
	began := time.Now()
	if err := r.p.Stop(r.opts.patience); err != nil {
		return err
	}
	stopped := time.Since(began)
	took, err := r.start(ctx)
	if err != nil {
		return fmt.Errorf("start after a stop: %w", err)
	}
	return note(fmt.Sprintf("stopped within %.1f s, started from snapshots", stopped.Seconds()), r, took)
}

// await keeps the active tenants busy until done.
func (r *receiver) await(ctx context.Context, busy func() (time.Duration, error), done func(state) bool) error {
	var last state
	return server.Poll(ctx, r.opts.patience, func(ctx context.Context) (err error) {
		if _, err := busy(); err != nil {
			return err
		}
		if last, err = r.state(ctx); err != nil || done(last) {
			return err
		}
		if err := server.Pause(ctx, 2*time.Second); err != nil {
			return err
		}
		return fmt.Errorf("%.0f tenants are open and %.0f are closed", last.open, last.idle)
	})
}
