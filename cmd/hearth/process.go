package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/version"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/run"
	"github.com/hearth-metrics/hearth/internal/secret"
)

// process is what all roles share: the log, the metrics, the readiness, the listeners, and the parts in their order.
type process struct {
	role   string            // the command
	flags  map[string]string // as they were parsed, by name; for showing, without secrets
	log    *slog.Logger
	reg    *prometheus.Registry
	health *httpx.Health
	stdout io.Writer
	start  time.Time
	group  run.Group

	// as it may be shown: the command, and the flags that are not at their default, wherever they are from
	commandLine []string

	listeners []*httpx.Server
	ports     []port        // all that listen, and what each asks of its callers
	serving   chan struct{} // closed once every part is open
	after     []func()      // run then

	auth *httpx.Auth // nil = users are not told apart

	reloads []func() error // see onReload
	// whether the files that were read last are valid, and when they were; nil = there are none
	reloaded func() (bool, time.Time)

	ctx   context.Context // the process's life; end ends it
	end   func()
	drain func() error // what a signal begins before it ends the process; nil = nothing
}

func newProcess(app *kingpin.Application, command string, stdout, stderr io.Writer) *process {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		versioncollector.NewCollector("hearth"),
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsScheduler,
			collectors.MetricsGC)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	flags := flagValuesOf(app, command)
	log := newLogger(stderr, flags["log.level"], flags["log.format"])
	if name := flags["debug.name"]; name != "" {
		log = log.With("name", name)
	}
	ctx, end := context.WithCancel(context.Background())
	return &process{
		ctx: ctx, end: end, role: command, flags: flags, commandLine: commandLineOf(app, command), log: log, reg: reg,
		health: &httpx.Health{}, stdout: stdout, start: time.Now(), serving: make(chan struct{}),
	}
}

// obey ends the process at the first signal or, where that one begins a drain, at the second. From then on a signal
// kills it.
func (p *process) obey(signals chan os.Signal) {
	s := <-signals
	if p.drain != nil {
		if err := p.drain(); err == nil {
			p.log.Info("draining before the end; another signal ends it now", "signal", s)
			<-signals
		}
	}
	signal.Stop(signals)
	p.end()
}

// run opens the parts and waits for the end.
func (p *process) run() error {
	defer p.end()
	if p.flags["enable-auto-gomemlimit"] != "false" {
		ratio, _ := strconv.ParseFloat(p.flags["auto-gomemlimit.ratio"], 64) // checked when it was parsed
		setMemoryLimit(p.log, ratio)
	}
	p.log.Info("starting", append([]any{"role", p.role}, banner()...)...)
	p.warnIdle()
	p.warnUneven()
	p.addPart("serving", p.serve, p.stopServing, nil)
	return p.group.Run(p.ctx)
}

// serve is opened last: from here on requests are let in.
func (p *process) serve(context.Context, func(error)) error {
	close(p.serving)
	p.log.Info("serving", "role", p.role, "took", time.Since(p.start).Round(time.Millisecond))
	for _, f := range p.after {
		f()
	}
	return nil
}

// stopServing is closed first: no request may meet a part that is closed.
func (p *process) stopServing() error {
	p.log.Info("stopping", "role", p.role)
	var all []error
	for _, s := range p.listeners {
		all = append(all, s.Close())
	}
	return errors.Join(all...)
}

// onReady runs f once every part is open.
func (p *process) onReady(f func()) { p.after = append(p.after, f) }

// status is what /api/v1/status answers from.
func (p *process) status(retention string) *httpx.Status {
	return &httpx.Status{
		Version: version.Version, Revision: version.GetRevision(), Branch: version.Branch, BuildUser: version.BuildUser,
		BuildDate: version.BuildDate, FlagValues: p.flags, Start: p.start, Retention: retention, Reloaded: p.lastReload,
	}
}

// lastReload is what the status answers say of the files that can be read again.
func (p *process) lastReload() (ok bool, at time.Time) {
	if p.reloaded == nil {
		return true, p.start
	}
	return p.reloaded()
}

// flagValuesOf are the values of all flags that were parsed, app-wide and of the chosen command, as they may be shown:
// a value that is a secret is of a type that does not print it.
func flagValuesOf(app *kingpin.Application, command string) map[string]string {
	values := map[string]string{}
	for _, f := range flagModels(app.Model(), command) {
		values[f.Name] = secret.URLs(f.Value.String())
	}
	return values
}

// commandLineOf is the command line that would give the flags the values that they have.
func commandLineOf(app *kingpin.Application, command string) []string {
	line := []string{app.Name, command}
	for _, f := range flagModels(app.Model(), command) {
		if v := secret.URLs(f.Value.String()); v != "" && v != strings.Join(f.Default, ",") {
			line = append(line, "--"+f.Name+"="+v)
		}
	}
	return line
}

// setMemoryLimit makes the garbage collector respect a container's memory, unless GOMEMLIMIT says otherwise.
func setMemoryLimit(log *slog.Logger, ratio float64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit, from := run.GroupMemory()
	if limit <= 0 {
		return
	}
	soft := int64(float64(limit) * ratio)
	debug.SetMemoryLimit(soft)
	log.Info("memory limit", "bytes", soft, "of", limit, "from", from)
}
