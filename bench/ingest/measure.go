package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// figures of one peer in one case.
type figures struct {
	FirstCPU   float64 // s per million samples, while the series are created
	CPU        float64 // s per million samples, steady
	Rate       float64 // samples/s, steady
	P50, P99   time.Duration
	Peak       int64   // resident bytes of all processes
	PerSeries  float64 // Peak per series in memory
	Disk       float64 // bytes per sample while it runs: WAL, and what else there is
	Blocks     float64 // bytes per sample once flushed
	Stored     float64 // part of the samples that were accepted, over all copies that were to be made
	Dropped    float64 // copies that were given up, each of one request for one member
	Requests   int
	Failed     int
	FirstFault string
}

// result is one peer in one case.
type result struct {
	peer     server.Peer
	bench    benchCase
	rounds   []figures
	wire     float64  // bytes per sample
	commands []string // how its processes were started
	err      error    // why there are no figures
}

// measureAll runs every case with every peer that can, round by round, and reports progress to log.
func measureAll(ctx context.Context, o options, peers []server.Peer, log io.Writer) ([]*result, error) {
	var out []*result
	for _, c := range casesOf(o) {
		fmt.Fprintf(log, "%s\n", c.name)
		rec, err := record(c.load, preparing+c.scrapes)
		if err != nil {
			return nil, err
		}
		var results []*result
		for _, p := range peers {
			if (p.V2 || !c.load.V2) && (p.Replicates || c.members == 1) {
				results = append(results, &result{peer: p, bench: c, wire: rec.wire})
			}
		}
		for round := range c.rounds {
			for _, r := range results {
				if errors.Is(r.err, errNotStored) {
					continue
				}
				f, err := r.run(ctx, o, rec, round)
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				if err != nil {
					r.err = errors.Join(r.err, err)
					fmt.Fprintf(log, "  %-16s %v\n", r.peer.Name, err)
					continue
				}
				r.rounds = append(r.rounds, f)
				fmt.Fprintf(log, "  %-16s %.2f CPU s per million, %.0f samples/s, %.0f copies dropped, %d failed %s\n",
					r.peer.Name, f.CPU, f.Rate, f.Dropped, f.Failed, f.FirstFault)
			}
		}
		out = append(out, results...)
	}
	return out, nil
}

// leastStored is the part of the accepted samples below which figures would mean nothing.
const leastStored = 0.9

// errNotStored is the error of a server that acknowledges samples and does not store them.
var errNotStored = errors.New("requests succeeded, but their samples are not stored")

// run is one round of one peer.
func (r *result) run(ctx context.Context, o options, rec *recording, round int) (f figures, err error) {
	c, err := server.Launch(ctx, r.peer, r.bench.members)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r.commands = nil
	for _, p := range c.Processes {
		r.commands = append(r.commands, p.CommandLine(c.Dir))
	}
	before, err := c.Stored(ctx)
	if err != nil {
		return f, err
	}
	p := player{cluster: c, rec: rec, senders: r.bench.senders}
	first, err := p.play(ctx, 0, 1, o.settle/2)
	if err != nil {
		return f, err
	}
	warm, err := p.play(ctx, 1, preparing, 0)
	if err != nil {
		return f, err
	}
	profiled := r.profile(ctx, o, c, round)
	steady, err := p.play(ctx, preparing, preparing+r.bench.scrapes, o.settle)
	if err = errors.Join(err, <-profiled); err != nil {
		return f, err
	}
	stored, err := c.Stored(ctx)
	if err != nil {
		return f, err
	}
	f = r.bench.figures(first, warm, steady, stored-before)
	if f.Dropped, err = c.Dropped(ctx); err != nil {
		return f, err
	}
	if f.Stored < leastStored {
		return f, fmt.Errorf("%d of %d %w: %.1f %% are", f.Requests-f.Failed, f.Requests, errNotStored, f.Stored*100)
	}
	if round == 0 && !r.bench.memory {
		err = f.disk(ctx, c, first.accepted+warm.accepted+steady.accepted)
	}
	return f, err
}

// played is what some scrapes cost.
type played struct {
	outcome
	cpu  float64 // s
	peak int64   // bytes, at their end
}

// player plays a recording to a cluster.
type player struct {
	cluster *server.Cluster
	rec     *recording
	senders int
}

// play sends the scrapes [from, to) and lets the servers settle.
func (p player) play(ctx context.Context, from, to int, settle time.Duration) (out played, err error) {
	before, err := p.cluster.Usage()
	if err != nil {
		return out, err
	}
	if out.outcome, err = replay(ctx, p.rec, p.cluster.WriteURLs, p.senders, from, to); err != nil {
		return out, err
	}
	pause(ctx, settle)
	after, err := p.cluster.Usage()
	out.cpu, out.peak = after.CPU-before.CPU, after.Peak
	return out, err
}

// figures of one round, in which stored samples came to be.
func (c benchCase) figures(first, warm, steady played, stored float64) figures {
	all := first.outcome
	all.add(warm.outcome)
	all.add(steady.outcome)
	return figures{
		FirstCPU: first.cpu / millions(first.accepted), CPU: steady.cpu / millions(steady.accepted),
		Rate: float64(steady.accepted) / steady.took.Seconds(),
		P50:  quantile(steady.latencies, 0.5), P99: quantile(steady.latencies, 0.99),
		Peak: steady.peak, PerSeries: float64(steady.peak) / float64(c.load.Created(preparing+c.scrapes)),
		Stored:   stored / float64(max(1, all.accepted*c.members)),
		Requests: all.requests, Failed: all.failed, FirstFault: all.firstFailure,
	}
}

// disk measures what the samples take on disk, before and after a flush.
func (f *figures) disk(ctx context.Context, c *server.Cluster, samples int) error {
	running, err := c.DiskBytes()
	if err != nil {
		return err
	}
	flushed, err := c.Flush(ctx)
	f.Disk, f.Blocks = float64(running)/float64(max(1, samples)), float64(flushed)/float64(max(1, samples))
	return err
}

// profileSeconds is how long a CPU profile is taken, from the first steady request.
const profileSeconds = 5

// profile takes a profile of Hearth in the first round when it was asked for. The channel gives one error or nil.
func (r *result) profile(ctx context.Context, o options, c *server.Cluster, round int) <-chan error {
	done := make(chan error, 1)
	if o.profile == "" || round > 0 || r.peer.Name != "hearth" {
		done <- nil
		return done
	}
	name := strings.NewReplacer(", ", "-", " ", "", "%", "", "=", "").Replace(r.bench.name)
	go func() { done <- c.Profile(ctx, o.profile, name, profileSeconds) }()
	return done
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func millions(samples int) float64 { return float64(max(1, samples)) / 1e6 }

// median of what pick gives of each round; of what only some rounds measure, that.
func (r *result) median(pick func(figures) float64) float64 {
	var all []float64
	for _, f := range r.rounds {
		if v := pick(f); v > 0 {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
