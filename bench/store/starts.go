package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// start is one gateway's start on one bucket.
type start struct {
	gateway  gateway.Kind
	storage  storage
	disk     string // empty or warm
	index    string // "with", "without"; "-" and "- (lazy)" for a gateway that knows none, see thanosStart
	ready    time.Duration
	first    time.Duration  // to the first correct answer, from the start
	before   gateway.Counts // until it is ready
	answer   gateway.Counts // of the first answer
	cpu      float64        // s, until the first answer
	resident int64          // bytes, when it is ready and nothing was asked
	peak     int64          // bytes, at the first answer
	sync     gateway.Counts // of one look at a bucket in which nothing is new
	syncCPU  float64        // s
	flags    []string       // that the gateway needs beside its defaults
	fault    error
}

// thanosStart is how Thanos is started on a bucket of n blocks. By default it keeps a file of each block open: a bucket
// of more blocks than a process may have files ends it. There it opens headers at their first use.
func thanosStart(s storage, n int) (start, error) {
	out := start{gateway: gateway.Thanos, storage: s, index: "-"}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return out, err
	}
	if uint64(n) > limit.Max/2 {
		out.index, out.flags = "- (lazy)", []string{"--store.enable-index-header-lazy-reader"}
	}
	return out, nil
}

// measureStarts measures the starts of all gateways on a bucket of n small blocks.
func (b *bed) measureStarts(ctx context.Context, n int, rep *report) error {
	var faults []error
	for _, s := range b.storages() {
		if !b.wanted(fmt.Sprintf("start, %d blocks, %s", n, s)) {
			continue
		}
		at, err := b.small(ctx, n)
		if err != nil {
			return err
		}
		for _, k := range b.opts.kinds() {
			if k == gateway.Thanos {
				one, err := thanosStart(s, n)
				if err != nil {
					return err
				}
				faults = append(faults, b.startTwice(ctx, rep, at, one))
				continue
			}
			for _, present := range []bool{false, true} {
				can, err := b.index(ctx, at, present)
				if err != nil || !can {
					faults = append(faults, err)
					continue
				}
				word := map[bool]string{false: "without", true: "with"}[present]
				faults = append(faults, b.startTwice(ctx, rep, at, start{gateway: k, storage: s, index: word}))
			}
		}
	}
	return errors.Join(faults...)
}

// startTwice starts a gateway with an empty disk, and again with what it left there. Only the first measures a sync.
func (b *bed) startTwice(ctx context.Context, rep *report, at bucket, like start) error {
	dir := filepath.Join(b.opts.data, "gateway")
	var faults []error
	for _, disk := range []string{"empty", "warm"} {
		one := like
		one.disk = disk
		one.fault = b.startOnce(ctx, &one, at, dir)
		if one.fault != nil {
			faults = append(faults, fmt.Errorf("%s, %s, %s disk: %w", at.name, one.gateway, disk, one.fault))
		}
		fmt.Fprintf(b.log, "  %s\n", one)
		rep.starts[at.name] = append(rep.starts[at.name], one)
		if one.fault != nil {
			break
		}
	}
	return errors.Join(append(faults, os.RemoveAll(dir))...)
}

// syncInterval is short, so that a steady look at the bucket can be measured.
const syncInterval = 10 * time.Second

func (b *bed) startOnce(ctx context.Context, out *start, at bucket, dir string) (err error) {
	before := gateway.Counts{}
	if out.storage == onS3 {
		before = b.S3.Counts()
	}
	began := time.Now()
	flags := append(slices.Clone(out.flags), "--sync-block-duration="+syncInterval.String())
	g, err := b.launch(out.gateway, b.config(out.storage, at), dir, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	profiled := b.profile(ctx, g, fmt.Sprintf("start-%s-%s-%s-index", at.name, out.disk, out.index))
	if err := g.WaitReady(ctx, b.opts.deadline); err != nil {
		so, failed := b.meter(ctx, g, out.storage)
		if failed != nil {
			return errors.Join(err, failed)
		}
		return fmt.Errorf("after %.0f CPU s, %d MiB at most, and %s: %w", so.cpu, so.peak>>20, so.counts.Sub(before), err)
	}
	out.ready = time.Since(began)
	usage, err := g.Process.Usage()
	if err != nil {
		return err
	}
	out.resident = usage.Resident
	ready, err := b.counts(ctx, out.storage, g)
	if err != nil {
		return err
	}
	out.before = ready.Sub(before)
	if err := firstAnswer(ctx, g, at.plan, b.opts.deadline); err != nil {
		return err
	}
	out.first = time.Since(began)
	answered, err := b.counts(ctx, out.storage, g)
	if err != nil {
		return err
	}
	out.answer = answered.Sub(ready)
	if usage, err = g.Process.Usage(); err != nil {
		return err
	}
	out.cpu, out.peak = usage.CPU, usage.Peak
	if out.disk == "empty" {
		err = b.steady(ctx, out, g)
	}
	if errors.Is(err, errNoLook) { // what was measured before is good
		fmt.Fprintf(b.log, "  %s: no look at the bucket within %s\n", out.gateway, b.opts.deadline)
		err = nil
	}
	return errors.Join(err, <-profiled)
}

// firstAnswer asks until the answer is right, at most until deadline: one tenant's series of one metric over a day, or
// all there is if less.
func firstAnswer(ctx context.Context, g *gateway.Gateway, p blocks.Plan, deadline time.Duration) error {
	c, err := gateway.Dial(g.GRPC)
	if err != nil {
		return err
	}
	defer c.Close()
	mint, maxt := p.LastDay()
	req := &thanospb.SeriesRequest{MinTime: mint, MaxTime: maxt, Matchers: matchers("tenant_id", blocks.Tenant(7),
		"__name__", blocks.MetricName(0))}
	wantSamples := int((maxt+1-mint)/p.Interval.Milliseconds()) * p.Shape.Namespaces * p.Shape.Pods
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		answer, err := c.Series(ctx, req)
		if err == nil {
			var samples int
			samples, err = answer.Samples()
			if n := len(answer.Joined()); err == nil && (samples != wantSamples || n != p.Shape.Namespaces*p.Shape.Pods) {
				err = fmt.Errorf("%d series and %d samples, want %d and %d", n, samples, p.Shape.Namespaces*p.Shape.Pods,
					wantSamples)
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no correct answer: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

var errNoLook = errors.New("no look at the bucket in time")

// steady measures one look at the bucket, from the end of one to the end of the next.
func (b *bed) steady(ctx context.Context, out *start, g *gateway.Gateway) error {
	next := func() (counts gateway.Counts, cpu float64, err error) {
		at, err := g.Syncs(ctx)
		if err != nil {
			return counts, 0, err
		}
		deadline := time.Now().Add(b.opts.deadline)
		for now := at; now == at; {
			if time.Now().After(deadline) {
				return counts, 0, errNoLook
			}
			select {
			case <-ctx.Done():
				return counts, 0, ctx.Err()
			case <-time.After(time.Second): // each look at the page of metrics costs the gateway CPU
			}
			if now, err = g.Syncs(ctx); err != nil {
				return counts, 0, err
			}
		}
		if counts, err = b.counts(ctx, out.storage, g); err != nil {
			return counts, 0, err
		}
		usage, err := g.Process.Usage()
		return counts, usage.CPU, err
	}
	before, cpu, err := next()
	if err != nil {
		return err
	}
	after, cpuAfter, err := next()
	if err != nil {
		return err
	}
	out.sync, out.syncCPU = after.Sub(before), cpuAfter-cpu
	return nil
}

// matchers are equality matchers of names and values that alternate.
func matchers(pairs ...string) []*thanospb.LabelMatcher {
	var out []*thanospb.LabelMatcher
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, &thanospb.LabelMatcher{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}
