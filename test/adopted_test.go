package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// runThanos runs a command of Thanos on the bucket in dir until it ends, and returns its log.
func runThanos(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), thanosBinary(t), append(args, "--objstore.config="+gateway.Directory(dir))...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("thanos %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// metasIn are the blocks of the bucket in dir that are not marked for deletion.
func metasIn(t *testing.T, dir string) (all []*block.Meta) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		_, marked := os.Stat(filepath.Join(dir, e.Name(), block.DeletionMarkName))
		if !ok || marked == nil {
			continue
		}
		all = append(all, metaIn(t, filepath.Join(dir, e.Name()), id))
	}
	return all
}

// metaIn is the meta.json in the directory of a block.
func metaIn(t *testing.T, dir string, id ulid.ULID) *block.Meta {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := block.ReadMeta(f, id)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// asReplica moves a block from one bucket to another, with another id and a replica label.
func asReplica(t *testing.T, m *block.Meta, from, to, replica string) {
	t.Helper()
	old := filepath.Join(from, m.ULID.String())
	copied := *m
	copied.ULID[15] ^= replica[len(replica)-1]
	copied.Compaction.Sources = []ulid.ULID{copied.ULID}
	copied.Thanos.Labels = maps.Clone(m.Thanos.Labels)
	copied.Thanos.Labels["receive_replica"] = replica
	next := filepath.Join(to, copied.ULID.String())
	if err := os.CopyFS(next, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(next, block.MetaName))
	if err == nil {
		err = copied.Write(f)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAdoptedFromThanos: two replicas of a stream, as Hearth writes them, are verified, united and downsampled by
// Thanos's compactor. Hearth's gateway and Thanos's give the same answers from what it made.
func TestAdoptedFromThanos(t *testing.T) {
	thanosBinary(t)
	written, dir := t.TempDir(), t.TempDir()
	plan := blocks.DefaultPlan()
	plan.Blocks = 0
	plan.End = time.Now().Add(-24 * time.Hour).Truncate(24 * time.Hour)
	plan.Large = &blocks.Large{Shape: blocks.Shape{Metrics: 10, Namespaces: 2, Pods: 2}, Range: 11 * 24 * time.Hour,
		Interval: 5 * time.Minute}
	if err := blocks.Write(t.Context(), written, plan); err != nil {
		t.Fatal(err)
	}
	for _, m := range metasIn(t, written) {
		if m.Thanos.Downsample.Resolution == 0 {
			asReplica(t, m, written, dir, "r1")
			asReplica(t, m, written, dir, "r2")
		}
	}
	if out := runThanos(t, dir, "tools", "bucket", "verify", "--issues=index_known_issues",
		"--issues=overlapped_blocks"); strings.Contains(out, "level=error") {
		t.Error(out)
	}
	runThanos(t, dir, "compact", "--data-dir="+t.TempDir(), "--consistency-delay=0s", "--delete-delay=1h",
		"--compact.enable-vertical-compaction", "--deduplication.replica-label=receive_replica", "--http-address="+
			addr(freePorts(t, 1)[0]), "--log.level=warn")
	var found []string
	for _, m := range metasIn(t, dir) {
		if m.Thanos.Source == block.SourceCompactor {
			found = append(found, fmt.Sprint(m.Thanos.Downsample.Resolution))
		}
	}
	slices.Sort(found)
	if got := strings.Join(found, " "); got != "0 300000 3600000" {
		t.Fatalf("resolutions of what Thanos's compactor made: %s", got)
	}
	p := newPair(t, dir)
	r := rand.New(rand.NewPCG(7, 7))
	series := 0
	for range 200 {
		length := 11 * 24 * time.Hour.Milliseconds()
		mint := plan.End.UnixMilli() - r.Int64N(length)
		req := &thanospb.SeriesRequest{MinTime: mint, MaxTime: mint + r.Int64N(length),
			MaxResolutionWindow: []int64{0, 300_000, 3_600_000}[r.IntN(3)],
			Matchers:            []*thanospb.LabelMatcher{{Name: "namespace", Value: blocks.Namespace(r.IntN(2))}}}
		if req.MaxResolutionWindow > 0 {
			all := []thanospb.Aggr{thanospb.Aggr_COUNT, thanospb.Aggr_SUM, thanospb.Aggr_MIN, thanospb.Aggr_MAX,
				thanospb.Aggr_COUNTER}
			req.Aggregates = all[:1+r.IntN(len(all))]
			// Histograms have no smallest and largest value. Thanos's gateway fails the whole request for the first of them.
			req.Matchers = append(req.Matchers, &thanospb.LabelMatcher{Type: thanospb.LabelMatcher_NEQ, Name: "__name__",
				Value: blocks.MetricName(9)})
		}
		series += p.series(req)
	}
	if series < 1000 {
		t.Errorf("only %d series were compared", series)
	}
}

// TestAdoptedFromThanosReceive: what a receiver of Thanos stored and shipped is served by Hearth's gateway as by
// Thanos's.
func TestAdoptedFromThanosReceive(t *testing.T) {
	thanosBinary(t)
	dir, ports := t.TempDir(), freePorts(t, 3)
	hashring, err := json.Marshal([]map[string]any{{"endpoints": []string{addr(ports[1])}}})
	if err != nil {
		t.Fatal(err)
	}
	receiver := start(t, "thanos-receive", thanosBinary(t), nil, "receive", "--tsdb.path="+t.TempDir(),
		"--label=receive_replica=\"r1\"", "--http-address="+addr(ports[0]), "--grpc-address="+addr(ports[1]),
		"--remote-write.address="+addr(ports[2]), "--receive.local-endpoint="+addr(ports[1]),
		"--receive.hashrings="+string(hashring), "--objstore.config="+gateway.Directory(dir), "--log.level=warn")
	receiver.ready("http://"+addr(ports[0])+"/-/ready", time.Minute)
	startPrometheus(t, func(self string) string {
		return fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_native_histograms: true, external_labels: {cluster: c}}
scrape_configs: [{job_name: prometheus, static_configs: [{targets: [%q]}]}]
remote_write:
- {url: "http://%s/api/v1/receive", headers: {THANOS-TENANT: team-a}, send_native_histograms: true}
- {url: "http://%s/api/v1/receive", headers: {THANOS-TENANT: team-b}}
`, self, addr(ports[2]), addr(ports[2]))
	})
	eventually(t, 2*time.Minute, func() error { // so that there is something to take a rate of
		if n := metricSum(t, "http://"+addr(ports[0])+"/metrics", "prometheus_tsdb_head_samples_appended_total"); n < 20_000 {
			return fmt.Errorf("%v samples are stored", n)
		}
		return nil
	})
	receiver.stop(2 * time.Minute)
	metas := metasIn(t, dir)
	if len(metas) < 2 {
		t.Fatalf("Thanos shipped %d blocks", len(metas))
	}
	first, last := int64(math.MaxInt64), int64(0)
	for _, m := range metas {
		first, last = min(first, m.MinTime), max(last, m.MaxTime)
	}
	for _, tenant := range []string{"team-a", "team-b"} {
		newQueriers(t, dir, tenant, "receive_replica").compare(time.UnixMilli(first), time.UnixMilli(last), matrix{
			queries: scrapedQueries, resolutions: []string{"0s"}, dedup: []string{"true"}, steps: []string{"1", "5"}})
	}
	p := newPair(t, dir)
	series := 0
	for _, m := range metas {
		for _, matchers := range [][]*thanospb.LabelMatcher{
			{{Type: thanospb.LabelMatcher_RE, Name: "__name__", Value: ".+"}},
			{{Type: thanospb.LabelMatcher_RE, Name: "__name__", Value: "prometheus_.*"}, {Name: "tenant_id", Value: "team-a"}},
			{{Type: thanospb.LabelMatcher_NEQ, Name: "job", Value: "x"}, {Type: thanospb.LabelMatcher_NRE, Name: "le", Value: ".*5"}},
		} {
			series += p.series(&thanospb.SeriesRequest{MinTime: m.MinTime, MaxTime: m.MaxTime, Matchers: matchers})
		}
	}
	if series < 1000 {
		t.Errorf("only %d series were compared", series)
	}
}
