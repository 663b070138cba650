package main

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
)

type options struct {
	peers       string
	hearth      string
	only        *regexp.Regexp
	cases       *regexp.Regexp
	out         string
	profile     string
	series      int
	many        int
	scrapes     int
	rounds      int
	concurrency []int
	quick       bool
	arguments   string // for the page
	settle      time.Duration
}

func parseOptions(args []string) (options, error) {
	o := options{settle: 2 * time.Second}
	fs := flag.NewFlagSet("ingest", flag.ContinueOnError)
	fs.StringVar(&o.peers, "peers", "", "folder of server binaries: thanos, prometheus, victoria-metrics; one that "+
		"is absent is skipped")
	fs.StringVar(&o.hearth, "hearth", "bin/hearth", "Hearth's binary, unless the folder has one")
	only := fs.String("only", "", "regular expression: peers to run; default all that are there")
	cases := fs.String("cases", "", "regular expression: cases to run, by their names; default all")
	fs.StringVar(&o.out, "out", "", "Markdown file whose generated part is replaced by this run's report")
	fs.StringVar(&o.profile, "profile", "", "folder for CPU profiles of the Hearth processes; taking them costs CPU")
	fs.IntVar(&o.series, "series", 100_000, "active series")
	fs.IntVar(&o.many, "many", 1_000_000, "active series of the case that measures memory; 0 = none")
	fs.IntVar(&o.scrapes, "scrapes", 20, "steady scrapes of a round")
	fs.IntVar(&o.rounds, "rounds", 3, "times that each case is run; the median is reported")
	concurrency := fs.String("concurrency", "4", "requests under way at a time; with several numbers, as in 4,32, "+
		"each case is run with each")
	fs.BoolVar(&o.quick, "quick", false, "one round of few scrapes, the most telling cases, and 200,000 series at most")
	if err := server.Parse(fs, args); err != nil {
		return o, err
	}
	o.arguments = server.Arguments(fs, "peers", "hearth", "out", "profile")
	if o.quick {
		o.rounds, o.scrapes, o.many = 1, min(o.scrapes, 6), min(o.many, 200_000)
	}
	for number := range strings.SplitSeq(*concurrency, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(number))
		if err != nil || n < 1 {
			return o, fmt.Errorf("-concurrency %q: must be positive numbers", *concurrency)
		}
		o.concurrency = append(o.concurrency, n)
	}
	var faults [2]error
	o.only, faults[0] = regexp.Compile(*only)
	o.cases, faults[1] = regexp.Compile(*cases)
	if o.series < 1 || o.scrapes < 1 || o.rounds < 1 || o.many < 0 {
		return o, errors.New("-series, -scrapes and -rounds must be positive")
	}
	return o, errors.Join(faults[:]...)
}

// benchCase is one load and one number of members.
type benchCase struct {
	name    string
	members int // = replication factor
	load    samples.Options
	senders int // requests under way at a time
	scrapes int // steady ones
	rounds  int
	memory  bool // is about memory per series
}

const (
	perRequest = 2000
	labelCount = 12
	interval   = 15 * time.Second // between the timestamps of two scrapes
	preparing  = 3                // scrapes before the steady ones; the first creates the series
)

// casesOf are the cases that o asks for.
func casesOf(o options) []benchCase {
	var all []benchCase
	for _, members := range []int{1, 3} {
		for _, v2 := range []bool{false, true} {
			for _, churn := range []float64{0, 0.1} {
				if o.quick && (members > 1 || v2) && churn > 0 {
					continue
				}
				all = append(all, benchCase{members: members, scrapes: o.scrapes, rounds: o.rounds,
					load: samples.Options{V2: v2, Series: o.series, Labels: labelCount, PerRequest: perRequest, Churn: churn}})
			}
		}
	}
	if o.many > 0 {
		all = append(all, benchCase{members: 1, scrapes: max(1, min(6, o.scrapes)-preparing), rounds: 1, memory: true,
			load: samples.Options{Series: o.many, Labels: labelCount, PerRequest: perRequest}})
	}
	var out []benchCase
	for _, c := range all {
		for _, c.senders = range o.concurrency {
			c.name = c.title()
			if len(o.concurrency) > 1 {
				c.name += fmt.Sprintf(", %d senders", c.senders)
			}
			if o.cases.MatchString(c.name) {
				out = append(out, c)
			}
		}
	}
	return out
}

func (c benchCase) title() string {
	parts := []string{fmt.Sprintf("RF=%d", c.members), "1.0", thousands(c.load.Series) + " series"}
	if c.load.V2 {
		parts[1] = "2.0"
	}
	if c.load.Churn > 0 {
		parts = append(parts, fmt.Sprintf("%.0f %% churn", c.load.Churn*100))
	}
	return strings.Join(parts, ", ")
}

// thousands writes n with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
