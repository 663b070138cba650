package test

import (
	"os"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"go.yaml.in/yaml/v3"
)

// alertRule is the expression of a rule in deploy/alerts.yml.
func alertRule(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile("../deploy/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == name {
				return r.Expr
			}
		}
	}
	t.Fatalf("no alert is called %s", name)
	return ""
}

// TestShipAlerts evaluates the rules that take hours to fire, or faults that no other test makes.
func TestShipAlerts(t *testing.T) {
	engine := promql.NewEngine(
		promql.EngineOpts{MaxSamples: 1000, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{})})
	now := time.Now()
	f := func(rule, metric string, value float64, fires bool) {
		t.Helper()
		db, err := promtsdb.Open(t.TempDir(), nil, nil, promtsdb.DefaultOptions(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		app := db.Appender(t.Context())
		if _, err := app.Append(0, labels.FromStrings("__name__", metric, "instance", "a", "job", "hearth"), now.UnixMilli(),
			value); err != nil {
			t.Fatal(err)
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
		q, err := engine.NewInstantQuery(t.Context(), db, nil, alertRule(t, rule), now)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		found, err := q.Exec(t.Context()).Vector()
		if err != nil {
			t.Fatal(err)
		}
		if (len(found) == 1) != fires {
			t.Errorf("%s with %s = %v: %v, want it to fire: %v", rule, metric, value, found, fires)
		}
	}
	ago := func(d time.Duration) float64 { return float64(now.Add(-d).Unix()) }
	const success, oldest = "hearth_receive_last_successful_ship_timestamp_seconds", "hearth_receive_unshipped_oldest_timestamp_seconds"
	f("HearthShipFails", success, 0, false) // no bucket
	f("HearthShipFails", success, ago(time.Minute), false)
	f("HearthShipFails", success, ago(3*time.Hour), false)
	f("HearthShipFails", success, ago(5*time.Hour), true)
	f("HearthRulesNotLoaded", "thanos_rule_config_last_reload_successful", 1, false)
	f("HearthRulesNotLoaded", "thanos_rule_config_last_reload_successful", 0, true)
	f("HearthNotShipping", oldest, 0, false)
	f("HearthNotShipping", oldest, ago(5*time.Hour), true)
	f("HearthFaultyBlocks", "hearth_tsdb_faulty_blocks", 0, false)
	f("HearthFaultyBlocks", "hearth_tsdb_faulty_blocks", 1, true)
	f("HearthBlocksUnserved", "hearth_store_unserved_blocks", 0, false)
	f("HearthBlocksUnserved", "hearth_store_unserved_blocks", 1, true)
	const (
		shipped   = "hearth_sidecar_last_successful_ship_timestamp_seconds"
		unshipped = "hearth_sidecar_unshipped_oldest_timestamp_seconds"
	)
	f("HearthSidecarShipFails", shipped, 0, false) // no bucket
	f("HearthSidecarShipFails", shipped, ago(3*time.Hour), false)
	f("HearthSidecarShipFails", shipped, ago(5*time.Hour), true)
	f("HearthSidecarNotShipping", unshipped, 0, false)
	f("HearthSidecarNotShipping", unshipped, ago(5*time.Hour), true)
	f("HearthSidecarPrometheusDown", "thanos_sidecar_prometheus_up", 1, false)
	f("HearthSidecarPrometheusDown", "thanos_sidecar_prometheus_up", 0, true)
	f("HearthSidecarReloadFails", "thanos_sidecar_reloader_last_reload_successful", 1, false)
	f("HearthSidecarReloadFails", "thanos_sidecar_reloader_last_reload_successful", 0, true)
	f("HearthForeignDirectories", "hearth_tsdb_foreign_directories", 2, true)
}
