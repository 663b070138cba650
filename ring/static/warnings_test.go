package static

import (
	"slices"
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	// want is a part of each warning, in order.
	f := func(content string, rf int, want ...string) {
		t.Helper()
		rings, err := parseConfig([]byte(content), "", rf)
		if err != nil {
			t.Fatal(err)
		}
		got := append(unknownKeys([]byte(content)), warnings(rings, rf)...)
		if !slices.EqualFunc(got, want, strings.Contains) {
			t.Errorf("%s:\n%s\nwant\n%s", content, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	f(`[{"hashring":"x","endpoints":["a","b"],"external_labels":{"a":"b"},"algorithm":"ketama",
		 "shuffle_sharding_config":{"shard_size":1,"overrides":[{"shard_size":2,"tenants":["t"]}]}},
		{"hashring":"y","endpoints":["a"]}]`, 1, "external_labels", "no tenant_matcher_type", `"y": it is never used`)
	f(`[]`, 1)
	f(`[{}]`, 1, "no endpoints")

	f(`[{"endpoint":["a"]}]`, 1, `hashring number 1: unknown key "endpoint", did you mean "endpoints"?`, "no endpoints")
	f(`[{"endpoints":["a"]},{"endpoints":["a"],"tennants":["t"]}]`, 1,
		`hashring number 2: unknown key "tennants", did you mean "tenants"?`, "never used")
	f(`[{"Endpoints":["a",{"Address":"b"}],"HASHRING":"x"}]`, 1) // as the decoder reads keys
	f(`[{"endpoints":["a",{"address":"b","zone":"z","az ":"1"}]}]`, 1,
		`endpoint number 2: unknown key "az ", did you mean "az"?`, `unknown key "zone"`)
	f(`[{"endpoints":["a"],"shuffle_sharding_config":{"shardsize":1,"overrides":[{"tenant":["t"],"tenant_matcher_type":"exact"}]}}]`,
		1, `shuffle_sharding_config: unknown key "shardsize", did you mean "shard_size"?`,
		`override number 1: unknown key "tenant", did you mean "tenants"?`)
	f(`[{"endpoints":["a"],"`+strings.Repeat("x", 1000)+`":1}]`, 1, "unknown key")

	f(`[{"endpoints":["a"]}]`, 3, "it has 1 endpoints, and with a replication factor of 3 a write needs 2")
	f(`[{"endpoints":["a","b"]}]`, 3)
	zones := func(names ...string) string {
		var all []string
		for i, z := range names {
			all = append(all, `{"address":"`+string(rune('a'+i))+`","az":"`+z+`"}`)
		}
		return `[{"algorithm":"ketama","endpoints":[` + strings.Join(all, ",") + `]}]`
	}
	f(zones("1", "2", "3"), 3)
	f(zones("1", "2", "3", "1", "2", "3"), 3)
	f(zones("1", "1", "1"), 3)
	f(zones("1", "1", "2", "2"), 3, "in 2 zones (az), fewer than the replication factor 3")
	f(zones("1", "2", "3", "3"), 3, "from 1 to 2 endpoints")
	f(zones("1", "2", ""), 3, "1 of its 3 endpoints have no az")
}

func TestEmptied(t *testing.T) {
	f := func(current, next, want string) {
		t.Helper()
		rings := func(content string) []hashring {
			r, err := parseConfig([]byte(content), "", 1)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		err := lostEndpoints(rings(current), rings(next))
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s -> %s: %v, want %q", current, next, err, want)
		}
	}
	const a, none = `[{"hashring":"a","endpoints":["1"]}]`, "no hashring has endpoints any more"
	f(``, `[]`, "")
	f(`[{}]`, a, "")
	f(a, `[{"hashring":"b","endpoints":["1"]}]`, "")
	f(a, ``, none)
	f(a, `[]`, none)
	f(a, `[{}]`, none)
	f(a, `[{"hashring":"a"},{"hashring":"b","endpoints":["1"]}]`, `hashring "a" has no endpoints any more`)
	const ab = `[{"hashring":"a","endpoints":["1"]},{"hashring":"b"}]`
	f(a, ab, "") // a new one that is not filled yet
	f(ab, `[{"hashring":"a","endpoints":["1","2"]},{"hashring":"b"}]`, "")
	f(ab, `[{"hashring":"b"}]`, none)
	const unnamed = `[{"tenants":["t"],"endpoints":["1"]},{}]`
	f(unnamed, `[{"tenants":["t"],"endpoints":["1","2"]},{}]`, "")
	f(`[{"tenants":["t"],"endpoints":["1"]},{"endpoints":["1"]}]`, unnamed, `hashring "" has no endpoints any more`)
}
