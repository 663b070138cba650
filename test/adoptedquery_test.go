package test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/block"
)

// history writes series of all common kinds for a range of times, to whoever takes remote write: counters that are
// reset, gauges, a histogram of le buckets. A gap is left out.
type history struct {
	from, to time.Time
	every    time.Duration
	offset   time.Duration
	gap      time.Duration // left out, from the middle on
}

// write sends it, oldest first.
func (h history) write(t *testing.T, url string, header http.Header) {
	t.Helper()
	middle := h.from.Add(h.to.Sub(h.from) / 2)
	for from := h.from; from.Before(h.to); from = from.Add(time.Hour) {
		byName := map[string]*prompb.TimeSeries{}
		add := func(at int64, v float64, labels ...string) {
			name := strings.Join(labels, " ")
			if byName[name] == nil {
				ts := sample(at, v, labels...)
				ts.Samples = nil
				byName[name] = &ts
			}
			byName[name].Samples = append(byName[name].Samples, prompb.Sample{Timestamp: at, Value: v})
		}
		for at := from.Add(h.offset); at.Before(from.Add(time.Hour)); at = at.Add(h.every) {
			if at.Before(middle) || !at.Before(middle.Add(h.gap)) {
				h.sampled(at.UnixMilli(), add)
			}
		}
		req := &prompb.WriteRequest{}
		for _, ts := range byName {
			req.Timeseries = append(req.Timeseries, *ts)
		}
		if len(req.Timeseries) == 0 {
			continue
		}
		if _, err := do(http.MethodPost, url, writeHeader(header), encode(req)); err != nil {
			t.Fatal(err)
		}
	}
}

// sampled adds what all series are at a time.
func (h history) sampled(at int64, add func(at int64, v float64, labels ...string)) {
	minute := at / 60_000
	for i := range 3 {
		instance := fmt.Sprint(i)
		for _, job := range []string{"api", "web"} {
			life := int64(500 + 700*i) // minutes from one reset to the next
			add(at, float64(minute%life*int64(2+i+len(job))), "__name__", "requests_total", "instance", instance, "job", job)
		}
		add(at, math.Round(1000*math.Sin(float64(minute)/200+float64(i)))/8, "__name__", "temperature", "instance", instance)
		count := 0.0
		for n, le := range []string{"0.1", "1", "+Inf"} {
			count += float64(minute % 3000 * int64(n+1+i))
			add(at, count, "__name__", "latency_bucket", "instance", instance, "le", le)
		}
	}
	if minute/600%2 == 0 { // not always there
		add(at, 1, "__name__", "leader", "instance", fmt.Sprint(minute/1200%3))
	}
}

// adoptedQueries are asked of both programs. resets() is not among them: Thanos answers 0.
var adoptedQueries = []string{
	`temperature`, `sum(temperature)`, `temperature > 50`, `topk(2, temperature)`, `temperature offset 1d`,
	`count(temperature)`,
	`rate(requests_total[4h])`, `sum by (job) (increase(requests_total[6h]))`, `max by (instance) (irate(requests_total[3h]))`,
	`histogram_quantile(0.9, sum by (le) (rate(latency_bucket[4h])))`,
	`avg_over_time(temperature[3h])`, `max_over_time(temperature[3h])`, `min_over_time(temperature[3h])`,
	`sum_over_time(temperature[3h])`, `count_over_time(temperature[3h])`, `last_over_time(temperature[3h])`,
	`quantile_over_time(0.5, temperature[6h])`, `delta(temperature[6h])`, `changes(leader[1d])`, `absent(leader{instance="1"})`,
	`requests_total{job=~"a.+"} * on (instance) group_left () max by (instance) (temperature)`, `{__name__=~"lead.*"}`,
	`max_over_time(rate(requests_total{job="web"}[2h])[1d:2h])`,
}

// queriers are a store gateway and a querier of each program on one bucket.
type queriers struct {
	t              *testing.T
	hearth, thanos api
	oracle         *api // a Prometheus that has the same samples; nil = Thanos is compared with
}

// newQueriers starts them on the bucket in dir, for a tenant.
func newQueriers(t *testing.T, dir, tenant string, replicaLabels ...string) queriers {
	t.Helper()
	h, th := gateways(t, dir, "--sync-block-duration=1s")
	begin := func(name, binary, endpoint string, more ...string) string {
		ports := freePorts(t, 2)
		args := append([]string{"query", "--http-address=" + addr(ports[0]), "--grpc-address=" + addr(ports[1]),
			"--endpoint=" + endpoint}, more...)
		for _, l := range replicaLabels {
			args = append(args, "--query.replica-label="+l)
		}
		base := "http://" + addr(ports[0])
		start(t, name, binary, nil, args...).ready(base+"/-/ready", time.Minute)
		eventually(t, time.Minute, func() error { // the querier knows its gateway
			h := tenantHeader(tenant)
			h.Set("THANOS-TENANT", tenant)
			names, err := api{base: base, header: h}.get("labels", nil)
			if err == nil && !strings.Contains(string(names.Data), "__name__") {
				err = fmt.Errorf("no names: %s %q", names.Data, names.Warnings)
			}
			return err
		})
		return base
	}
	q := queriers{t: t}
	q.hearth = api{base: begin("hearth-query", hearthBinary, h.GRPC), header: tenantHeader(tenant)}
	var tenancy []string
	if tenant != "default-tenant" {
		tenancy = []string{"--query.enforce-tenancy"}
	}
	q.thanos = api{base: begin("thanos-query", thanosBinary(t), th.GRPC, tenancy...),
		header: http.Header{"Thanos-Tenant": {tenant}}}
	return q
}

// ownLabels removes the label that Thanos shows and Hearth keeps to itself, and what Thanos says of the evaluation. own
// says that the external labels of a Prometheus are removed, too, which it does not show itself.
func ownLabels(v any, own bool) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "analysis")
		if m, ok := v["metric"].(map[string]any); ok {
			delete(m, "tenant_id")
			if own {
				delete(m, "cluster")
			}
		}
		for _, part := range v {
			ownLabels(part, own)
		}
	case []any:
		for _, part := range v {
			ownLabels(part, own)
		}
	}
	return v
}

// result is an answer to a query, without the tenant.
func (q queriers) result(a api, path string, params url.Values) json.RawMessage {
	q.t.Helper()
	ans, err := a.get(path, params)
	if err != nil {
		q.t.Fatal(err)
	}
	downsampled := func(warning string) bool { return strings.Contains(warning, "as data are downsampled") }
	if len(slices.DeleteFunc(ans.Warnings, downsampled)) > 0 {
		q.t.Errorf("%s of %s: warnings %q", path, params, ans.Warnings)
	}
	var data any
	if err := json.Unmarshal(ans.Data, &data); err != nil {
		q.t.Fatal(err)
	}
	raw, err := json.Marshal(ownLabels(data, q.oracle != nil))
	if err != nil {
		q.t.Fatal(err)
	}
	return raw
}

// scrapedQueries are those of what a Prometheus says of itself, native histograms among it.
var scrapedQueries = []string{`up`, `count({__name__=~"prometheus_.+"})`, `sum by (handler) (prometheus_http_requests_total)`,
	`rate(prometheus_tsdb_head_samples_appended_total[15s])`, `max_over_time(go_goroutines[10s])`,
	`histogram_quantile(0.9, sum by (le) (prometheus_http_request_duration_seconds_bucket))`,
	`histogram_quantile(0.5, sum(prometheus_http_request_duration_seconds))`,
	`histogram_count(prometheus_http_request_duration_seconds)`}

// downsampledQueries are those whose answers over windows are the same in both programs; docs/design/017 says where
// they are not, and why.
var downsampledQueries = []string{`sum_over_time(temperature[6h])`, `max_over_time(temperature[6h])`,
	`min_over_time(temperature[6h])`, `sum by (instance) (sum_over_time(requests_total[1d]))`}

// matrix is what is asked.
type matrix struct {
	queries, resolutions, dedup []string
	steps                       []string // seconds; nil = half an hour and two hours
}

// eachQuery calls f with each query at several steps, and as an instant one.
func (m matrix) eachQuery(from, to time.Time, f func(path string, params url.Values)) {
	steps := m.steps
	if steps == nil {
		steps = []string{"1800", "7200"}
	}
	for _, expr := range m.queries {
		for _, resolution := range m.resolutions {
			for _, dedup := range m.dedup {
				common := url.Values{"query": {expr}, "max_source_resolution": {resolution}, "dedup": {dedup}}
				for _, step := range steps {
					params := url.Values{"start": {seconds(from)}, "end": {seconds(to)}, "step": {step}}
					for k, v := range common {
						params[k] = v
					}
					f("query_range", params)
				}
				common.Set("time", seconds(from.Add(to.Sub(from)*9/10)))
				f("query", common)
			}
		}
	}
}

// compare asks Hearth and Thanos, or the oracle, everything. Half of the requests must have an answer.
func (q queriers) compare(from, to time.Time, m matrix) {
	q.t.Helper()
	faults, found, asked := 0, 0, 0
	m.eachQuery(from, to, func(path string, params url.Values) {
		other := q.thanos
		if q.oracle != nil {
			other = *q.oracle
		}
		want, got := q.result(other, path, params), q.result(q.hearth, path, params)
		asked++
		if d := diff(want, got); d != "" {
			if faults++; faults < 40 {
				q.t.Errorf("%s %s: %.400s", path, params.Encode(), d)
			}
		}
		if !strings.Contains(string(want), `"result":[]`) {
			found++
		}
	})
	q.t.Logf("%d requests, %d with an answer, %d differ", asked, found, faults)
	if found*2 < asked {
		q.t.Errorf("only %d of %d requests had an answer", found, asked)
	}
}

// blocksIn is how many blocks a directory has.
func blocksIn(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		_, unfinished := os.Stat(filepath.Join(dir, e.Name(), block.MetaName))
		if _, ok := block.ParseID(e.Name()); ok && unfinished == nil {
			n++
		}
	}
	return n
}

// compactWithThanos lets Thanos's compactor do all there is to do, and returns which resolutions the bucket has then.
func compactWithThanos(t *testing.T, dir string, flags ...string) string {
	t.Helper()
	runThanos(t, dir, append([]string{"compact", "--data-dir=" + t.TempDir(), "--consistency-delay=0s", "--delete-delay=1h",
		"--http-address=" + addr(freePorts(t, 1)[0]), "--log.level=warn"}, flags...)...)
	found := map[int64]bool{}
	for _, m := range metasIn(t, dir) {
		found[m.Thanos.Downsample.Resolution] = true
	}
	var all []string
	for _, r := range []int64{0, 300_000, 3_600_000} {
		if found[r] {
			all = append(all, fmt.Sprint(r))
		}
	}
	return strings.Join(all, " ")
}

// TestAdoptedFromThanosSidecar: sidecars of Thanos ship the blocks of two real Prometheus servers. Thanos's compactor
// merges and downsamples them. Hearth has them as the default tenant's, and answers PromQL as Thanos does.
func TestAdoptedFromThanosSidecar(t *testing.T) {
	thanosBinary(t)
	dir := t.TempDir()
	fortnight := time.Now().Truncate(14 * 24 * time.Hour)
	from, to := fortnight.Add(-14*24*time.Hour), fortnight.Add(6*time.Hour)
	var oracle api // the server that has no gap
	for i, replica := range []string{"a", "b"} {
		prometheus, base := startPrometheus(t, func(string) string {
			return fmt.Sprintf("global: {external_labels: {cluster: c, replica: %s}}", replica)
		}, "--web.enable-remote-write-receiver", "--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h")
		var data string
		for _, arg := range prometheus.cmd.Args {
			if path, ok := strings.CutPrefix(arg, "--storage.tsdb.path="); ok {
				data = path
			}
		}
		history{from: from, to: to, every: time.Minute, gap: time.Duration(i) * 20 * time.Hour}.write(t,
			base+"/api/v1/write", nil)
		cut := 0
		eventually(t, 3*time.Minute, func() error { // what is left stays in the head
			want := int(to.Sub(from).Hours()/2) - i*10 - 2
			if cut = blocksIn(t, data); cut < want {
				return fmt.Errorf("%d blocks, want %d", cut, want)
			}
			return nil
		})
		shipped, ports := blocksIn(t, dir), freePorts(t, 2)
		sidecar := start(t, "thanos-sidecar", thanosBinary(t), nil, "sidecar", "--tsdb.path="+data, "--prometheus.url="+base,
			"--http-address="+addr(ports[0]), "--grpc-address="+addr(ports[1]), "--objstore.config="+gateway.Directory(dir))
		eventually(t, 2*time.Minute, func() error {
			if n := blocksIn(t, dir) - shipped; n < cut {
				return fmt.Errorf("%d of %d blocks are shipped", n, cut)
			}
			return nil
		})
		sidecar.kill()
		if i == 0 {
			oracle.base = base
		} else {
			prometheus.kill()
		}
	}
	for _, m := range metasIn(t, dir) {
		if m.Thanos.Source != "sidecar" || m.Thanos.Labels["cluster"] != "c" {
			t.Fatalf("block %s: %+v", m.ULID, m.Thanos)
		}
	}
	asked := to.Add(-4 * time.Hour) // up to there all is shipped
	before := newQueriers(t, dir, "default-tenant", "replica")
	both := []string{"true", "false"}
	before.compare(asked.Add(-3*24*time.Hour), asked, matrix{queries: adoptedQueries,
		resolutions: []string{"0s"}, dedup: both})
	if got := compactWithThanos(t, dir); got != "0 300000 3600000" {
		t.Fatalf("resolutions after Thanos's compactor: %s", got)
	}
	q := newQueriers(t, dir, "default-tenant", "replica")
	early := fortnight.Add(-5 * 24 * time.Hour) // up to there all is downsampled to 1h
	q.compare(from.Add(24*time.Hour), early, matrix{queries: downsampledQueries,
		resolutions: []string{"5m"}, dedup: both})
	// In the gap of one server Thanos leaves windows of an hour out when it unites the two.
	q.compare(from.Add(24*time.Hour), early, matrix{queries: downsampledQueries,
		resolutions: []string{"1h"}, dedup: []string{"false"}})
	q.oracle = &oracle
	q.compare(from.Add(24*time.Hour), asked, matrix{
		queries:     append([]string{`resets(requests_total[1d])`}, adoptedQueries...),
		resolutions: []string{"0s"}, dedup: []string{"true"}})
	other := api{base: q.hearth.base, header: tenantHeader("team-a")}
	if got := string(q.result(other, "query", url.Values{"query": {"count(temperature)"}, "time": {seconds(asked)}})); !strings.
		Contains(got, `"result":[]`) {
		t.Errorf("another tenant has %s", got)
	}
}

// TestEndsOfWindowsBesideThanos: at the last samples of a downsampled block a range has one window more than elsewhere,
// in both programs (docs/design/017).
func TestEndsOfWindowsBesideThanos(t *testing.T) {
	thanosBinary(t)
	dir := t.TempDir()
	plan := blocks.DefaultPlan()
	plan.Blocks = 0
	plan.Large = &blocks.Large{Shape: blocks.Shape{Metrics: 4, Namespaces: 1, Pods: 2}, Range: 48 * time.Hour,
		Interval: time.Minute}
	if err := blocks.Write(t.Context(), dir, plan); err != nil {
		t.Fatal(err)
	}
	q := newQueriers(t, dir, blocks.LargeTenant)
	metric := blocks.MetricName(0)
	m := matrix{queries: []string{"sum(sum_over_time(" + metric + "[3h]))", "max(max_over_time(" + metric + "[3h]))"},
		resolutions: []string{"5m"}, dedup: []string{"false"}, steps: []string{"60"}}
	q.compare(plan.End.Add(-20*time.Minute), plan.End, m)
	last := url.Values{"time": {seconds(plan.End.Add(-time.Minute))}, "dedup": {"false"}}
	for resolution, want := range map[string]string{"0s": `"180"`, "5m": `"185"`} {
		last.Set("query", "max(count_over_time("+metric+"[3h]))")
		last.Set("max_source_resolution", resolution)
		if got := string(q.result(q.hearth, "query", last)); !strings.Contains(got, want) {
			t.Errorf("at the last sample, up to %s: %s, want %s", resolution, got, want)
		}
	}
}

// TestShippedReadByThanos: what three receivers shipped for two tenants, with the index of the bucket and marks, is
// read, verified and compacted by Thanos. Hearth then reads the same samples from it.
func TestShippedReadByThanos(t *testing.T) {
	thanosBinary(t)
	dir := t.TempDir()
	c := startCluster(t, gateway.Directory(dir), "--tsdb.out-of-order.time-window=30d")
	day := time.Now().Truncate(48 * time.Hour)
	from, to := day.Add(-48*time.Hour), day.Add(4*time.Hour)
	if to.After(time.Now()) {
		from, to = from.Add(-48*time.Hour), to.Add(-48*time.Hour)
	}
	for i, tenant := range []string{"team-a", "team-b"} {
		history{from: from, to: to, every: time.Minute, offset: time.Duration(i) * 11 * time.Second,
			gap: time.Duration(i) * 5 * time.Hour}.write(t, c.writeURL(), tenantHeader(tenant))
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Minute, func() error {
		if n, want := blocksIn(t, dir), 3*(26+26-2); n < want {
			return fmt.Errorf("%d blocks are shipped, want %d", n, want)
		}
		return nil
	})
	for _, n := range c.nodes() {
		n.kill()
	}
	tool := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), hearthBinary, append(append([]string{"tools", "bucket"}, args...),
			"--objstore.config="+gateway.Directory(dir))...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	kept := metasIn(t, dir)[5].ULID.String()
	tool("mark", "--id="+kept, "--marker="+block.NoCompactMarkName, "--details=test")
	tool("index")
	verify := func() {
		t.Helper()
		out := runThanos(t, dir, "tools", "bucket", "verify", "--issues=index_known_issues", "--issues=overlapped_blocks",
			"--issues=duplicated_compaction")
		if strings.Contains(out, "level=error") {
			t.Error(out)
		}
	}
	verify()
	// Hearth always unites what its receivers replicated, so that only requests with dedup are compared.
	dedup := []string{"true"}
	raw := matrix{queries: adoptedQueries, resolutions: []string{"0s"}, dedup: dedup}
	samples := func(q queriers) (all []json.RawMessage) {
		raw.eachQuery(from.Add(4*time.Hour), to, func(path string, params url.Values) {
			all = append(all, q.result(q.hearth, path, params))
		})
		return all
	}
	before := newQueriers(t, dir, "team-a", "receive_replica")
	before.compare(from.Add(4*time.Hour), to, raw)
	had := samples(before)
	got := compactWithThanos(t, dir, "--compact.enable-vertical-compaction",
		"--deduplication.replica-label=receive_replica")
	if got != "0 300000" {
		t.Errorf("resolutions after Thanos's compactor: %s", got)
	}
	verify()
	after := newQueriers(t, dir, "team-a", "receive_replica")
	after.compare(from.Add(4*time.Hour), to, raw)
	// Where downsampled blocks end and raw ones begin Thanos leaves a sample out.
	after.compare(from.Add(24*time.Hour), day.Add(-2*time.Hour), matrix{queries: downsampledQueries,
		resolutions: []string{"5m"}, dedup: dedup})
	for i, has := range samples(after) {
		if d := diff(had[i], has); d != "" {
			t.Errorf("Hearth's answer %d has changed: %s", i, d)
		}
	}
}
