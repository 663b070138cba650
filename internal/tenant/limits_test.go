package tenant

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

const day = model.Duration(24 * time.Hour)

func table(t *testing.T, base Limits, text string) *LimitTable {
	t.Helper()
	f, err := ParseLimits("l.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	lt, err := NewLimitTable(base, f)
	if err != nil {
		t.Fatal(err)
	}
	return lt
}

// TestInheritance: flags, then defaults, then the tenant; an explicit 0 is no limit, nothing inherits.
func TestInheritance(t *testing.T) {
	base := DefaultLimits()
	base.Exemplars, base.OutOfOrderWindow, base.PromoteAttributes = 100, 3*model.Duration(time.Hour), []string{"host.name"}
	lt := table(t, base, `
defaults:
  samples_per_second: 1e4
  active_series: 1_000_000
  request_bytes: 5e6
tenants:
  acme:
    samples_per_second: 0.5
    active_series: 0
    exemplars: 0
    out_of_order_window: 30d
    promote_resource_attributes: []
    ha_pairs: true
  zero: {}
  null-is-nothing:
`)
	want := base
	want.SamplesPerSecond, want.ActiveSeries, want.RequestBytes = 10_000, 1_000_000, 5_000_000
	for _, id := range []ID{"other", "zero", "null-is-nothing"} {
		if got := lt.Of(id); !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v", id, *got)
		}
	}
	want.SamplesPerSecond, want.ActiveSeries, want.Exemplars, want.OutOfOrderWindow = 0.5, 0, 0, 30*day
	want.PromoteAttributes, want.HAPairs = []string{}, true
	if got := lt.Of("acme"); !reflect.DeepEqual(*got, want) {
		t.Errorf("acme: %+v", *got)
	}
	if empty := table(t, base, "# nothing\n"); !reflect.DeepEqual(*empty.Of("x"), base) {
		t.Errorf("an empty file changes %+v", *empty.Of("x"))
	}
	shared := table(t, base, "tenants:\n  a: &gold {request_series: 7}\n  b: *gold\n")
	if shared.Of("b").RequestSeries != 7 {
		t.Error("an alias is not followed")
	}
}

// TestFaults: every fault of a file is reported with its line, tenant and key.
func TestFaults(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		file, err := ParseLimits("l.yml", []byte(text))
		if err == nil {
			_, err = NewLimitTable(DefaultLimits(), file)
		}
		if err == nil {
			t.Fatalf("%q is good", text)
		}
		if got := strings.Split(err.Error(), "\n"); !slices.Equal(got, want) {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	f("defaults: {samples_per_secnd: 1}",
		"l.yml:1: defaults: samples_per_secnd: no limit has this name; did you mean samples_per_second?")
	f("limits: {}", "l.yml:1: limits: there is no such key here; known are defaults, tenants")
	f("- a", "l.yml:1: a mapping (key: value) is expected")
	f("defaults: 5", "l.yml:1: defaults: a mapping (key: value) is expected")
	f("tenants:\n  a: {request_series: -1}\n  b: {active_series: many, samples_per_second: .nan}\n  c/d: {}\n  e:\n    retention: -1d\n    exemplars:",
		"l.yml:2: tenant a: request_series: -1 must not be negative",
		`l.yml:3: tenant b: active_series: "many" is not a number`,
		"l.yml:3: tenant b: samples_per_second: NaN must be a number of at least 0",
		`l.yml:4: tenant id "c/d": character '/' is not allowed (letters, digits and !_.*'()@:+- and inner spaces are)`,
		`l.yml:6: tenant e: retention: "-1d" is not a duration such as 90m, 3h or 15d`,
		"l.yml:7: tenant e: exemplars: has no value; leave the key out to inherit it")
	f("tenants:\n  a: {request_series: 1}\n  a: {request_series: 2}", "l.yml:3: tenants: a: is already set in line 2")
	f("defaults:\n  shard_size: 1\n  shard_size: 2", "l.yml:3: defaults: shard_size: is already set in line 2")
	f("defaults: {request_series: 1.5}", "l.yml:1: defaults: request_series: 1.5 is not a whole number")
	f("defaults: {request_series: 1e40}", "l.yml:1: defaults: request_series: 1e+40 is too large")
	f("defaults: {request_series: 99999999999999999999}", "l.yml:1: defaults: request_series: 1e+20 is too large")
	f("defaults: {request_series: 18446744073709551615}",
		"l.yml:1: defaults: request_series: 18446744073709551615 is too large")
	f("defaults: {request_series: [1]}", "l.yml:1: defaults: request_series: one value is expected")
	f("defaults: {samples_per_second: .inf}", "l.yml:1: defaults: samples_per_second: +Inf must be a number of at least 0")
	f("defaults: {out_of_order_window: 0s}",
		"l.yml:1: defaults: out_of_order_window: 0 is no window; leave the key out to inherit it")
	f("defaults: {future_window: 2y}", "l.yml:1: defaults: future_window: 2y is longer than 1y")
	f("defaults: {out_of_order_window: 101y}", "l.yml:1: defaults: out_of_order_window: 101y is longer than 100y")
	f("defaults: {retention: 5ms}", "l.yml:1: defaults: retention: 5ms is shorter than 1s")
	f("defaults: {ha_pairs: 1}", `l.yml:1: defaults: ha_pairs: "1" is neither true nor false`)
	f("defaults: {ha_cluster_label: 5}", "l.yml:1: defaults: ha_cluster_label: 5 is not a text")
	f("tenants:\n  a: {ha_pairs: true, ha_cluster_label: ''}",
		"tenant a: ha_pairs: needs ha_cluster_label and ha_replica_label")
	f("tenants:\n  a: {ha_pairs: true, ha_cluster_label: __replica__}",
		`tenant a: ha_replica_label: "__replica__" is the ha_cluster_label too`)
	f("tenants:\n  a: {ha_pairs: true, ha_replica_label: __name__}",
		`tenant a: ha_replica_label: "__name__" cannot be taken off series`)
	f("defaults: {promote_resource_attributes: host.name}",
		"l.yml:1: defaults: promote_resource_attributes: a list is expected")
	f("defaults: {promote_resource_attributes: [[a]]}",
		"l.yml:1: defaults: promote_resource_attributes: a list of names is expected")
	f("defaults: {promote_resource_attributes: ['']}",
		"l.yml:1: defaults: promote_resource_attributes: holds an empty name")
	f("defaults:\n  a: b: c",
		"l.yml:2: is not YAML: there is a second colon in the line, or it is indented too far: quote a value with a colon")
	f("tenants: {}\n---\ntenants: {}", "l.yml:2: a second document begins here: a file holds one")
	f("tenants: {? [a] : {}}", "l.yml:1: tenants: a key must be a plain word")
	f("\x00", "l.yml:1: is not text in UTF-8: save it as such")
}

// TestRulesMayRead: rules read other tenants only if a limit names these.
func TestRulesMayRead(t *testing.T) {
	f := func(patterns []string, id ID, want bool) {
		t.Helper()
		l := Limits{RuleSourceTenants: patterns}
		if got := l.RulesMayRead(id); got != want || l.Validate() != nil {
			t.Errorf("%q and %s: %t, %v", patterns, id, got, l.Validate())
		}
	}
	f(nil, "a", false)
	f([]string{"b", "team-*"}, "a", false)
	f([]string{"b", "team-*"}, "team-x", true)
	f([]string{"b", "team-*"}, "b", true)
	f([]string{"*"}, "a", true)
	l := Limits{RuleSourceTenants: []string{"a/b"}}
	if err := l.Validate(); err == nil || !strings.Contains(err.Error(), "rule_source_tenants") {
		t.Error(err)
	}
}

func TestValidateNamesKeyAndValue(t *testing.T) {
	l := Limits{RequestSeries: -5, Retention: -day, HAReplicaLabel: "\xff"}
	err := l.Validate()
	if err == nil {
		t.Fatal("good")
	}
	for _, want := range []string{"request_series: -5 must not be negative", "retention: -24h0m0s must not be negative", `ha_replica_label: "\xff" is not a label name`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	good := DefaultLimits()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParseLimit(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		file, err := ParseLimit("--limits.default", text)
		if err != nil {
			if err.Error() != want {
				t.Errorf("%s: %v, want %s", text, err, want)
			}
			return
		}
		lt, err := NewLimitTable(Limits{}, file)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := json.Marshal(lt.Defaults); !strings.Contains(string(b), want) {
			t.Errorf("%s: %s lacks %s", text, b, want)
		}
	}
	f("active_series=1e6", `"active_series":1000000,`)
	f("retention=2h", `"retention":"2h",`)
	f("promote_resource_attributes=[host.name, k8s.pod.name]",
		`"promote_resource_attributes":["host.name","k8s.pod.name"]`)
	f("active_series", `--limits.default "active_series": want key=value`)
	f("active=1", `--limits.default "active=1": no limit has this name; did you mean active_series?`)
	f("active_series=", `--limits.default "active_series=": has no value`)
	f("active_series=-1", `--limits.default "active_series=-1": -1 must not be negative`)
}

// TestThanosFile: the example of Thanos's documentation, with three copies of each series.
func TestThanosFile(t *testing.T) {
	file, err := ParseThanosLimits("t.yml", []byte(`
write:
  global:
    max_concurrency: 30
    meta_monitoring_url: "http://example.com"
    meta_monitoring_http_client: {basic_auth: {username: x}}
    meta_monitoring_limit_query: "sum(prometheus_tsdb_head_series) by (tenant)"
  default:
    request: {size_bytes_limit: 1024, series_limit: 1000, samples_limit: 10}
    head_series_limit: 1000
  tenants:
    acme:
      request: {size_bytes_limit: 0, series_limit: 0, samples_limit: -1}
      head_series_limit: 2000
    ajax:
      request: {series_limit: 50000, samples_limit: 500}
    nothing:
`), 3)
	if err != nil {
		t.Fatal(err)
	}
	if file.MaxConcurrency != 30 || !file.MetaMonitoring {
		t.Errorf("%+v", file)
	}
	over, err := ParseLimits("l.yml",
		[]byte("defaults: {request_samples: 11, samples_per_second: 5}\ntenants: {acme: {request_series: 9}}"))
	if err != nil {
		t.Fatal(err)
	}
	lt, err := NewLimitTable(Limits{}, &file.LimitFile, over)
	if err != nil {
		t.Fatal(err)
	}
	f := func(id ID, want Limits) {
		t.Helper()
		want.SamplesPerSecond = 5
		if got := lt.Of(id); !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v", id, *got)
		}
	}
	f("other", Limits{RequestBytes: 1024, RequestSeries: 1000, RequestSamples: 11, ActiveSeries: 334})
	f("nothing", Limits{RequestBytes: 1024, RequestSeries: 1000, RequestSamples: 11, ActiveSeries: 334})
	f("acme", Limits{RequestSeries: 9, ActiveSeries: 667})
	f("ajax", Limits{RequestBytes: 1024, RequestSeries: 50000, RequestSamples: 500, ActiveSeries: 334})
}

func TestThanosFaults(t *testing.T) {
	_, err := ParseThanosLimits("t.yml", []byte(`write:
  global: {max_concurency: 1}
  default: {request: {series: 1}, head_series_limit: -1}
  tenants:
    acme: {head_series_limit: lots}
    "a|b": {}
`), 1)
	want := []string{
		"t.yml:2: global: max_concurency: there is no such key here; did you mean max_concurrency?",
		"t.yml:3: default: request: series: there is no such key here; did you mean series_limit?",
		"t.yml:3: default: head_series_limit: -1 must not be negative",
		`t.yml:5: tenant acme: head_series_limit: "lots" is not a number`,
		`t.yml:6: tenant id "a|b": character '|' is not allowed (letters, digits and !_.*'()@:+- and inner spaces are)`,
	}
	if err == nil || !slices.Equal(strings.Split(err.Error(), "\n"), want) {
		t.Errorf("got %v", err)
	}
	if _, err := ParseThanosLimits("t.yml", nil, 0); err != nil {
		t.Error(err)
	}
}

// TestKeep: who has equal limits before and after keeps the pointer, whose are others gets another one.
func TestKeep(t *testing.T) {
	old := table(t, Limits{}, "defaults: {shard_size: 3}\ntenants: {a: {exemplars: 1}, b: {exemplars: 2}}")
	now := table(t, Limits{}, "defaults: {shard_size: 3}\ntenants: {a: {exemplars: 1}, b: {exemplars: 3}, c: {}}")
	now.Keep(old)
	if now.Of("a") != old.Of("a") || now.Of("x") != old.Of("x") || now.Of("c") != old.Of("c") {
		t.Error("equal limits, another version")
	}
	if now.Of("b") == old.Of("b") || now.Of("b").Exemplars != 3 {
		t.Error("other limits, the same version")
	}
}

// TestShardVersion: what is the same for all tenants has the same version, however it is written.
func TestShardVersion(t *testing.T) {
	version := func(text string) string { return table(t, Limits{}, text).ShardVersion() }
	if v := version("tenants: {a: {exemplars: 1}, b: {shard_size: 0}}"); v != "" {
		t.Errorf("without sizes: %q", v)
	}
	a := version("defaults: {shard_size: 3}\ntenants: {a: {shard_size: 4}, b: {shard_size: 5}}")
	for _, same := range []string{
		"defaults: {shard_size: 3, exemplars: 9}\ntenants: {c: {exemplars: 1}, b: {shard_size: 5}, a: {shard_size: 4}, d: {shard_size: 3}}",
	} {
		if b := version(same); b != a {
			t.Errorf("%q has version %q, want %q", same, b, a)
		}
	}
	for _, other := range []string{"", "defaults: {shard_size: 3}", "tenants: {a: {shard_size: 4}, b: {shard_size: 5}}",
		"defaults: {shard_size: 3}\ntenants: {a: {shard_size: 5}, b: {shard_size: 4}}"} {
		if b := version(other); b == a {
			t.Errorf("%q has the same version", other)
		}
	}
}

func TestLimitsJSON(t *testing.T) {
	l := DefaultLimits()
	l.Retention = 15 * day
	b, err := json.Marshal(&l)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if len(back) != len(limitFields) || back["retention"] != "15d" || back["ha_pairs"] != false {
		t.Errorf("%s", b)
	}
}

// TestDocumentedKeys: the table of docs/operate/limits.md has every key once, in the order of the struct, and no other.
func TestDocumentedKeys(t *testing.T) {
	page, err := os.ReadFile("../../docs/operate/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## All keys\n")
	section, _, more := strings.Cut(section, "\n## ")
	if !found || !more {
		t.Fatal("the page has no section of all keys")
	}
	var documented, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	for _, f := range limitFields {
		want = append(want, f.key)
	}
	if !slices.Equal(documented, want) {
		t.Errorf("documented %q\nwant       %q", documented, want)
	}
}

func FuzzParseLimits(f *testing.F) {
	f.Add("defaults: {samples_per_second: 1, retention: 3d}\ntenants: {a: {ha_pairs: true}}")
	f.Add("tenants:\n  a: &x {request_series: 1e6}\n  b: *x")
	f.Add("defaults: {promote_resource_attributes: [a, b], exemplars: 0x10}")
	f.Add("a: &a [*a]")
	f.Add("defaults: {exemplars: !!int x, retention: !!str 1}")
	f.Fuzz(func(t *testing.T, text string) {
		if file, err := ParseLimits("f", []byte(text)); err == nil {
			lt, err := NewLimitTable(DefaultLimits(), file)
			if err != nil {
				return
			}
			for id, l := range lt.Tenants {
				if err := l.Validate(); err != nil {
					t.Fatalf("%q: tenant %s was accepted: %v", text, id, err)
				}
			}
		}
		if file, err := ParseThanosLimits("f", []byte(text), 3); err == nil {
			if _, err := NewLimitTable(DefaultLimits(), &file.LimitFile); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
	})
}

// TestRetentionRules: rules are inherited as a whole, and each fault has its file and line.
func TestRetentionRules(t *testing.T) {
	lt := table(t, DefaultLimits(), `
defaults: {bucket_retention_rules: [{match: '{env="test"}', raw: 2d}]}
tenants:
  a:
    bucket_retention_rules:
      - {match: '{cluster=~"eu|us",env!="prod"}', raw: 15d, 5m: 30d, 1h: 1y}
      - match: '{cluster="eu"}'
        1h: 90d
  b: {bucket_retention_rules: []}
`)
	want := []RetentionRule{{`{cluster=~"eu|us",env!="prod"}`, 15 * day, 30 * day, 365 * day}, {`{cluster="eu"}`, 0, 0, 90 * day}}
	if got := lt.Of("a").BucketRetentionRules; !reflect.DeepEqual(got, want) {
		t.Errorf("a: %+v", got)
	}
	if n := len(lt.Of("b").BucketRetentionRules); n != 0 {
		t.Errorf("b: %d rules", n)
	}
	if got := lt.Of("c").BucketRetentionRules; len(got) != 1 || got[0].Raw != 2*day {
		t.Errorf("c: %+v", got)
	}
	if text, err := json.Marshal(lt.Of("a")); err != nil || !strings.Contains(string(text), `"5m":"30d"`) {
		t.Errorf("%v %s", err, text)
	}
	f := func(text, want string) {
		t.Helper()
		_, err := ParseLimits("l.yml", []byte("tenants:\n  a:\n    bucket_retention_rules:\n"+text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	f("      - {match: '{x=\"y\"}', raw: 1d}\n      - {match: '{x=', raw: 1d}\n", "l.yml:5: tenant a: bucket_retention_rules: match: ")
	f("      - {match: '{x=\"y\"}', raw: 1d}\n      - {match: '{x=\"y\"}', raw: 0s}\n", "l.yml:5: ")
	f("      - {match: '{x=\"y\"}', row: 1d}\n", "l.yml:4: tenant a: bucket_retention_rules: row: there is no such key here; did you mean raw")
	f("      - {match: '{x=\"y\"}'}\n", "l.yml:4: tenant a: bucket_retention_rules: a rule needs one of")
	f("      - {raw: 1d}\n", "l.yml:4: tenant a: bucket_retention_rules: a rule needs match")
	f("      raw: 1d\n", "a list of rules is expected")
	f("      - {match: 7, raw: 1d}\n", "l.yml:4: ")
	f("      - {match: '{x=~\"(\"}', raw: 1d}\n", "l.yml:4: ")
	f(strings.Repeat("      - {match: '{x=\"y\"}', raw: 1d}\n", 101), "101 rules, and at most 100")
	if _, err := ParseLimit("--limits.default", `bucket_retention_rules=[{match: '{x="y"}', raw: 1d}]`); err != nil {
		t.Error(err)
	}
	if _, err := ParseLimit("--limits.default", `bucket_retention_rules=[{match: 'x', row: 1d}]`); err == nil {
		t.Error("a faulty default is taken")
	}
}
