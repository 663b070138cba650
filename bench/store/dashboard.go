package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// loaded is what one dashboard cost that many clients asked for again and again.
type loaded struct {
	gateway  gateway.Kind
	storage  storage
	panels   int // calls, of all clients
	took     time.Duration
	p50, p99 time.Duration  // of one call
	cpu      float64        // s, of all calls
	requests gateway.Counts // to the bucket, of all calls
	peak     int64          // bytes
	fault    error
}

// dashboard is one call for each metric of one tenant over a day.
func dashboard(p blocks.Plan) []query {
	mint, maxt := p.LastDay()
	var out []query
	for metric := range p.Shape.Metrics {
		out = append(out, query{series: &thanospb.SeriesRequest{MinTime: mint, MaxTime: maxt,
			Matchers: matchers("tenant_id", blocks.Tenant(3), "__name__", blocks.MetricName(metric))}})
	}
	return out
}

// measureDashboards lets clients ask for the dashboard at once, after it was asked for once.
func (b *bed) measureDashboards(ctx context.Context, rep *report) error {
	var faults []error
	for _, s := range b.storages() {
		if !b.wanted(fmt.Sprintf("dashboard, %s", s)) {
			continue
		}
		at, err := b.small(ctx, b.opts.blocks[0])
		if err != nil {
			return err
		}
		if _, err := b.index(ctx, at, true); err != nil {
			faults = append(faults, err)
		}
		for _, k := range b.opts.kinds() {
			out := loaded{gateway: k, storage: s}
			if out.fault = b.load(ctx, at, &out); out.fault != nil {
				faults = append(faults, fmt.Errorf("dashboard, %s: %w", k, out.fault))
			}
			fmt.Fprintf(b.log, "  %s\n", out)
			rep.loaded = append(rep.loaded, out)
		}
	}
	return errors.Join(faults...)
}

func (b *bed) load(ctx context.Context, at bucket, out *loaded) (err error) {
	dir := filepath.Join(b.opts.data, "gateway")
	g, err := b.launch(out.gateway, b.config(out.storage, at), dir, cacheFlags(out.gateway)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Stop(), os.RemoveAll(dir)) }()
	if err := g.WaitReady(ctx, b.opts.deadline); err != nil {
		return err
	}
	all := dashboard(at.plan)
	if _, err := client(ctx, g, all, 1); err != nil {
		return err
	}
	before, err := b.meter(ctx, g, out.storage)
	if err != nil {
		return err
	}
	profiled := b.profile(ctx, g, "dashboard-"+string(out.storage))
	began := time.Now()
	took := make([][]time.Duration, b.opts.clients)
	work, workCtx := errgroup.WithContext(ctx)
	for i := range took {
		work.Go(func() (err error) {
			took[i], err = client(workCtx, g, all, b.opts.rounds)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	out.took = time.Since(began)
	after, err := b.meter(ctx, g, out.storage)
	if err != nil {
		return err
	}
	each := slices.Concat(took...)
	slices.Sort(each)
	out.panels, out.p50, out.p99 = len(each), each[len(each)/2], each[len(each)*99/100]
	out.cpu, out.requests, out.peak = after.cpu-before.cpu, after.counts.Sub(before.counts), after.peak
	return <-profiled
}

// client asks for all panels, one after another, that many times, and gives how long each call took.
func client(ctx context.Context, g *gateway.Gateway, all []query, rounds int) (took []time.Duration, err error) {
	c, err := gateway.Dial(g.GRPC)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for range rounds {
		for _, q := range all {
			began := time.Now()
			answer, _, err := q.ask(ctx, c)
			if err != nil {
				return nil, err
			}
			if len(answer.Series) == 0 {
				return nil, errors.New("an empty answer")
			}
			took = append(took, time.Since(began))
		}
	}
	return took, nil
}
