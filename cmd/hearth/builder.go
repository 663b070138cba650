package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/version"

	"github.com/hearth-metrics/hearth/internal/httpx"
)

// builder makes the parts of one command. What it is given is collected in the process: parts in the order in which
// they open, ports, checks of readiness, files to read again.
//
// Most parts can fail to be made, and a part that was not made must not reach the next one. So check ends the building
// at the first error, as a failed test ends at t.Fatal, and a role reads as a list without a branch behind each line.
type builder struct{ *process }

// buildError is what check ends the building with. Nothing else recovers it.
type buildError struct{ error }

// setup makes the parts of a command and adds them to p. It reads and writes what the parts are made with: the identity
// in the data directory, files of users, of limits, of rules. Nothing is listened on, and no goroutine is started.
type setup func(p *process) error

// built is the setup of a command whose parts build makes.
func built(build func(*builder)) setup {
	return func(p *process) (err error) {
		defer func() {
			switch fault := recover().(type) {
			case nil:
			case buildError:
				err = fault.error
			default:
				panic(fault)
			}
		}()
		build(&builder{p})
		return nil
	}
}

// check ends the building if any of errs is an error. The error of the setup joins them all.
func (b *builder) check(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		panic(buildError{err})
	}
}

// add adds a part that readiness says nothing about.
func (b *builder) add(name string, open func(context.Context, func(error)) error, stop func() error) {
	b.group.Add(name, open, stop)
}

// addPart adds a part with a check of readiness: it fails until the part is open, and then says what ready says (nil =
// nothing).
func (b *builder) addPart(name string, open func(context.Context, func(error)) error, stop func() error,
	ready func() error) {
	opened := make(chan struct{})
	b.health.AddCheck(name, func() error {
		select {
		case <-opened:
			if ready != nil {
				return ready()
			}
			return nil
		default:
			return notReady{name}
		}
	})
	b.add(name, func(ctx context.Context, fail func(error)) error {
		if err := open(ctx, fail); err != nil {
			return err
		}
		close(opened)
		return nil
	}, stop)
}

// notReady is the readiness of a part until the process has opened it.
type notReady struct{ part string }

// Error names the part.
func (n notReady) Error() string { return fmt.Sprintf("%s: still opening", n.part) }

// addHTTP adds a server. It listens before the parts behind it open, so that probes are answered meanwhile, and stops
// before they close.
func (b *builder) addHTTP(name string, s *httpx.Server, at port) {
	at.guard = s.Guard()
	b.addPort(at)
	b.add(name, s.Open, s.Close)
	b.listeners = append(b.listeners, s)
}

// addPort lets the start warn of a port that is more open than another one.
func (b *builder) addPort(at port) { b.ports = append(b.ports, at) }

// onReload has reload called at SIGHUP and at POST /-/reload, from any goroutine; it reads files again. fault is what
// was wrong with these files when they were last read. Readiness shows it as advice under the name files, since the
// last good content stays in force.
func (b *builder) onReload(files string, reload, fault func() error) {
	b.reloads = append(b.reloads, reload)
	b.health.AddAdvice(files, func() error {
		if err := fault(); err != nil {
			return fmt.Errorf("not valid, the last good ones stay in force: %w", err)
		}
		return nil
	})
}

// onReady runs f once every part is open.
func (b *builder) onReady(f func()) { b.after = append(b.after, f) }

// onStop has the first signal to stop begin a drain, which ends the process when it is done.
func (b *builder) onStop(drain func() error) { b.drain = drain }

// runTool makes the command a tool: once its parts are open it does job, and the process ends with the error of that.
func (b *builder) runTool(job func(context.Context) error) { b.job = job }

// status is what /api/v1/status answers from. retention is for people, "" when the role stores nothing. lastRead says
// whether the files that were read last are valid, and when they were; nil = there are none.
func (b *builder) status(retention string, lastRead func() (bool, time.Time)) *httpx.Status {
	return &httpx.Status{
		Version: version.Version, Revision: version.GetRevision(), Branch: version.Branch, BuildUser: version.BuildUser,
		BuildDate: version.BuildDate, FlagValues: b.flags, Start: b.start, Retention: retention, Reloaded: lastRead,
	}
}

// ownRoutes are what the HTTP port of every role has: probes, metrics, reload, profiles.
func (b *builder) ownRoutes() []httpx.Route {
	routes := append(httpx.Probes(b.health), httpx.Metrics(b.log, b.reg), b.reloadRoute())
	return append(routes, httpx.Profiles(b.commandLine)...)
}
