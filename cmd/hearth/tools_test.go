package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
)

// TestTools: a tool is a command in groups. It has the flags of all commands, opens its parts before its job, closes
// them after it, and the exit status says whether the job succeeded.
func TestTools(t *testing.T) {
	var events []string
	note := func(event string) func() error {
		return func() error { events = append(events, event); return nil }
	}
	tool := command{
		name: "tools example nothing", help: "Do nothing.",
		subject: subject{"Nothing", []string{"nothing.*"}},
		bind: func(c *kingpin.CmdClause) func(*builder) {
			fault := c.Flag("nothing.fault", "What goes wrong.").String()
			return func(b *builder) {
				if *fault == "build" {
					b.check(errors.New("cannot be built"), errors.New("nor can this"))
				}
				b.add("part", func(context.Context, func(error)) error { return note("open")() }, note("close"))
				b.runTool(func(context.Context) error {
					_ = note("job")()
					fmt.Fprintln(b.stdout, "nothing is done")
					if *fault == "job" {
						return errors.New("the job fails")
					}
					return nil
				})
			}
		},
	}
	f := func(status int, stdout, stderr, wantEvents string, args ...string) {
		t.Helper()
		events = nil
		var out, errOut bytes.Buffer
		got := executeOf(append(allCommands(), tool), args, &out, &errOut)
		if got != status || !strings.Contains(out.String(), stdout) || !strings.Contains(errOut.String(), stderr) ||
			stderr == "" && errOut.Len() > 0 {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, got, &out, &errOut)
		}
		if got := strings.Join(events, " "); got != wantEvents {
			t.Errorf("%q: %s, want %s", args, got, wantEvents)
		}
	}
	name := []string{"tools", "example", "nothing"}
	f(0, "nothing is done\n", "", "open job close", name...)
	f(
		1,
		"nothing is done\n",
		"hearth tools example nothing: the job fails\n",
		"open job close",
		append(name, "--nothing.fault=job")...)
	f(2, "", "hearth tools example nothing: cannot be built\nnor can this\n", "", append(name, "--nothing.fault=build")...)
	f(
		2,
		"",
		"--nothing.falt: there is no such flag; did you mean --nothing.fault?",
		"",
		append(name, "--nothing.falt=job")...)
	f(0, "\nNothing:\n  --nothing.fault=FAULT", "", "", append(name, "--help")...)
	f(0, "  hearth tools example nothing\n      Do nothing.\n", "", "", "tools", "--help")
	f(0, "Commands:\n  hearth tools example nothing\n      Do nothing.\n", "", "", "tools", "example", "--help")
	f(0, "\n  tools        Commands that do one thing and end: hearth tools --help lists them.\n", "", "", "--help")
	t.Setenv("HEARTH_NOTHING_FAULT", "job")
	f(1, "", "the job fails", "open job close", name...)
}

// TestToolOfABrokenPart: a job ends when a part of its process fails.
func TestToolOfABrokenPart(t *testing.T) {
	tool := command{name: "tools example waits", help: "Wait.", bind: func(*kingpin.CmdClause) func(*builder) {
		return func(b *builder) {
			b.add("part", func(_ context.Context, fail func(error)) error { fail(errors.New("it broke")); return nil },
				func() error { return nil })
			b.runTool(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		}
	}}
	var out, errOut bytes.Buffer
	status := executeOf(append(allCommands(), tool), []string{"tools", "example", "waits"}, &out, &errOut)
	if status != 2 || !strings.Contains(errOut.String(), "it broke") {
		t.Errorf("status %d, stderr %q", status, &errOut)
	}
}

// TestBuilderPanics: what is a fault of the program is not taken for an error of the configuration.
func TestBuilderPanics(t *testing.T) {
	defer func() {
		if got := recover(); got != "BUG" {
			t.Errorf("recovered %v", got)
		}
	}()
	_ = built(func(*builder) { panic("BUG") })(nil)
}
