package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
)

type options struct {
	hearth    string
	only      *regexp.Regexp
	out       string
	series    int
	request   int
	interval  time.Duration
	calm      time.Duration
	lasts     time.Duration
	recovered time.Duration
	arguments string // for the page
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("faults", flag.ContinueOnError)
	fs.StringVar(&o.hearth, "hearth", "bin/hearth", "Hearth's binary")
	only := fs.String("only", "", "regular expression: faults to measure, by their names; default all")
	fs.StringVar(&o.out, "out", "", "Markdown file whose generated part is replaced by this run's report")
	fs.IntVar(&o.series, "series", 20_000, "active series, half of them of each tenant")
	fs.IntVar(&o.request, "per-request", 200, "samples in a request")
	fs.DurationVar(&o.interval, "interval", time.Second, "time between two scrapes, over which their requests are spread")
	fs.DurationVar(&o.calm, "calm", 15*time.Second, "time before a fault, whose p99 is the measure")
	fs.DurationVar(&o.lasts, "lasts", 20*time.Second, "how long a fault lasts")
	fs.DurationVar(&o.recovered, "recovered", 90*time.Second, "how long a member may take to be back")
	if err := server.Parse(fs, args); err != nil {
		return o, err
	}
	o.arguments = server.Arguments(fs, "hearth", "out")
	if o.series < 2 || o.request < 1 || o.interval <= 0 || o.calm <= 0 || o.lasts <= 0 || o.recovered <= 0 {
		return o, errors.New("sizes and times must be positive, and -series at least 2")
	}
	var err error
	o.only, err = regexp.Compile(*only)
	return o, err
}

// load of one tenant.
func (o options) load() samples.Options {
	return samples.Options{Series: o.series / 2, Labels: 12, PerRequest: o.request}
}

func main() { server.Main("faults", run) }

// run measures and reports. Progress goes to log, the table to out and to -out.
func run(ctx context.Context, args []string, out, log io.Writer) (err error) {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	rep := report{opts: o, began: time.Now(), machine: server.ThisMachine()}
	rep.version = server.Peer{Path: o.hearth}.Version(ctx)
	c, err := startCluster(ctx, o.hearth)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	l := startLoad(o, c.writeURL)
	defer l.stop()
	w := startWatch(c)
	defer w.stop()
	for _, f := range faults() {
		if !o.only.MatchString(f.name) {
			continue
		}
		if f.needsRoot && !c.limited {
			fmt.Fprintf(log, "%s is skipped: it needs root\n", f.name)
			rep.skipped = append(rep.skipped, f.name)
			continue
		}
		m, err := measure(ctx, o, f, c, l, w)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		rep.rows = append(rep.rows, m)
		fmt.Fprintf(log, "%s: p99 %s -> %s, %d of %d failed %s, back within %s\n", f.name, m.before.p99, m.during.p99,
			m.failed(), m.requests(), m.problem(), m.backAfter())
	}
	var text strings.Builder
	rep.write(&text)
	return server.Publish(out, o.out, text.String())
}
