package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// report is everything that the page says of a run.
type report struct {
	opts     options
	machine  server.Machine
	began    time.Time
	versions map[string]string
	cases    []testCase
	passes   []pass
}

func newReport(ctx context.Context, o options) *report {
	r := &report{opts: o, machine: server.ThisMachine(), began: time.Now(), versions: map[string]string{}}
	for name, path := range o.binaries {
		if path == "" {
			continue
		}
		r.versions[name] = server.Peer{Path: path}.Version(ctx)
	}
	return r
}

func (r *report) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("Measured %s, in %s, on %s.", r.began.UTC().Format("2006-01-02 15:04 MST"),
		time.Since(r.began).Round(time.Minute), r.machine)
	if r.machine.Busy() {
		line("**Provisional**: the machine was busy with other work as the run began. Memory, disk, requests and bytes do " +
			"not suffer from that, CPU little, times much.")
	}
	line("Arguments:%s.\n", r.opts.arguments)
	line("| compactor | version |\n|---|---|")
	for _, name := range programs {
		if r.opts.binaries[name] != "" {
			line("| %s | %s |", name, r.versions[name])
		}
	}
	line("\n| bucket | compactor | CPU s | of Thanos's | s | peak RSS MiB | scratch disk MiB | read MiB | written MiB" +
		" | requests | blocks left by resolution, ms | their MiB |")
	line("|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, p := range r.passes {
		if p.fault != nil {
			line("| %s | %s | no figures: %s ||||||||||", p.testCase, p.program, server.Cell(p.fault.Error()))
			continue
		}
		requests := "-"
		if p.requests.ByKind != nil {
			requests = fmt.Sprintf("%.0f (%s)", p.requests.Total(), p.requests)
		}
		line("| %s | %s | **%.2f** | %s | %.1f | %d | %d | %d | %d | %s | %s | %d |", p.testCase, p.program, p.cpu,
			r.ratio(p), p.took.Seconds(), p.peak>>20, p.scratch>>20, p.read>>20, p.written>>20, requests,
			strings.TrimPrefix(fmt.Sprint(p.content.Blocks), "map"), p.content.Bytes>>20)
	}
	line("")
	for _, c := range r.cases {
		line("- %s: %s.", c.name, c.about)
	}
}

// ratio is the CPU time of p as a part of Thanos's in the same case.
func (r *report) ratio(p pass) string {
	for _, other := range r.passes {
		if other.testCase == p.testCase && other.program == "thanos" && other.fault == nil && other.cpu > 0 {
			return fmt.Sprintf("%.2f", p.cpu/other.cpu)
		}
	}
	return "-"
}
