// Command hearth keeps Prometheus metrics. One binary, one role per command; without a command it is everything in one
// process.
//
// Flow: main -> parse (flags, HEARTH_*, --config.file) -> the role's parts are built and added to a run.Group -> Open
// in order (the HTTP ports first, for probes; other requests are let in last) -> a signal (or the end of a drain) ->
// the HTTP ports stop, Close in reverse.
//
// This is the only place where components meet; nothing here decides anything about samples.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
)

const about = `The best place to keep Prometheus metrics: remote write in, PromQL out, blocks in a bucket.
Without a role hearth is a whole system in one process. Processes that name each other with
--gossip.join are a cluster; roles run apart when it grows.`

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute is main with its surroundings as arguments; the result is the exit status.
func execute(args []string, stdout, stderr io.Writer) int {
	if version.Version == "" {
		version.Version = moduleVersion(debug.ReadBuildInfo())
	}
	app, setups := commands()
	app.Writer(stdout)
	app.UsageWriter(stdout).ErrorWriter(stderr)
	exited, status := false, 0
	app.Terminate(func(code int) { exited, status = true, code })
	command, err := parse(app, args, &exited)
	if exited {
		return status
	}
	if err != nil {
		fmt.Fprintf(stderr, "hearth: %v\nhearth --help explains the flags.\n", err)
		return 2
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer close(hangups)
	defer signal.Stop(hangups)
	p := newProcess(app, command, stdout, stderr)
	p.warnStrangers(app)
	if err := setups[command](p); err != nil {
		fmt.Fprintf(stderr, "hearth %s: %v\n", command, err)
		return 2
	}
	go p.obey(signals)
	go p.reloadAt(hangups)
	if err := p.run(); err != nil && !errors.Is(err, context.Canceled) {
		p.log.Error("ended", "role", command, "err", err)
		return 1
	}
	p.log.Info("stopped", "role", command)
	return 0
}

// parse finds the command, and sets its flags from args, the environment and a configuration file. *exited is set when
// that has ended the program, as --help does.
func parse(app *kingpin.Application, args []string, exited *bool) (command string, err error) {
	all, places, err := withConfigFile(app, withEnvironment(app, args))
	if err != nil || *exited {
		return "", err
	}
	if command, err = app.Parse(all); err != nil && !*exited {
		err = explain(app, all, places, err)
	}
	return command, err
}

// moduleVersion is the version of a binary that was linked without one: that of its module, which go install knows, or
// dev.
func moduleVersion(info *debug.BuildInfo, ok bool) string {
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}

// setup builds the parts of a role into p. It does no I/O.
type setup func(p *process) error

func commands() (*kingpin.Application, map[string]setup) {
	app := kingpin.New("hearth", about).DefaultEnvars()
	useOwnHelp(app)
	app.Version(version.Print("hearth"))
	app.HelpFlag.Short('h').NoEnvar()
	app.VersionFlag.NoEnvar() // HEARTH_VERSION in a container's environment is the image's, not a wish to see it
	app.Flag("config.file",
		"YAML file of flags: one \"name: value\" a line, a list for a flag that repeats. Flags of other commands are passed "+
			"over, so that one file serves all roles. Flags and HEARTH_* win over it.").
		PlaceHolder("FILE").String()
	app.Flag("log.level", "Least severe messages to log: debug, info, warn or error.").Default("info").Enum("debug",
		"info", "warn", "error")
	app.Flag("log.format", "Form of log lines: logfmt (journald is the same) or json.").Default("logfmt").Enum("logfmt",
		"json", "journald")
	app.Flag("enable-auto-gomemlimit", "Keep the garbage collector within the memory of the container, unless "+
		"GOMEMLIMIT is set.").Default("true").Bool()
	app.Flag("auto-gomemlimit.ratio", "Part of the container's memory that the garbage collector keeps within, above 0 "+
		"and up to 1.").Default("0.9").SetValue(new(ratio))
	app.Flag("debug.name", "Name to put into every log line.").Hidden().String()
	acceptIdle(app, "")
	return app, map[string]setup{
		"all":         allCommand(app),
		"receive":     receiveCommand(app),
		"distributor": distributorCommand(app),
		"store":       storeCommand(app),
		"query":       queryCommand(app),
	}
}

func banner() []any {
	return []any{"version", version.Version, "revision", version.GetRevision(), "go", runtime.Version(), "pid",
		os.Getpid(), "started", time.Now().UTC().Format(time.RFC3339)}
}
