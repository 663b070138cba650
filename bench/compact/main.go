package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

func main() { server.Main("compact", run) }

type options struct {
	peers, hearth, data, out string
	cases                    *regexp.Regexp
	quick                    bool
	keep                     bool
	deadline                 time.Duration
	arguments                string

	binaries  map[string]string // by name
	versitygw string            // "" = no S3 cases
}

// programs are what is compared, Hearth first.
var programs = []string{"hearth", "thanos"}

func parseOptions(args []string) (options, error) {
	o := options{binaries: map[string]string{}}
	set := flag.NewFlagSet("compact", flag.ContinueOnError)
	set.StringVar(&o.peers, "peers", "", "folder with thanos and versitygw; without one of them its cases are skipped")
	set.StringVar(&o.hearth, "hearth", "bin/hearth", "Hearth's binary, unless the folder has one")
	set.StringVar(&o.data, "data", filepath.Join(os.TempDir(), "hearth-bench-compact"),
		"folder for buckets, which are kept for the next run, and for what passes make of them, which is not")
	set.StringVar(&o.out, "out", "", "Markdown file whose generated part is replaced by this run's report")
	cases := set.String("cases", "", "regular expression: cases to run, by their names; default all")
	set.BoolVar(&o.quick, "quick", false, "a tenth of the series and blocks")
	set.BoolVar(&o.keep, "keep", false, "keep what the passes made, for a look at it")
	set.DurationVar(&o.deadline, "deadline", 30*time.Minute, "how long a pass may take")
	if err := server.Parse(set, args); err != nil {
		return o, err
	}
	o.arguments = server.Arguments(set, "peers", "hearth", "data", "out")
	var err error
	if o.cases, err = regexp.Compile(*cases); err != nil {
		return o, err
	}
	if o.data, err = filepath.Abs(o.data); err != nil {
		return o, err
	}
	for name, paths := range map[string][]string{
		"hearth": {filepath.Join(o.peers, "hearth"), o.hearth}, "thanos": {filepath.Join(o.peers, "thanos")},
	} {
		if o.binaries[name], err = server.Program(paths...); err != nil {
			return o, err
		}
	}
	if o.binaries["hearth"] == "" {
		return o, fmt.Errorf("no %s", o.hearth)
	}
	o.versitygw, err = server.Program(filepath.Join(o.peers, "versitygw"), ".tools/bin/versitygw")
	return o, err
}

// run measures and reports. Progress goes to log, the table to out and to -out. What was measured is reported also when
// a later case failed.
func run(ctx context.Context, args []string, out, log io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	rep := newReport(ctx, o)
	b, err := newBed(ctx, o, log)
	if err != nil {
		return err
	}
	err = errors.Join(b.measure(ctx, rep), b.Close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var text strings.Builder
	rep.write(&text)
	return errors.Join(err, server.Publish(out, o.out, text.String()))
}
