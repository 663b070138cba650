// Command hearth keeps Prometheus metrics. One binary, one role per command; without a command it is everything in one
// process.
//
// Flow: main -> parse (flags, HEARTH_*, --config.file) -> the command's setup makes its parts and adds them to a
// run.Group -> Open in order (the HTTP port early, so that probes are answered; other requests are let in last) -> a
// signal, the end of a drain, or the end of a tool's job -> the HTTP ports stop, Close in reverse.
//
// Files: commands.go lists the commands; a file per command (all.go, receive.go, ...) reads from top to bottom as the
// list of its parts; the other files have parts that several roles use, with their flags, and how flags are read and
// explained. builder.go and process.go hold it together.
//
// This is the only place where components meet; nothing here decides anything about samples.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

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
	return executeOf(allCommands(), args, stdout, stderr)
}

// executeOf is execute for a hearth that has the commands of all.
func executeOf(all []command, args []string, stdout, stderr io.Writer) int {
	if version.Version == "" {
		version.Version = moduleVersion(debug.ReadBuildInfo())
	}
	app, setups := commandLine(all)
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
	p.warnUnknownVariables(app)
	if err := setups[command](p); err != nil {
		fmt.Fprintf(stderr, "hearth %s: %v\n", command, err)
		return 2
	}
	go p.obey(signals)
	go p.reloadAt(hangups)
	return p.exit(p.run(), stderr)
}

// parse finds the command, and sets its flags from args, the environment and a configuration file. *exited is true when
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

// moduleVersion is the version of a binary that was linked without one. It is the version of the module, which go
// install knows, or else dev.
func moduleVersion(info *debug.BuildInfo, ok bool) string {
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}
