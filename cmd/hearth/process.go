package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
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
	"github.com/hearth-metrics/hearth/internal/tracing"
)

// process is what all commands share: the log, the metrics, the readiness, and, from the builder, the parts in their
// order, the listeners and what to do when.
type process struct {
	role   string            // the command
	flags  map[string]string // their values by name, as they may be shown: without secrets
	log    *slog.Logger
	reg    *prometheus.Registry
	health *httpx.Health
	stdout io.Writer
	start  time.Time
	group  run.Group

	// commandLine is the command with the flags that are not at their default, wherever they are from, as it may be shown.
	commandLine []string

	listeners []*httpx.Server // all that speak HTTP; the main one is the first
	ports     []port          // all that listen, and what each asks of its callers
	serving   chan struct{}   // closed once every part is open
	after     []func()        // called then
	reloads   []func() error  // read files again, see builder.onReload

	observer *tracing.Observer // follows all requests; set before the parts are made

	// drain is what the first signal begins, and the second signal then ends the process; nil = the first one ends it.
	drain func() error
	// job is what a tool does once its parts are open; nil = the command is a role. done is closed when the job has
	// ended, and jobErr is its error from then on.
	job    func(context.Context) error
	jobErr error
	done   chan struct{}

	ctx context.Context // the process's life, which end ends
	end func()
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
		health: &httpx.Health{}, stdout: stdout, start: time.Now(), serving: make(chan struct{}), done: make(chan struct{}),
	}
}

// obey ends the process at the first signal. Where the first signal begins a drain, the second one ends the process.
// Any later signal kills it.
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
	if p.job != nil {
		p.warnIdle()
		p.group.Add(p.role, p.begin, p.finish)
		err := p.group.Run(p.ctx)
		return errors.Join(p.jobErr, err)
	}
	p.log.Info("starting", "role", p.role, "version", version.Version, "revision", version.GetRevision(), "go",
		runtime.Version(), "pid", os.Getpid(), "started", time.Now().UTC().Format(time.RFC3339))
	p.warnIdle()
	p.warnOpenPorts()
	b := builder{p}
	b.addPart("serving", p.serve, p.stopServing, nil)
	return p.group.Run(p.ctx)
}

// exit says how the process ended, and returns its exit status. err is the error of run. A role ends well when it is
// stopped; a tool that is stopped has not done its job. The status of a tool is 1 when it found something wrong or did
// not do what it was asked to, and 2 when it could not look.
func (p *process) exit(err error, stderr io.Writer) int {
	failed := err != nil && (p.job != nil || !errors.Is(err, context.Canceled))
	switch {
	case failed && p.job != nil:
		fmt.Fprintf(stderr, "hearth %s: %v\n", p.role, err)
	case failed:
		p.log.Error("ended", "role", p.role, "err", err)
	case p.job == nil:
		p.log.Info("stopped", "role", p.role)
	}
	switch {
	case !failed:
		return 0
	case p.job != nil && notLooked(p.jobErr):
		return 2
	}
	return 1
}

// begin opens the last part of a tool: it starts the job, whose end ends the process.
func (p *process) begin(context.Context, func(error)) error {
	go func() {
		defer close(p.done)
		defer p.end()
		p.jobErr = p.job(p.ctx)
	}()
	return nil
}

// finish closes that part: it ends the context of the job, which goes on when another part has failed, and waits.
func (p *process) finish() error {
	p.end()
	<-p.done
	return nil
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

// flagValuesOf are the values of the flags of a command and of all commands, by name, as they may be shown: the value
// of a secret has a type that does not print it.
func flagValuesOf(app *kingpin.Application, command string) map[string]string {
	values := map[string]string{}
	for _, f := range flagModels(app.Model(), command) {
		values[f.Name] = secret.URLs(f.Value.String())
	}
	return values
}

// commandLineOf is a command line that gives the flags the values that they have, as it may be shown.
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
