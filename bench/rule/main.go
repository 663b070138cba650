package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
)

func main() { server.Main("rule", run) }

// options of a run.
type options struct {
	flags                 *flag.FlagSet
	peers, hearth, out    string
	rules, groups, rulers int
	series                int
	interval, span        time.Duration
}

func parse(args []string) (*options, error) {
	o := &options{flags: flag.NewFlagSet("rule", flag.ContinueOnError)}
	o.flags.StringVar(&o.peers, "peers", "", "directory with thanos; without it Hearth is measured alone")
	o.flags.StringVar(&o.hearth, "hearth", "bin/hearth", "Hearth's binary")
	o.flags.StringVar(&o.out, "out", "", "page to write the table into")
	o.flags.IntVar(&o.rules, "rules", 10_000, "rules of all groups")
	o.flags.IntVar(&o.groups, "groups", 500, "groups")
	o.flags.IntVar(&o.rulers, "rulers", 3, "rulers of each kind")
	o.flags.IntVar(&o.series, "series", 10_000, "series that the rules read")
	o.flags.DurationVar(&o.interval, "interval", time.Minute, "interval of the groups")
	o.flags.DurationVar(&o.span, "for", time.Hour, "how long each kind is measured")
	err := server.Parse(o.flags, args)
	if err == nil && (o.groups < o.rulers || o.rules < o.groups || o.interval < time.Second || o.span < 4*o.interval) {
		err = errors.New("want a rule for each group, a group for each ruler, and four intervals at least")
	}
	return o, err
}

// bed is what all rulers are measured on.
type bed struct {
	*options
	dir        string
	base, join string // the process that stores and answers: its HTTP address, and that for gossip
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hearth-bench-rule-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ports, err := server.Ports(4)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(o.hearth)
	if err != nil {
		return err
	}
	b := &bed{options: o, dir: dir, base: "http://" + server.Address(ports[0]), join: server.Address(ports[2])}
	p, err := server.Start("all", path, dir, "all", "--http-address="+server.Address(ports[0]),
		"--grpc-address="+server.Address(ports[1]), "--gossip.address="+b.join, "--gossip.join="+b.join,
		"--remote-write.address="+server.Address(ports[3]), "--data-dir="+filepath.Join(dir, "all"),
		"--self-scrape.interval=0s")
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := b.ready(ctx, b.base); err != nil {
		return errors.Join(err, errors.New(p.Tail(20)))
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	go b.send(sending, "http://"+server.Address(ports[3]))
	kinds := []kind{{name: "hearth", path: path, start: b.startHearth}}
	if o.peers != "" {
		thanos, err := filepath.Abs(filepath.Join(o.peers, "thanos"))
		if err != nil {
			return err
		}
		kinds = append(kinds, kind{name: "thanos", path: thanos, start: b.startThanos})
	}
	var rows []row
	for _, k := range kinds {
		fmt.Fprintln(log, "measuring", k.name)
		r, err := b.measure(ctx, k, p)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		rows = append(rows, r)
	}
	return server.Publish(out, o.out, report(o, rows))
}

func (b *bed) ready(ctx context.Context, base string) error {
	return server.Poll(ctx, 2*time.Minute, func(ctx context.Context) error {
		_, err := server.Get(ctx, base+"/-/ready")
		return err
	})
}

// kind is a kind of rulers.
type kind struct {
	name, path string
	start      func(k kind) (all []*server.Process, urls []string, err error)
}

// send writes a sample of each series every 15 s.
func (b *bed) send(ctx context.Context, base string) {
	const batch = 2000
	for {
		now := time.Now().UnixMilli()
		for at := 0; at < b.series; at += batch {
			req := &prompb.WriteRequest{}
			for i := at; i < min(at+batch, b.series); i++ {
				req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
					Labels: []prompb.Label{{Name: "__name__", Value: "bench_metric"}, {Name: "instance", Value: fmt.Sprint(i)},
						{Name: "job", Value: fmt.Sprint("job-", i%20)}, {Name: "shard", Value: fmt.Sprint(i % b.groups)}},
					Samples: []prompb.Sample{{Timestamp: now, Value: float64(i)}}})
			}
			raw, err := req.Marshal()
			if err != nil {
				panic(err) // the request is ours
			}
			_ = server.Post(ctx, base+"/api/v1/receive", samples.Options{}.Header(""), snappy.Encode(nil, raw))
		}
		if server.Pause(ctx, 15*time.Second) != nil {
			return
		}
	}
}

// ruleFile writes groups from and up to below to, and returns the path. Names of series begin with prefix.
func (b *bed) ruleFile(name, prefix string, from, to int) (string, error) {
	var s strings.Builder
	s.WriteString("groups:\n")
	each := b.rules / b.groups
	for g := from; g < to; g++ {
		fmt.Fprintf(&s, "- name: g%d\n  interval: %s\n  rules:\n", g, b.interval)
		for i := range each {
			fmt.Fprintf(&s, "  - {record: %s, expr: 'sum by (job) (bench_metric{shard=\"%d\"}) + %d', "+
				"labels: {g: '%d', i: '%d'}}\n", prefix, g, i, g, i)
		}
	}
	path := filepath.Join(b.dir, name+".yml")
	return path, os.WriteFile(path, []byte(s.String()), 0o644)
}

// startHearth starts rulers that have all groups and share them.
func (b *bed) startHearth(k kind) (all []*server.Process, urls []string, err error) {
	file, err := b.ruleFile(k.name, k.name+":sum", 0, b.groups)
	if err != nil {
		return nil, nil, err
	}
	for i := range b.rulers {
		ports, err := server.Ports(3)
		if err != nil {
			return all, nil, err
		}
		name := fmt.Sprint(k.name, "-", i)
		p, err := server.Start(name, k.path, b.dir, "rule", "--http-address="+server.Address(ports[0]),
			"--grpc-address="+server.Address(ports[1]), "--gossip.address="+server.Address(ports[2]), "--gossip.join="+b.join,
			"--data-dir="+filepath.Join(b.dir, name), "--rule-file="+file, "--query="+b.base)
		if err != nil {
			return all, nil, err
		}
		all, urls = append(all, p), append(urls, "http://"+server.Address(ports[0]))
	}
	return all, urls, nil
}

// startThanos starts rulers that have a part of the groups each: they cannot share them.
func (b *bed) startThanos(k kind) (all []*server.Process, urls []string, err error) {
	config := filepath.Join(b.dir, "remote-write.yml")
	err = os.WriteFile(config, []byte("remote_write: [{url: '"+b.base+"/api/v1/receive'}]\n"), 0o644)
	if err != nil {
		return nil, nil, err
	}
	for i := range b.rulers {
		name := fmt.Sprint(k.name, "-", i)
		file, err := b.ruleFile(name, k.name+":sum", i*b.groups/b.rulers, (i+1)*b.groups/b.rulers)
		if err != nil {
			return all, nil, err
		}
		ports, err := server.Ports(2)
		if err != nil {
			return all, nil, err
		}
		p, err := server.Start(name, k.path, b.dir, "rule", "--http-address="+server.Address(ports[0]),
			"--grpc-address="+server.Address(ports[1]), "--data-dir="+filepath.Join(b.dir, name), "--rule-file="+file,
			"--query="+b.base, "--remote-write.config-file="+config, "--log.level=warn")
		if err != nil {
			return all, nil, err
		}
		all, urls = append(all, p), append(urls, "http://"+server.Address(ports[0]))
	}
	return all, urls, nil
}
