package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
)

type options struct {
	hearth    string
	out       string
	tenants   int
	active    int
	idle      int
	series    int
	rounds    int
	writers   int
	patience  time.Duration
	profile   string
	arguments string // for the page
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("tenants", flag.ContinueOnError)
	fs.StringVar(&o.hearth, "hearth", "bin/hearth", "Hearth's binary")
	fs.StringVar(&o.out, "out", "", "Markdown file whose generated part is replaced by this run's report")
	fs.IntVar(&o.tenants, "tenants", 10_000, "tenants of the first run, all active; 0 = no such run")
	fs.IntVar(&o.active, "active", 1000, "active tenants of the second run")
	fs.IntVar(&o.idle, "idle", 9000, "tenants of the second run that are closed; 0 = no such run")
	fs.IntVar(&o.series, "series", 20, "series of a tenant")
	fs.IntVar(&o.rounds, "rounds", 250, "samples of each series in the first run, 15 s apart: a chunk is full after "+
		"120 to 240")
	fs.IntVar(&o.writers, "writers", 16, "requests under way at a time")
	fs.DurationVar(&o.patience, "patience", 30*time.Minute, "how long a step may take")
	fs.StringVar(&o.profile, "profile", "", "file for a heap profile of the first run, when full chunks are mapped")
	if err := server.Parse(fs, args); err != nil {
		return o, err
	}
	o.arguments = server.Arguments(fs, "hearth", "out", "profile")
	if o.tenants < 0 || o.active < 0 || o.idle < 0 || o.series < 1 || o.rounds < 1 || o.writers < 1 || o.patience <= 0 {
		return o, errors.New("numbers must not be negative, and of series, rounds and writers there must be some")
	}
	var err error
	o.hearth, err = filepath.Abs(o.hearth)
	return o, err
}

func (o options) load() samples.Options {
	return samples.Options{Series: o.series, Labels: 8, PerRequest: o.series}
}

// The descriptors of an open tenant without blocks, at most, and of each of its blocks.
const filesPerTenant, filesPerBlock = 6, 2

// affordable is how many tenants of wanted a process may have open that may open this number of files, when each
// tenant takes each files. A tenth of the files is left for other things.
func affordable(wanted, files, each int) int {
	if files <= 0 {
		return wanted
	}
	return min(wanted, files*9/10/each)
}

func main() { server.Main("tenants", run) }

// run measures and reports. Progress goes to log, the tables to out and to -out.
func run(ctx context.Context, args []string, out, log io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	rep := report{opts: o, began: time.Now(), machine: server.ThisMachine(), files: int(limit.Max)}
	rep.version = server.Peer{Path: o.hearth}.Version(ctx)
	note := func(rows *[]row) func(string, *receiver, time.Duration) error {
		return func(step string, r *receiver, took time.Duration) error {
			s, err := r.state(ctx)
			if err != nil {
				return err
			}
			at := row{step, took, s}
			fmt.Fprintf(log, "%s\n", at)
			*rows = append(*rows, at)
			return nil
		}
	}
	if rep.tenants = affordable(o.tenants, rep.files, filesPerTenant); rep.tenants > 0 {
		if err := allActive(ctx, o, rep.tenants, note(&rep.all)); err != nil {
			return fmt.Errorf("all active: %w", err)
		}
	}
	if o.idle > 0 {
		if err := mostlyIdle(ctx, o, rep.files, note(&rep.mixed)); err != nil {
			return fmt.Errorf("mostly idle: %w", err)
		}
	}
	var text strings.Builder
	rep.write(&text)
	return server.Publish(out, o.out, text.String())
}
