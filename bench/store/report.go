package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/bench/server"
)

// report is everything that the page says of a run.
type report struct {
	opts     options
	machine  server.Machine
	versions map[gateway.Kind]string
	began    time.Time
	starts   map[string][]start // by bucket
	asked    map[string][]asked // by bucket
	loaded   []loaded
	skipped  []string
}

func newReport(ctx context.Context, o options) *report {
	r := &report{opts: o, machine: server.ThisMachine(), began: time.Now(), versions: map[gateway.Kind]string{},
		starts: map[string][]start{}, asked: map[string][]asked{}}
	for k, path := range o.binaries {
		r.versions[k] = server.Peer{Path: path}.Version(ctx)
	}
	return r
}

func (r *report) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("Measured %s, in %s, on %s.", r.began.UTC().Format("2006-01-02 15:04 MST"),
		time.Since(r.began).Round(time.Minute), r.machine)
	if r.machine.Busy() {
		line("**Provisional**: the machine was busy with other work as the run began. Requests and bytes do not suffer " +
			"from that, CPU little, times much.")
	}
	line("Arguments:%s.\n", r.opts.arguments)
	if len(r.skipped) > 0 {
		line("Left out, as the time was over: %s.\n", strings.Join(r.skipped, "; "))
	}
	line("| gateway | version |\n|---|---|")
	for _, k := range r.opts.kinds() {
		line("| %s | %s |", k, r.versions[k])
	}
	for _, name := range slices.Sorted(maps.Keys(r.starts)) {
		line("\n### Start, bucket %s\n", name)
		line("| gateway | storage | index object | disk | ready s | first answer s | CPU s | RSS when ready MiB | peak MiB" +
			" | requests until ready | of the first answer | MiB read | one steady sync: requests | CPU s |")
		line("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
		for _, s := range r.starts[name] {
			if s.fault != nil {
				line("| %s | %s | %s | %s | no figures: %s |||||||||", s.gateway, s.storage, s.index, s.disk,
					server.Cell(s.fault.Error()))
				continue
			}
			line("| %s | %s | %s | %s | %.2f | **%.2f** | %.2f | %d | %d | **%.0f** (%s) | %.0f (%s) | %.1f | %s | %.2f |",
				s.gateway, s.storage, s.index, s.disk, s.ready.Seconds(), s.first.Seconds(), s.cpu, s.resident>>20,
				s.peak>>20, s.before.Total(), s.before, s.answer.Total(), s.answer,
				(s.before.Bytes+s.answer.Bytes)/(1<<20), known(s.sync), s.syncCPU)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.asked)) {
		line("\n### Queries of %s\n", name)
		line("| query | storage | gateway | series | samples | cold ms | cold CPU ms | cold requests | cold KiB read" +
			" | warm ms | warm CPU ms | warm requests |")
		line("|---|---|---|---|---|---|---|---|---|---|---|---|")
		all := slices.Clone(r.asked[name])
		slices.SortStableFunc(all, func(a, b asked) int {
			return strings.Compare(string(a.storage)+a.query, string(b.storage)+b.query)
		})
		for _, a := range all {
			if a.fault != "" {
				line("| %s | %s | %s | no figures: %s |||||||||", a.query, a.storage, a.gateway, server.Cell(a.fault))
				continue
			}
			line("| %s | %s | %s | %d | %d | %.1f | %.0f | %.0f (%s) | %.0f | %.1f | **%.1f** | %.1f |", a.query,
				a.storage, a.gateway, a.series, a.samples, ms(a.cold), a.coldCPU*1e3, a.coldRequests.Total(),
				a.coldRequests, a.coldRequests.Bytes/1024, ms(a.warm), a.warmCPU*1e3, a.warmRequests.Total())
		}
	}
	if len(r.loaded) > 0 {
		line("\n### One dashboard, %d clients\n", r.opts.clients)
		line("| storage | gateway | calls | calls/s | p50 ms | p99 ms | CPU ms a call | bucket requests | peak MiB |")
		line("|---|---|---|---|---|---|---|---|---|")
		for _, l := range r.loaded {
			if l.fault != nil {
				line("| %s | %s | no figures: %s |||||||", l.storage, l.gateway, server.Cell(l.fault.Error()))
				continue
			}
			line("| %s | %s | %d | %.0f | %.1f | %.1f | **%.2f** | %.0f | %d |", l.storage, l.gateway, l.panels,
				float64(l.panels)/l.took.Seconds(), ms(l.p50), ms(l.p99), l.cpu*1e3/float64(l.panels), l.requests.Total(),
				l.peak>>20)
		}
	}
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func known(c gateway.Counts) string {
	if c.ByKind == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f (%s)", c.Total(), c)
}

func (s start) String() string {
	if s.fault != nil {
		return fmt.Sprintf("%s, index %s, %s disk: %v", s.gateway, s.index, s.disk, s.fault)
	}
	return fmt.Sprintf("%s, index %s, %s disk: %.2f s to the first answer, %.2f CPU s, %d MiB, %.0f requests (%s); "+
		"sync %s", s.gateway, s.index, s.disk, s.first.Seconds(), s.cpu, s.resident>>20, s.before.Total(), s.before,
		known(s.sync))
}

func (a asked) String() string {
	return fmt.Sprintf("%s: %s: %d series; cold %.1f ms, %.0f requests, %.0f KiB; warm %.1f ms, %.1f CPU ms, "+
		"%.1f requests %s", a.gateway, a.query, a.series, ms(a.cold), a.coldRequests.Total(), a.coldRequests.Bytes/1024,
		ms(a.warm), a.warmCPU*1e3, a.warmRequests.Total(), a.fault+a.differs)
}

func (l loaded) String() string {
	if l.fault != nil {
		return fmt.Sprintf("%s: %v", l.gateway, l.fault)
	}
	return fmt.Sprintf("%s: %d calls, p50 %.1f ms, p99 %.1f ms, %.2f CPU ms each, %.0f requests", l.gateway, l.panels,
		ms(l.p50), ms(l.p99), l.cpu*1e3/float64(l.panels), l.requests.Total())
}

// profileSeconds is how long a CPU profile is taken.
const profileSeconds = 10

// profile takes a CPU profile of Hearth when one was asked for. The channel gives one error or nil.
func (b *bed) profile(ctx context.Context, g *gateway.Gateway, name string) <-chan error {
	done := make(chan error, 1)
	if b.opts.profile == "" || g.Kind != gateway.Hearth {
		done <- nil
		return done
	}
	go func() {
		const listening = 10 * time.Second // until then it may not listen
		path := filepath.Join(b.opts.profile, name+".pprof")
		done <- server.Poll(ctx, listening+profileSeconds*time.Second, func(ctx context.Context) error {
			return server.CPUProfile(ctx, g.HTTP, path, profileSeconds)
		})
	}()
	return done
}
