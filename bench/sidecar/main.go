// Command sidecar measures what a large answer costs a sidecar, beside Thanos's sidecar on the same Prometheus.
//
// Flow: a Prometheus with many series -> each sidecar in turn: at rest, then the same answers -> CPU and memory ->
// table
//
// Invariants: both read the same Prometheus with the same samples, and each answer has all series or the run fails.
//
// Locks: none.
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

	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/bench/samples"
	"github.com/hearth-metrics/hearth/bench/server"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

func main() { server.Main("sidecar", run) }

// options of a run.
type options struct {
	flags                    *flag.FlagSet
	peers, hearth, prom, out string
	series, samples, answers int
	rest                     time.Duration
}

func parse(args []string) (*options, error) {
	o := &options{flags: flag.NewFlagSet("sidecar", flag.ContinueOnError)}
	o.flags.StringVar(&o.peers, "peers", "", "directory with thanos; without it Hearth is measured alone")
	o.flags.StringVar(&o.hearth, "hearth", "bin/hearth", "Hearth's binary")
	o.flags.StringVar(&o.prom, "prometheus", ".tools/bin/prometheus", "Prometheus's binary")
	o.flags.StringVar(&o.out, "out", "", "page to write the table into")
	o.flags.IntVar(&o.series, "series", 2_000_000, "series of an answer")
	o.flags.IntVar(&o.samples, "samples", 5, "samples of each series")
	o.flags.IntVar(&o.answers, "answers", 3, "answers of each sidecar")
	o.flags.DurationVar(&o.rest, "rest", 10*time.Second, "time at rest before the answers")
	return o, server.Parse(o.flags, args)
}

// row is what was measured of one sidecar.
type row struct {
	name         string
	idle, peak   int64
	cpu, promCPU float64 // s for an answer
	took         time.Duration
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hearth-bench-sidecar-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	prom, base, err := startPrometheus(ctx, o, dir)
	if err != nil {
		return err
	}
	defer prom.Kill()
	fmt.Fprintf(log, "writing %d series of %d samples\n", o.series, o.samples)
	if err := fill(ctx, o, base); err != nil {
		return err
	}
	binaries := []struct{ name, path string }{{"hearth", o.hearth}}
	if o.peers != "" {
		binaries = append(binaries, struct{ name, path string }{"thanos", filepath.Join(o.peers, "thanos")})
	}
	var rows []row
	for _, b := range binaries {
		fmt.Fprintln(log, "measuring", b.name)
		r, err := bed{o, dir, base, prom}.measure(ctx, b.name, b.path)
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	return server.Publish(out, o.out, report(o, rows))
}

func startPrometheus(ctx context.Context, o *options, dir string) (*server.Process, string, error) {
	config := filepath.Join(dir, "prometheus.yml")
	err := os.WriteFile(config, []byte("global: {external_labels: {prometheus: bench, prometheus_replica: r0}}\n"), 0o644)
	if err != nil {
		return nil, "", err
	}
	path, err := filepath.Abs(o.prom)
	if err != nil {
		return nil, "", err
	}
	ports, err := server.Ports(1)
	if err != nil {
		return nil, "", err
	}
	p, err := server.Start("prometheus", path, dir, "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+server.Address(ports[0]), "--web.enable-remote-write-receiver", "--log.level=warn")
	if err != nil {
		return nil, "", err
	}
	base := "http://" + server.Address(ports[0])
	return p, base, ready(ctx, base)
}

func ready(ctx context.Context, base string) error {
	return server.Poll(ctx, time.Minute, func(ctx context.Context) error {
		_, err := server.Get(ctx, base+"/-/ready")
		return err
	})
}

// batchSeries is how many series a request writes.
const batchSeries = 5000

func fill(ctx context.Context, o *options, base string) error {
	from := time.Now().Add(-time.Duration(o.samples) * 15 * time.Second).UnixMilli()
	for at := 0; at < o.series; at += batchSeries {
		req := &prompb.WriteRequest{}
		for i := at; i < min(at+batchSeries, o.series); i++ {
			one := prompb.TimeSeries{Labels: []prompb.Label{
				{Name: "__name__", Value: fmt.Sprintf("bench_metric_%d", i%10)}, {Name: "instance", Value: fmt.Sprint(i)},
				{Name: "job", Value: "bench"}, {Name: "pod", Value: fmt.Sprintf("pod-%08x", i*2654435761)}}}
			for n := range o.samples {
				one.Samples = append(one.Samples, prompb.Sample{Timestamp: from + int64(n)*15_000, Value: float64(i + n)})
			}
			req.Timeseries = append(req.Timeseries, one)
		}
		raw, err := req.Marshal()
		if err != nil {
			return err
		}
		if err := server.Post(ctx, base+"/api/v1/write", samples.Options{}.Header(""), snappy.Encode(nil, raw)); err != nil {
			return err
		}
	}
	return nil
}

// bed is what all sidecars are measured on.
type bed struct {
	*options
	dir, base string // a directory for files, and the address of Prometheus
	prom      *server.Process
}

func (o bed) measure(ctx context.Context, name, binary string) (r row, err error) {
	path, err := filepath.Abs(binary)
	if err != nil {
		return r, err
	}
	ports, err := server.Ports(2)
	if err != nil {
		return r, err
	}
	p, err := server.Start(name, path, o.dir, "sidecar", "--prometheus.url="+o.base,
		"--http-address="+server.Address(ports[0]),
		"--grpc-address="+server.Address(ports[1]))
	if err != nil {
		return r, err
	}
	defer p.Kill()
	if err := ready(ctx, "http://"+server.Address(ports[0])); err != nil {
		return r, err
	}
	if err := server.Pause(ctx, o.rest); err != nil {
		return r, err
	}
	idle, err := p.Usage()
	if err != nil {
		return r, err
	}
	promBefore, err := o.prom.Usage()
	if err != nil {
		return r, err
	}
	c, err := gateway.Dial(server.Address(ports[1]))
	if err != nil {
		return r, err
	}
	defer c.Close()
	began := time.Now()
	for range o.answers {
		n, err := c.Count(ctx, &thanospb.SeriesRequest{MaxTime: time.Now().UnixMilli(), Matchers: []*thanospb.LabelMatcher{
			{Type: thanospb.LabelMatcher_RE, Name: "__name__", Value: "bench_metric_.*"}}})
		if err == nil && n != o.series {
			err = fmt.Errorf("an answer of %s has %d series, want %d", name, n, o.series)
		}
		if err != nil {
			return r, err
		}
	}
	took := time.Since(began) / time.Duration(o.answers)
	after, err1 := p.Usage()
	promAfter, err2 := o.prom.Usage()
	per := float64(o.answers)
	r = row{name: name, idle: idle.Resident, peak: after.Peak, cpu: (after.CPU - idle.CPU) / per,
		promCPU: (promAfter.CPU - promBefore.CPU) / per, took: took}
	return r, errors.Join(err1, err2)
}

func report(o *options, rows []row) string {
	var b strings.Builder
	m := server.ThisMachine()
	fmt.Fprintf(&b, "%s. An answer has %d series of %d samples, read %d times by each.\n\n", m, o.series, o.samples,
		o.answers)
	if m.Busy() {
		b.WriteString("The machine was busy with other work: ratios of CPU and sizes of memory count, times do not.\n\n")
	}
	b.WriteString("| sidecar | memory at rest | memory at most | CPU of an answer | CPU of Prometheus | " +
		"time of an answer |\n")
	b.WriteString("|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d MiB | %d MiB | %.2f s | %.2f s | %.1f s |\n", r.name, r.idle>>20, r.peak>>20, r.cpu,
			r.promCPU, r.took.Seconds())
	}
	fmt.Fprintf(&b, "\nFlags of the run:%s.\n", server.Arguments(o.flags, "peers", "hearth", "prometheus", "out"))
	return b.String()
}
