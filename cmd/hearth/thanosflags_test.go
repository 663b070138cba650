package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// parsed is a process of the flags, and what it logs.
func parsed(t *testing.T, args ...string) (*process, *bytes.Buffer) {
	t.Helper()
	app, _ := commands()
	app.Terminate(func(int) { t.Fatalf("%q ends the process", args) })
	app.UsageWriter(io.Discard).ErrorWriter(io.Discard)
	command, err := app.Parse(args)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	log := new(bytes.Buffer)
	return newProcess(app, command, io.Discard, log), log
}

func TestThanosReceiveFlags(t *testing.T) {
	file, err := os.Open("testdata/thanos-receive-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, _ := parsed(t, "receive")
	idle := map[string]bool{}
	for _, f := range slices.Concat(commonIdle, receiveIdle) {
		if len(f.reason) < 10 {
			t.Errorf("--%s: the reason %q says too little", f.name, f.reason)
		}
		idle[f.name] = true
	}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		effect, rest, _ := strings.Cut(line, " ")
		name, value, _ := strings.Cut(strings.TrimSpace(rest), " ")
		arg := "--" + name + "=" + value
		switch value {
		case "-":
			arg = "--" + name
		case "no":
			arg = "--no-" + name
		}
		p, log := parsed(t, "receive", arg)
		if p.flags[name] == all.flags[name] {
			t.Errorf("%s: its value is %q with and without it", arg, all.flags[name])
		}
		p.warnIdle()
		warnings := strings.Count(log.String(), "flag has no effect")
		named := strings.Contains(log.String(), "flag=--"+name+" ")
		if (effect == "idle") != idle[name] || (effect == "idle") != (warnings == 1 && named) || warnings > 1 {
			t.Errorf("%s: %s, but in the table: %t, warnings: %s", arg, effect, idle[name], log)
		}
		delete(idle, name)
	}
	for name := range idle {
		t.Errorf("--%s is in the table and no flag of thanos receive", name)
	}
}

func TestIdleSwitch(t *testing.T) {
	p, log := parsed(t, "receive", "--no-tsdb.enable-native-histograms", "--enable-feature=a", "--enable-feature=b", "--tracing.config=")
	p.warnIdle()
	if n := strings.Count(log.String(), "flag has no effect"); n != 2 || p.flags["enable-feature"] != "a,b" {
		t.Errorf("%d warnings, %q:\n%s", n, p.flags["enable-feature"], log)
	}
}

func TestDebugName(t *testing.T) {
	p, log := parsed(t, "query", "--debug.name=blue", "--request.logging-config-file=x")
	p.warnIdle()
	if got := log.String(); !strings.Contains(got, "name=blue") || !strings.Contains(got, "--request.logging-config-file") {
		t.Error(got)
	}
}
