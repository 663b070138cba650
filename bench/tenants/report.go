package main

import (
	"fmt"
	"io"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// report is everything that the page says of a run.
type report struct {
	opts    options
	machine server.Machine
	version string
	began   time.Time
	files   int // that a process may open
	tenants int // of the first run
	all     []row
	mixed   []row
}

// row is one step of a run, and what the receiver took after it.
type row struct {
	step string
	took time.Duration
	state
}

func (r row) String() string {
	return fmt.Sprintf("%s: %.1f s; %.0f open, %.0f closed; %d MiB resident (peak %d), %.0f MiB heap in use; %.0f "+
		"files, %.0f goroutines",
		r.step, r.took.Seconds(), r.open, r.idle, r.resident>>20, r.peak>>20, r.heap/(1<<20), r.files, r.goroutines)
}

func (r report) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("Measured %s with Hearth %s, on %s.", r.began.UTC().Format("2006-01-02 15:04 MST"), r.version, r.machine)
	if r.machine.Busy() {
		line("**Provisional**: the machine was busy with other work as the run began.")
	}
	line("Arguments:%s. One `hearth receive` without a bucket, %d series of each tenant. Memory is the resident set.\n",
		r.opts.arguments, r.opts.series)
	table := func(rows []row) {
		line("| step | took | tenants open / closed | resident, MiB | peak | heap in use | per open tenant, KiB | open " +
			"files | per tenant | goroutines |")
		line("|---|---|---|---|---|---|---|---|---|---|")
		empty := rows[0].state
		for _, s := range rows {
			each := func(n, without float64) string {
				if s.open == 0 {
					return "-"
				}
				return fmt.Sprintf("%.1f", (n-without)/s.open)
			}
			line("| %s | %.1f s | %.0f / %.0f | %d | %d | %.0f | %s | %.0f | %s | %.0f |", s.step,
				s.took.Seconds(), s.open, s.idle, s.resident>>20, s.peak>>20, s.heap/(1<<20),
				each(float64(s.resident>>10), float64(empty.resident>>10)), s.files, each(s.files, empty.files), s.goroutines)
		}
	}
	if len(r.all) > 0 {
		line("### %d tenants, all active\n", r.tenants)
		table(r.all)
		r.reckon(line)
	}
	if len(r.mixed) > 0 {
		line("\n### %d active tenants, %d that are not written to\n", r.opts.active, r.opts.idle)
		table(r.mixed)
	}
}

// reckon says what all tenants would have taken, where there could not be as many.
func (r report) reckon(line func(string, ...any)) {
	if r.tenants >= r.opts.tenants {
		return
	}
	empty, most := r.all[0].state, r.all[0].state
	for _, s := range r.all {
		if s.resident > most.resident {
			most = s.state
		}
	}
	n := float64(r.opts.tenants) / float64(r.tenants)
	line("\n%d of %d tenants, as a process may open %d files here. In proportion, %d would take %.1f GiB, and %d "+
		"files with a tenth to spare.",
		r.tenants, r.opts.tenants, r.files, r.opts.tenants,
		(float64(empty.resident)+n*float64(most.resident-empty.resident))/(1<<30), r.opts.tenants*filesPerTenant*10/9)
}
