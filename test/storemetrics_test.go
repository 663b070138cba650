package test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// TestStoreMetrics: dashboards and alerts that people have for Thanos's store gateway find their numbers in Hearth's.
func TestStoreMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := blocks.DefaultPlan()
	p.Blocks, p.Tenants = 6, 2
	if err := blocks.Write(t.Context(), dir, p); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, gateway.Hearth, hearthBinary, dir)
	mint, maxt := p.Range()
	answer, err := dialGateway(t, g).Series(t.Context(), &thanospb.SeriesRequest{MinTime: mint, MaxTime: maxt,
		Matchers: []*thanospb.LabelMatcher{{Name: "tenant_id", Value: blocks.Tenant(1)}}})
	if err != nil || len(answer.Series) != p.Shape.Series() {
		t.Fatalf("%d series, %v", len(answer.Series), err)
	}
	page, err := get("http://"+g.HTTP+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	served := parseMetrics(t, string(page))
	list, err := os.ReadFile("testdata/thanos-store-metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		want := strings.Fields(line)
		if want[0] == "#" {
			continue
		}
		labels, ok := served.labels[want[0]]
		if !ok {
			t.Errorf("%s is not served", want[0])
			continue
		}
		for _, name := range want[1:] {
			if !strings.Contains(labels, name+`="`) {
				t.Errorf("%s has the labels %s, and not %s", want[0], labels, name)
			}
		}
	}
	for name, want := range map[string]float64{
		"thanos_bucket_store_block_loads_total":                           6,
		"thanos_bucket_store_blocks_loaded":                               6,
		"thanos_bucket_store_block_load_failures_total":                   0,
		"thanos_bucket_store_series_blocks_queried_sum":                   3,
		"thanos_bucket_store_series_result_series_sum":                    200,
		"thanos_bucket_store_sent_chunk_size_bytes_count":                 200,
		`thanos_bucket_store_series_data_touched_sum{data_type="series"}`: 600,
		`thanos_bucket_store_series_data_touched_sum{data_type="chunks"}`: 600,
		`thanos_blocks_meta_synced{state="loaded"}`:                       6,
	} {
		if got, ok := served.values[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// metricsPage is a page of metrics in the text format.
type metricsPage struct {
	labels map[string]string  // of one series of each name
	values map[string]float64 // by name and labels, as the page has them
}

func parseMetrics(t *testing.T, page string) metricsPage {
	t.Helper()
	out := metricsPage{map[string]string{}, map[string]float64{}}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		out.labels[name], out.values[line[:at]] = labels, v
	}
	return out
}
