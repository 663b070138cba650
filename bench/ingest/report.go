package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// report is everything that the page says of a run.
type report struct {
	opts     options
	machine  server.Machine
	peers    []server.Peer
	versions map[string]string
	absent   []string
	began    time.Time
	results  []*result
}

func newReport(ctx context.Context, o options, peers []server.Peer, absent []string) *report {
	r := &report{opts: o, machine: server.ThisMachine(), peers: peers, versions: map[string]string{}, absent: absent,
		began: time.Now()}
	for _, p := range peers {
		r.versions[p.Name] = p.Version(ctx)
	}
	return r
}

// faults are Hearth's: cases without figures, and requests that failed. Those of peers are for the page alone.
func (r *report) faults() error {
	var err error
	for _, res := range r.results {
		if res.peer.Name != "hearth" {
			continue
		}
		if res.err != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", res.bench.name, res.err))
		}
		for _, f := range res.rounds {
			if f.Failed > 0 {
				err = errors.Join(err, fmt.Errorf("%s: %d of %d requests failed: %s", res.bench.name, f.Failed, f.Requests,
					f.FirstFault))
			}
		}
	}
	return err
}

func (r *report) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("Measured %s, in %s, on %s.", r.began.UTC().Format("2006-01-02 15:04 MST"),
		time.Since(r.began).Round(time.Minute), r.machine)
	if r.machine.Busy() {
		line("**Provisional**: the machine was busy with other work as the run began. CPU per sample suffers little " +
			"from that, rates and latencies much.")
	}
	line("Arguments:%s.\n", r.opts.arguments)
	line("| server | version | settings |\n|---|---|---|")
	for _, p := range r.peers {
		line("| %s | %s | %s |", p.Name, r.versions[p.Name], p.Settings)
	}
	if len(r.absent) > 0 {
		line("\nSkipped, because the folder of peers has no such binary: %s.", strings.Join(r.absent, ", "))
	}
	for i := 0; i < len(r.results); {
		n := i
		for n < len(r.results) && r.results[n].bench.name == r.results[i].bench.name {
			n++
		}
		writeCase(w, r.results[i:n])
		i = n
	}
	line("\n### Command lines\n\nIn a fresh directory each. `ADDRESS` stands for a free loopback port.\n\n```")
	seen := map[string]bool{}
	for _, res := range r.results {
		key := fmt.Sprint(res.peer.Name, res.bench.members)
		if len(res.commands) > 0 && !seen[key] {
			seen[key] = true
			line("%s", server.HidePorts(res.commands[len(res.commands)-1]))
		}
	}
	line("```")
}

// writeCase is the table of one case.
func writeCase(w io.Writer, results []*result) {
	c := results[0].bench
	fmt.Fprintf(w, "\n### %s\n\n%d scrapes, %d round(s), %.0f bytes per sample on the wire.\n\n", c.name, c.scrapes,
		c.rounds, results[0].wire)
	fmt.Fprintln(w, "| server | CPU s per million samples | range | of Hearth's | samples/s | p50 ms | p99 ms | CPU "+
		"s/M, first scrape | peak RSS MiB | RSS B/series | disk B/sample | blocks B/sample | stored | copies dropped | "+
		"failed |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	base := 0.0
	for _, r := range results {
		if len(r.rounds) == 0 {
			fmt.Fprintf(w, "| %s | no figures: %s ||||||||||||||\n", r.peer.Name, firstLine(r.err))
			continue
		}
		cpu := func(f figures) float64 { return f.CPU }
		median := r.median(cpu)
		if r.peer.Name == "hearth" {
			base = median
		}
		lowest, highest := math.Inf(1), 0.0
		requests, failed, dropped := 0, 0, 0.0
		for _, f := range r.rounds {
			lowest, highest = min(lowest, f.CPU), max(highest, f.CPU)
			requests, failed, dropped = requests+f.Requests, failed+f.Failed, dropped+f.Dropped
		}
		ms := func(pick func(figures) time.Duration) float64 {
			return r.median(func(f figures) float64 { return pick(f).Seconds() * 1e3 })
		}
		fmt.Fprintf(w, "| %s | **%.2f** | %.2f-%.2f | %s | %s | %.1f | %.1f | %.2f | %.0f | %.0f | %s | %s | %.1f %% | "+
			"%.0f | %d of %d |\n", r.peer.Name, median, lowest, highest,
			ratio(median, base), thousands(int(r.median(func(f figures) float64 { return f.Rate }))),
			ms(func(f figures) time.Duration { return f.P50 }), ms(func(f figures) time.Duration { return f.P99 }),
			r.median(func(f figures) float64 { return f.FirstCPU }),
			r.median(func(f figures) float64 { return float64(f.Peak) })/(1<<20),
			r.median(func(f figures) float64 { return f.PerSeries }),
			known(r.median(func(f figures) float64 { return f.Disk })),
			known(r.median(func(f figures) float64 { return f.Blocks })),
			r.median(func(f figures) float64 { return f.Stored * 100 }),
			dropped, failed, requests)
	}
}

func ratio(v, base float64) string {
	if base == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fx", v/base)
}

func known(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", v)
}

func firstLine(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.ReplaceAll(line, "|", "/")
}
