package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/bench/server"
)

type options struct {
	peers     string
	hearth    string
	data      string
	out       string
	profile   string
	cases     *regexp.Regexp
	blocks    []int
	large     int
	clients   int
	rounds    int
	deadline  time.Duration
	limit     time.Duration
	arguments string // for the page

	binaries  map[gateway.Kind]string
	versitygw string // "" = no S3 cases
}

func parseOptions(args []string) (options, error) {
	o := options{binaries: map[gateway.Kind]string{}}
	set := flag.NewFlagSet("store", flag.ContinueOnError)
	set.StringVar(&o.peers, "peers", "", "folder with thanos and versitygw; without one of them its cases are skipped")
	set.StringVar(&o.hearth, "hearth", "bin/hearth", "Hearth's binary, unless the folder has one")
	set.StringVar(&o.data, "data", filepath.Join(os.TempDir(), "hearth-bench-store"),
		"folder for buckets, which are kept for the next run, and for what gateways keep, which is not")
	set.StringVar(&o.out, "out", "", "Markdown file whose generated part is replaced by this run's report")
	set.StringVar(&o.profile, "profile", "", "folder for CPU profiles of Hearth while it starts and while it is asked")
	cases := set.String("cases", "", "regular expression: cases to run, by their names; default all")
	sizes := set.String("blocks", "10000,100000", "sizes of the buckets of small blocks; queries use the first")
	set.IntVar(&o.large, "large", 2_000_000, "series of the 14-day block, a multiple of 1000")
	set.IntVar(&o.clients, "clients", 20, "clients that ask for the dashboard at once")
	set.IntVar(&o.rounds, "rounds", 20, "times that each warm query and each client's dashboard is asked")
	set.DurationVar(&o.deadline, "deadline", 10*time.Minute, "how long a gateway may take until it is ready")
	set.DurationVar(&o.limit, "limit", 0,
		"no case begins after this time, and the report names those that are left out; 0 = no limit")
	quick := set.Bool("quick", false, "2,000 small blocks, a large block of 100,000 series, 5 rounds")
	if err := server.Parse(set, args); err != nil {
		return o, err
	}
	o.arguments = server.Arguments(set, "peers", "hearth", "data", "out", "profile")
	if *quick {
		*sizes, o.large, o.rounds = "2000", 100_000, 5
	}
	for number := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(number))
		if err != nil || n < 1 {
			return o, fmt.Errorf("-blocks %q: must be positive numbers", *sizes)
		}
		o.blocks = append(o.blocks, n)
	}
	if o.large < 1 || o.large%blocks.SeriesPerNamespace != 0 || o.clients < 1 || o.rounds < 1 {
		return o, fmt.Errorf("-large must be a positive multiple of %d, -clients and -rounds positive",
			blocks.SeriesPerNamespace)
	}
	var err error
	if o.cases, err = regexp.Compile(*cases); err != nil {
		return o, err
	}
	return o, o.find()
}

// find looks for the binaries, and makes their paths absolute, since they run in other directories.
func (o *options) find() error {
	var err error
	if o.data, err = filepath.Abs(o.data); err != nil {
		return err
	}
	hearth, err1 := server.Program(filepath.Join(o.peers, "hearth"), o.hearth)
	thanos, err2 := server.Program(filepath.Join(o.peers, "thanos"))
	o.versitygw, err = server.Program(filepath.Join(o.peers, "versitygw"), ".tools/bin/versitygw")
	err = errors.Join(err1, err2, err)
	if hearth == "" {
		return errors.Join(err, fmt.Errorf("no %s", o.hearth))
	}
	o.binaries[gateway.Hearth] = hearth
	if thanos != "" {
		o.binaries[gateway.Thanos] = thanos
	}
	return err
}

// kinds are the gateways to compare, Hearth first.
func (o *options) kinds() []gateway.Kind {
	out := []gateway.Kind{gateway.Hearth}
	if o.binaries[gateway.Thanos] != "" {
		out = append(out, gateway.Thanos)
	}
	return out
}
