package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// report is everything that the page says of a run.
type report struct {
	opts    options
	machine server.Machine
	version string
	began   time.Time
	skipped []string
	rows    []measurement
}

func (r report) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	o := r.opts
	line("Measured %s with Hearth %s, on %s.", r.began.UTC().Format("2006-01-02 15:04 MST"), r.version, r.machine)
	if r.machine.Busy() {
		line("**Provisional**: the machine was busy with other work as the run began.")
	}
	line("Arguments:%s.\n", o.arguments)
	rate := float64(o.series) / o.interval.Seconds()
	line("One distributor, three receivers, RF=3. %d series of two tenants, %.0f samples/s in %.0f requests/s. "+
		"Faults last %s.\n", o.series, rate, rate/float64(o.request), o.lasts)
	line("| fault | p50 / p99 before, ms | p50 / p99 during | p99 ratio | worst during | p99 after | failed | copies " +
		"meanwhile | copies with retries | memory, MiB | of the distributor | back within |")
	line("|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, m := range r.rows {
		line("| %s | %s / %s | %s / %s | **%.1fx** | %s | %s | **%d** of %d | %s | %.0f %% | %s | %s | %s |", m.fault.name,
			ms(m.before.p50), ms(m.before.p99), ms(m.during.p50), ms(m.during.p99),
			float64(m.during.p99)/float64(max(1, m.before.p99)), ms(m.during.worst), ms(m.after.p99),
			m.failed(), m.requests(), meanwhile(m), m.caughtUp*100, mib(m.grew), mib(m.grewDistributor), m.backAfter())
	}
	line("")
	for _, m := range r.rows {
		text := fmt.Sprintf("- %s: %s.", m.fault.name, m.fault.what)
		if p := m.problem(); p != "" {
			text += " First failure: `" + strings.ReplaceAll(p, "`", "'") + "`."
		}
		line("%s", text)
	}
	if len(r.skipped) > 0 {
		line("\nSkipped, because they need root: %s.", strings.Join(r.skipped, ", "))
	}
}

// meanwhile is nothing for a fault that is over as it begins.
func meanwhile(m measurement) string {
	if m.fault.end == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", m.stored*100)
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", d.Seconds()*1e3)
}

func mib(bytes int64) string { return fmt.Sprintf("%+.0f", float64(bytes)/(1<<20)) }
