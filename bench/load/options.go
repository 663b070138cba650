package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
)

type options struct {
	urls, headers list
	pids          list
	protocol      string
	tenant        string
	series        int
	labels        int
	perRequest    int
	warmup        int
	scrapes       int
	duration      time.Duration
	interval      time.Duration
	churn         float64
	histograms    float64
	concurrency   int
	giveUp        time.Duration
	json          bool
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.Var(&o.urls, "url", "remote-write URL; repeat it to spread the requests over several, round robin")
	fs.Var(&o.pids, "pid", "process whose CPU and memory are reported; may be repeated")
	fs.Var(&o.headers, "header", "further HTTP header, name=value; may be repeated")
	fs.StringVar(&o.protocol, "protocol", "1.0", "remote write 1.0 or 2.0")
	fs.StringVar(&o.tenant, "tenant", "", "tenant, sent as X-Scope-OrgID and THANOS-TENANT")
	fs.IntVar(&o.series, "series", 100_000, "active series")
	fs.IntVar(&o.labels, "labels", 12, "labels of a series; 12 have about 280 bytes")
	fs.IntVar(&o.perRequest, "per-request", 2000, "samples in a request")
	fs.IntVar(&o.warmup, "warmup", 0, "scrapes sent before the measurement starts")
	fs.IntVar(&o.scrapes, "scrapes", 20, "scrapes that are measured")
	fs.DurationVar(&o.duration, "duration", 0, "measure in real time for so long, one scrape per interval, instead "+
		"of -scrapes")
	fs.DurationVar(&o.interval, "interval", 15*time.Second, "time between the timestamps of two scrapes")
	fs.Float64Var(&o.churn, "churn", 0, "part of the series that is replaced by new ones at each scrape, 0 to 1")
	fs.Float64Var(&o.histograms, "histograms", 0, "part of the series that are native histograms, 0 to 1")
	fs.IntVar(&o.concurrency, "concurrency", 4, "requests under way at a time")
	fs.DurationVar(&o.giveUp, "give-up", time.Minute, "how long one request is retried before it counts as failed")
	fs.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	if err := server.Parse(fs, args); err != nil {
		return o, err
	}
	if o.duration > 0 && o.interval > 0 {
		o.scrapes = max(1, int(o.duration/o.interval))
	}
	return o, o.validate()
}

// load is what is sent.
func (o options) load() samples.Options {
	return samples.Options{V2: o.protocol == "2.0", Series: o.series, Labels: o.labels, PerRequest: o.perRequest,
		Churn: o.churn, Histograms: o.histograms}
}

func (o options) validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(len(o.urls) > 0, "-url is missing")
	check(o.protocol == "1.0" || o.protocol == "2.0", "-protocol %q: must be 1.0 or 2.0", o.protocol)
	check(o.series > 0 && o.perRequest > 0 && o.concurrency > 0 && o.scrapes > 0 && o.warmup >= 0,
		"-series, -per-request, -concurrency and -scrapes must be positive")
	check(o.labels >= 3, "-labels %d: must be at least 3, which tell the series apart", o.labels)
	check(o.interval > 0, "-interval %s: must be positive", o.interval)
	check(o.churn >= 0 && o.churn <= 1 && o.histograms >= 0 && o.histograms <= 1,
		"-churn and -histograms must be from 0 to 1")
	for _, h := range o.headers {
		check(strings.Contains(h, "="), "-header %q: must be name=value", h)
	}
	return errors.Join(faults...)
}
