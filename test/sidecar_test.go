package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/bench/gateway"
)

// scraped is a Prometheus with data of the last hours, for sidecars beside it.
type scraped struct {
	t      *testing.T
	p      *process
	base   string
	dir    string // of its data
	config string // file
	args   []string
}

const sidecarConfig = `global: {external_labels: {%s}}
storage: {tsdb: {out_of_order_time_window: 1h}}
`

// startScraped starts a Prometheus whose external labels are given, without data.
func startScraped(t *testing.T, external string, flags ...string) *scraped {
	t.Helper()
	dir := t.TempDir()
	port := freePorts(t, 1)[0]
	s := &scraped{t: t, base: "http://" + addr(port), dir: filepath.Join(dir, "data"),
		config: filepath.Join(dir, "prometheus.yml")}
	s.label(external)
	s.args = append([]string{"--config.file=" + s.config, "--storage.tsdb.path=" + s.dir,
		"--web.listen-address=" + addr(port), "--web.enable-lifecycle", "--web.enable-remote-write-receiver",
		"--enable-feature=exemplar-storage", "--log.level=warn", "--storage.tsdb.retention.time=10y"}, flags...)
	s.start()
	return s
}

func (s *scraped) label(external string) {
	s.t.Helper()
	if err := os.WriteFile(s.config, fmt.Appendf(nil, sidecarConfig, external), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scraped) start() {
	s.t.Helper()
	s.p = start(s.t, "prometheus", tool(s.t, "prometheus"), nil, s.args...)
	s.p.ready(s.base+"/-/ready", 2*time.Minute)
}

// fill writes series of floats and histograms, a sample a minute, from hours ago until now.
func (s *scraped) fill(hours int) {
	s.t.Helper()
	var sets []labels.Labels
	for i := range 40 {
		b := labels.NewBuilder(labels.FromStrings("__name__", fmt.Sprint("metric_", i%4), "instance", fmt.Sprint(i)))
		switch i % 8 {
		case 1:
			b.Set("a", "1")
		case 2:
			b.Set("zone.utf8 ü", "x\"y")
		case 3:
			b.Set("cluster", "own").Set("replica", fmt.Sprint(i))
		case 4:
			b.Set("replica", "r")
		}
		sets = append(sets, b.Labels())
		if i%5 == 0 {
			sets = append(sets, labels.NewBuilder(b.Labels()).Set("b", "2").Labels())
		}
	}
	from := time.Now().Add(-time.Duration(hours) * time.Hour).Truncate(time.Minute)
	for part := range hours * 6 { // of ten minutes
		req := &prompb.WriteRequest{}
		for i, ls := range sets {
			one := prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil)}
			for m := range 10 {
				at := from.Add(time.Duration(part*10+m) * time.Minute).UnixMilli()
				if i%9 == 8 {
					one.Histograms = append(one.Histograms, prompb.FromIntHistogram(at,
						tsdbutil.GenerateTestHistogram(int64(part*10+m))))
					continue
				}
				one.Samples = append(one.Samples, prompb.Sample{Timestamp: at, Value: float64(part*10 + m + i)})
			}
			req.Timeseries = append(req.Timeseries, one)
		}
		eventually(s.t, 20*time.Second, func() error {
			_, err := do(http.MethodPost, s.base+"/api/v1/write", writeHeader(nil), encode(req))
			return err
		})
	}
}

// sidecarOf starts a sidecar of s by a binary, and returns its HTTP address and a client of its gRPC port.
func (s *scraped) sidecarOf(name, binary string, flags ...string) (p *process, base string, c *gateway.Client) {
	s.t.Helper()
	ports := freePorts(s.t, 2)
	p = start(s.t, name, binary, nil, append([]string{"sidecar", "--prometheus.url=" + s.base, "--tsdb.path=" + s.dir,
		"--http-address=" + addr(ports[0]), "--grpc-address=" + addr(ports[1]), "--prometheus.get_config_interval=1s"},
		flags...)...)
	base = "http://" + addr(ports[0])
	p.ready(base+"/-/ready", time.Minute)
	c, err := gateway.Dial(addr(ports[1]))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return p, base, c
}

// bucketFile describes a bucket in dir.
func bucketFile(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bucket.yml")
	if err := os.WriteFile(file, []byte(gateway.Directory(dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// shippedBlocks are the blocks in a bucket whose meta.json is there.
func shippedBlocks(t *testing.T, dir string) []string {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range metas {
		metas[i] = filepath.Base(filepath.Dir(metas[i]))
	}
	slices.Sort(metas)
	return metas
}

// TestSidecar is the life of a sidecar: it reads, ships so that delayed compaction goes on, writes the configuration,
// and says so while Prometheus is away, also when that is killed in the middle of answers.
func TestSidecar(t *testing.T) {
	t.Parallel()
	bucket := t.TempDir()
	s := startScraped(t, "cluster: eu, replica: r0")
	s.p.kill()
	s.args = append(s.args, "--storage.tsdb.delay-compact-file.path="+filepath.Join(s.dir, "thanos.shipper.json"))
	template := filepath.Join(t.TempDir(), "template.yml")
	text := fmt.Appendf(nil, sidecarConfig, "cluster: $(CLUSTER), replica: r0")
	if err := os.WriteFile(template, text, 0o644); err != nil {
		t.Fatal(err)
	}
	// Prometheus cannot start before the sidecar has written its configuration.
	if err := os.Remove(s.config); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 4)
	p := start(t, "sidecar", hearthBinary, []string{"CLUSTER=us"}, "sidecar", "--prometheus.url="+s.base,
		"--tsdb.path="+s.dir, "--http-address="+addr(ports[0]), "--grpc-address="+addr(ports[1]),
		"--objstore.config-file="+bucketFile(t, bucket), "--prometheus.get_config_interval=1s",
		"--reloader.config-file="+template, "--reloader.config-envsubst-file="+s.config, "--reloader.retry-interval=1s")
	eventually(t, 30*time.Second, func() error {
		_, err := os.Stat(s.config)
		return err
	})
	s.start()
	base := "http://" + addr(ports[0])
	p.ready(base+"/-/ready", time.Minute)
	s.fill(7)

	// A querier of Hearth's: what it answers is what Prometheus answers, with the external labels.
	querier := hearth(t, "query", "query", "--http-address="+addr(ports[2]), "--grpc-address="+addr(ports[3]),
		"--endpoint="+addr(ports[1]))
	asked := api{base: "http://" + addr(ports[2])}
	querier.ready(asked.base+"/-/ready", 30*time.Second)
	count := func(expr string) (float64, error) {
		ans, err := asked.query(expr, time.Now())
		if err != nil {
			return 0, err
		}
		if len(ans.Warnings) > 0 {
			return 0, errors.New(strings.Join(ans.Warnings, "; "))
		}
		return scalarOf(ans)
	}
	const all = `count(last_over_time({__name__=~"metric_.*"}[6h]))`
	want := 0.0
	eventually(t, 30*time.Second, func() error {
		ans, err := api{base: s.base}.query(all, time.Now())
		if err == nil {
			want, err = scalarOf(ans)
		}
		return err
	})
	eventually(t, 30*time.Second, func() error {
		got, err := count(strings.Replace(all, "}[", `, cluster="us", replica="r0"}[`, 1))
		if err == nil && got > want { // series that differ in nothing but an external label become one
			err = fmt.Errorf("%v series, Prometheus has %v", got, want)
		}
		return err
	})
	full, err := count(all)
	if err != nil {
		t.Fatal(err)
	}

	// Blocks are shipped, and Prometheus compacts them afterwards, since the list names them.
	eventually(t, 3*time.Minute, func() error {
		if n := len(shippedBlocks(t, bucket)); n < 2 {
			return fmt.Errorf("%d blocks are in the bucket", n)
		}
		return nil
	})

	// Killed while answers are under way: they are whole, or they fail.
	stop := time.Now().Add(10 * time.Second)
	killed := false
	for time.Now().Before(stop) {
		if got, err := count(all); err == nil && got != full {
			t.Fatalf("%v series, want %v or an error", got, full)
		} else if err != nil && killed {
			break
		}
		if !killed && rand.IntN(3) == 0 {
			s.p.kill()
			killed = true
		}
	}
	if !killed {
		s.p.kill()
	}
	eventually(t, 20*time.Second, func() error {
		if _, err := get(base+"/-/ready", nil); status(err) != http.StatusServiceUnavailable {
			return fmt.Errorf("the sidecar without Prometheus: %v", err)
		}
		return nil
	})
	if _, err := count(all); err == nil {
		t.Error("a query without Prometheus is complete")
	}

	// It comes back with other labels, which are found without a restart of the sidecar.
	if err := os.WriteFile(template, fmt.Appendf(nil, sidecarConfig, "cluster: asia, replica: r0"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		text, err := os.ReadFile(s.config)
		if err == nil && !strings.Contains(string(text), "asia") {
			err = errors.New("not written yet")
		}
		return err
	})
	s.start()
	eventually(t, 60*time.Second, func() error {
		got, err := count(strings.Replace(all, "}[", `, cluster="asia"}[`, 1))
		if err == nil && got != full {
			err = fmt.Errorf("%v series, want %v", got, full)
		}
		return err
	})
	eventually(t, 30*time.Second, func() error {
		text, err := get(base+"/metrics", nil)
		if err == nil && !strings.Contains(string(text), "\nthanos_sidecar_reloader_last_reload_successful 1\n") {
			err = errors.New("not reloaded")
		}
		return err
	})
	p.stop(20 * time.Second)
}
