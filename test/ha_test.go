package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// startProbe is a program to scrape that gives each scraper the value that it asks for, so that samples tell who
// brought them.
func startProbe(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "# TYPE probe gauge\nprobe %s\n", r.URL.Query().Get("who"))
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// replicaConfig makes a Prometheus one of a pair: it scrapes the probe twice a second, and differs from the other in
// its replica label only.
func replicaConfig(probe, writeURL, message, replica string, who int) string {
	return fmt.Sprintf(
		`global: {scrape_interval: 500ms, scrape_timeout: 400ms, external_labels: {cluster: eu, __replica__: %q}}
scrape_configs:
- job_name: probe
  params: {who: ['%d']}
  static_configs: [{targets: ['%s']}]
remote_write:
- url: %s/api/v1/receive
  protobuf_message: %s
  queue_config: {batch_send_deadline: 500ms}
  metadata_config: {send: false}
`,
		replica,
		who,
		probe,
		writeURL,
		message,
	)
}

// startReplica runs a Prometheus with a configuration, on a port and in a directory that a later run may have again.
func startReplica(t *testing.T, name, dir string, port int, config string) *process {
	t.Helper()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, name, tool(t, "prometheus"), nil, "--config.file="+file,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr(port), "--log.level=warn")
	p.ready("http://"+addr(port)+"/-/ready", 60*time.Second)
	return p
}

// probeSample is one stored sample of the probe.
type probeSample struct {
	at    float64 // Unix seconds
	value string
}

// probeSamples are all that are stored, and the labels of their one series.
func probeSamples(a api, at time.Time) (map[string]string, []probeSample, error) {
	ans, err := a.query(`probe[10m]`, at)
	if err != nil {
		return nil, nil, err
	}
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	if err := json.Unmarshal(ans.Data, &data); err != nil {
		return nil, nil, err
	}
	if len(data.Result) != 1 {
		return nil, nil, fmt.Errorf("%d series of the probe: %s", len(data.Result), ans.Data)
	}
	var samples []probeSample
	for _, v := range data.Result[0].Values {
		samples = append(samples, probeSample{v[0].(float64), v[1].(string)})
	}
	return data.Result[0].Metric, samples, nil
}

// reached waits until a sample of at or later is stored.
func reached(t *testing.T, samples func() []probeSample, at time.Time) {
	t.Helper()
	eventually(t, time.Until(at)+20*time.Second, func() error {
		all := samples()
		if len(all) == 0 || all[len(all)-1].at < seconds64(at) {
			return fmt.Errorf("%d samples, none of %s or later", len(all), at)
		}
		return nil
	})
}

// onlyFrom checks that from a time on samples of one replica are stored, each once, and that there are enough of them.
func onlyFrom(samples []probeSample, value string, from time.Time, atLeast int) error {
	n, last := 0, 0.0
	for _, s := range samples {
		if s.at < seconds64(from) {
			continue
		}
		if s.value != value {
			return fmt.Errorf("a sample of replica %s at %.3f, %.1fs after replica %s should be alone", s.value, s.at,
				s.at-seconds64(from), value)
		}
		if s.at-last < 0.2 {
			return fmt.Errorf("two samples within %.3fs", s.at-last)
		}
		n, last = n+1, s.at
	}
	if n < atLeast {
		return fmt.Errorf("%d samples of replica %s, want %d", n, value, atLeast)
	}
	return nil
}

func seconds64(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// TestHAPair: a real pair of Prometheus servers writes to one process; and each of it to another one of a cluster.
func TestHAPair(t *testing.T) {
	flags := []string{"--limits.default=ha_pairs=true", "--self-scrape.interval=0s",
		"--distributor.ha-tracker.update-timeout=2s", "--distributor.ha-tracker.update-timeout-jitter-max=1s",
		"--distributor.ha-tracker.failover-timeout=6s"}
	t.Run("one process", func(t *testing.T) {
		t.Parallel()
		n := newPlainNode(t, "all", "all", flags...)
		n.start()
		n.waitReady()
		checkPair(t, n, n)
	})
	t.Run("gossip", func(t *testing.T) {
		t.Parallel()
		bucket := "--objstore.config=type: FILESYSTEM\nconfig: {directory: " + t.TempDir() + "}"
		var nodes []*node
		gossip := freePorts(t, 2)
		for i := range 2 {
			n := newPlainNode(t, "all-"+strconv.Itoa(i), "all", flags...)
			n.args = append(n.args, bucket, "--gossip.address="+addr(gossip[i]), "--gossip.join="+addr(gossip[0]),
				"--gossip.join="+addr(gossip[1]), "--receive.replication-factor=2")
			n.start()
			nodes = append(nodes, n)
		}
		for _, n := range nodes {
			n.waitReady()
		}
		eventually(t, 30*time.Second, func() error {
			return do204(nodes[0].url("/api/v1/receive"), writeBody("settled", 1, time.Now().UnixMilli()))
		})
		checkPair(t, nodes[0], nodes[1])
	})
}

func do204(url string, body []byte) error {
	_, err := do(http.MethodPost, url, writeHeader(nil), body)
	return err
}

// checkPair runs a pair of which one writes to a and the other to b, which agree on whose samples are kept.
func checkPair(t *testing.T, a, b *node) {
	probe := startProbe(t)
	ports := freePorts(t, 2)
	dirs := []string{t.TempDir(), t.TempDir()}
	configs := []string{
		replicaConfig(probe, "http://"+a.http, "prometheus.WriteRequest", "one", 1),
		replicaConfig(probe, "http://"+b.http, "io.prometheus.write.v2.Request", "two", 2),
	}
	one := startReplica(t, "prometheus-one", dirs[0], ports[0], configs[0])
	api := a.api("")
	samples := func() []probeSample {
		t.Helper()
		metric, samples, err := probeSamples(api, time.Now())
		if err != nil {
			return nil
		}
		if metric["cluster"] != "eu" || metric["__replica__"] != "" {
			t.Errorf("labels of the probe: %v", metric)
		}
		return samples
	}
	eventually(t, 30*time.Second, func() error { return onlyFrom(samples(), "1", time.Time{}, 3) })

	startReplica(t, "prometheus-two", dirs[1], ports[1], configs[1])
	second := time.Now()
	reached(t, samples, second.Add(12*time.Second)) // longer than a failover takes
	if err := onlyFrom(samples(), "1", time.Time{}, 20); err != nil {
		t.Fatal(err)
	}
	dropped := `sum(hearth_distributor_ha_dropped_samples_total)`
	if n := metricSum(t, b.url("/metrics"), "hearth_distributor_ha_dropped_samples_total"); n < 10 {
		t.Errorf("%s is %v", dropped, n)
	}
	// The sender of what is dropped sees nothing wrong.
	base := "http://" + addr(ports[1]) + "/metrics"
	if n := metricSum(t, base, "prometheus_remote_storage_samples_failed_total"); n != 0 {
		t.Errorf("the replica that is not elected counts %v failed samples", n)
	}
	if n := metricSum(t, base, "prometheus_remote_storage_samples_total"); n < 10 {
		t.Errorf("the replica that is not elected has sent %v samples", n)
	}

	one.kill()
	killed := time.Now()
	eventually(t, 30*time.Second, func() error { return onlyFrom(samples(), "2", killed.Add(time.Second), 4) })
	all := samples()
	gap := 0.0
	for i := range all[1:] {
		gap = max(gap, all[i+1].at-all[i].at)
	}
	t.Logf("longest time without a sample: %.1fs", gap)
	if gap > 15 {
		t.Errorf("%.1fs without a sample; failover should take 6s and up to 3s, and a queue's second", gap)
	}

	startReplica(t, "prometheus-one-again", dirs[0], ports[0], configs[0])
	reached(t, samples, time.Now().Add(5*time.Second))
	if err := onlyFrom(samples(), "2", killed.Add(time.Second), 10); err != nil {
		t.Errorf("the first replica is back: %v", err)
	}
}

// metricSum adds up the series of a metric on a page of metrics.
func metricSum(t *testing.T, url, name string) float64 {
	t.Helper()
	page, err := get(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := server.SumOf(page, name)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
