package static

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// vector is what Thanos answered, its own code run (pkg/receive/hashring.go at e103a81bd594): see testdata/README.md.
type vector struct {
	Name      string          `json:"name"`
	Algorithm string          `json:"algorithm"`
	RF        int             `json:"replication_factor"`
	Hashrings json.RawMessage `json:"hashrings"`
	Cases     []struct {
		Tenant   tenant.ID         `json:"tenant"`
		Labels   map[string]string `json:"labels"`
		Replicas []string          `json:"replicas"`
	} `json:"cases"`
}

func TestReplicasAreThanoss(t *testing.T) {
	content, err := os.ReadFile("testdata/thanos.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(content, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			p, err := Parse(v.Hashrings, v.Algorithm, v.RF)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range v.Cases {
				series := wire.NewBatch(c.Tenant).Add(labels.FromMap(c.Labels))
				if got := replicas(p, c.Tenant, series.Hash); !slices.Equal(got, c.Replicas) {
					t.Fatalf("tenant %s, series %s: %v, in Thanos %v", c.Tenant, labels.FromMap(c.Labels), got, c.Replicas)
				}
			}
		})
	}
}

func replicas(p ring.Placement, id tenant.ID, hash uint64) []string {
	var ids []string
	for _, i := range p.Replicas(nil, id, hash) {
		ids = append(ids, p.Members()[i].ID)
	}
	return ids
}

func TestParse(t *testing.T) {
	// want is what the error says, part by part; none = it is valid.
	f := func(content, algorithm string, rf int, want ...string) {
		t.Helper()
		p, err := Parse([]byte(content), algorithm, rf)
		switch {
		case len(want) == 0 && err != nil:
			t.Fatalf("%s: %v", content, err)
		case len(want) == 0:
			if p.ReplicationFactor() != rf {
				t.Fatalf("%s: replication factor %d, want %d", content, p.ReplicationFactor(), rf)
			}
		case err == nil:
			t.Fatalf("%s: no error, want %q", content, want)
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Fatalf("%s: error %q, want %q", content, err, part)
			}
		}
	}
	f(`[{"endpoints":["a:1"]}]`, "", 1)
	f(`[{"endpoints":["a:1"]}]`, "hashmod", 3) // fewer copies
	f(`[{"endpoints":["a:1",{"address":"b:1","capnproto_address":"b:2"}],"external_labels":{"a":"b"},"new":1}]`, "ketama",
		2)
	f(`[{"endpoints":["a:1"],"algorithm":"hashmod"},{"endpoints":["a:1","b:1"],"algorithm":"ketama"}]`, "", 2)

	f(`[{`, "", 1, "not valid JSON")
	f(`{}`, "", 1, "not valid JSON")
	for _, unfilled := range []string{"", " \n", "null", "[]", "[{}]", `[{"hashring":"x"}]`, `[{"hashring":"x","algorithm":"ketama","endpoints":[]}]`} {
		f(unfilled, "", 3)
	}
	f(`[{"endpoints":["a:1"]}]`, "", 0, "replication factor 0")
	f(`[{"endpoints":[{"az":"z"}]}]`, "ketama", 1, "has no address")
	f(`[{"hashring":"x","endpoints":["a:1","b:1"]}]`, "ketama", 3, `hashring "x"`,
		"2 endpoints are fewer than the replication factor 3")
	f(`[{"endpoints":["a:1","b:1",{"address":"a:1"}]}]`, "ketama", 1, "a:1 is listed twice")
	f(`[{"endpoints":[{"address":"a:1","az":"z"}]}]`, "", 1, "needs the algorithm ketama")
	f(`[{"endpoints":["a:1"],"algorithm":"crush"}]`, "", 1, `"crush" is neither`)
	f(`[{"endpoints":["a:1"],"tenants":["[a"],"tenant_matcher_type":"glob"}]`, "", 1, `pattern "[a"`)
	f(`[{"endpoints":["a:1"],"tenants":["a"],"tenant_matcher_type":"regex"}]`, "", 1, `"regex" is neither exact nor glob`)
	f(`[{"endpoints":["a:1"],"shuffle_sharding_config":{"shard_size":1}}]`, "", 1, "shuffle sharding needs")
	f(`[{"endpoints":["a:1","b:1"],"shuffle_sharding_config":{"shard_size":3}}]`, "ketama", 1, "needs 3 endpoints",
		"which has 2")
	f(`[{"endpoints":["a:1","b:1"],"shuffle_sharding_config":{"shard_size":1}}]`, "ketama", 2,
		"below the replication factor 2")
	f(`[{"endpoints":["a:1"],"shuffle_sharding_config":{"shard_size":-1}}]`, "ketama", 1, "negative")
	f(`[{"endpoints":["a:1","b:1"],"shuffle_sharding_config":{"shard_size":1,"overrides":[{"shard_size":3,"tenants":["t"],"tenant_matcher_type":"exact"}]}}]`,
		"ketama", 1, "tenants t", "which has 2")
	f(`[{"hashring":"x","endpoints":["a"],"algorithm":"a"},{"hashring":"y","endpoints":["a"],"algorithm":"b"}]`, "", 1,
		`"x" (number 1)`, `"y" (number 2)`)
}

func TestFirstHashringOfATenantWins(t *testing.T) {
	p, err := Parse([]byte(`[
		{"tenants":["b","a"],"endpoints":["one:1"]},
		{"tenants":["a*"],"tenant_matcher_type":"glob","endpoints":["two:1"]}]`), "", 1)
	if err != nil {
		t.Fatal(err)
	}
	f := func(id tenant.ID, want ...string) {
		t.Helper()
		for range 2 { // the second time from the cache
			if got := replicas(p, id, 0); !slices.Equal(got, want) {
				t.Fatalf("tenant %s: %v, want %v", id, got, want)
			}
		}
	}
	f("a", "one:1")
	f("b", "one:1")
	f("ab", "two:1")
	f("c")
}

// Thanos never returns from placing on such a ring: two zones are full, and the third has one endpoint.
func TestKetamaWithZonesThatRunOut(t *testing.T) {
	p, err := Parse([]byte(`[{"endpoints":[{"address":"a","az":"1"},{"address":"b","az":"2"},{"address":"c","az":"2"},{"address":"d","az":"2"}]}]`),
		"ketama", 4)
	if err != nil {
		t.Fatal(err)
	}
	got := replicas(p, "t", rand.Uint64())
	slices.Sort(got)
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
		t.Fatalf("replicas %v, want %v", got, want)
	}
}

// Whatever number of tenants come, no more shards than asked are kept, and dropping one changes no answer.
func TestShardsAreBounded(t *testing.T) {
	p, err := Parse([]byte(`[{"endpoints":["a","b","c"],"shuffle_sharding_config":{"shard_size":2,"cache_size":3}}]`),
		"ketama", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := replicas(p, "t", 42)
	for i := range 10 {
		p.Replicas(nil, tenant.ID(fmt.Sprint(i)), 1)
	}
	if n := len(p.(*placement).rings[0].shards.shards); n != 3 {
		t.Fatalf("%d shards are kept, want 3", n)
	}
	if got := replicas(p, "t", 42); !slices.Equal(got, want) {
		t.Fatalf("replicas %v, before %v", got, want)
	}
}

func BenchmarkReplicas(b *testing.B) {
	f := func(name, config, algorithm string) {
		b.Run(name, func(b *testing.B) {
			p, err := Parse([]byte(config), algorithm, 3)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			dst, hash := make([]int32, 0, 3), uint64(0)
			for b.Loop() {
				hash += 0x9e3779b97f4a7c15
				dst = p.Replicas(dst[:0], "t", hash)
			}
		})
	}
	ten := `"endpoints":["0","1","2","3","4","5","6","7","8","9"]`
	f("hashmod", `[{`+ten+`}]`, Hashmod)
	f("ketama", `[{`+ten+`}]`, Ketama)
	f("ketama/by-tenant", `[{"tenants":["t"],`+ten+`}]`, Ketama)
	f("ketama/shuffle", `[{`+ten+`,"shuffle_sharding_config":{"shard_size":4}}]`, Ketama)
}

// An endpoint may be in several hashrings, with another zone in each. Its part of a tenant's limit is that of the
// hashring which serves the tenant, by the zones of that hashring.
func TestShareOfAnEndpointInTwoZones(t *testing.T) {
	p, err := Parse([]byte(`[
		{"tenants":["alone"],"endpoints":[{"address":"x","az":"1"},{"address":"b","az":"2"},{"address":"c","az":"2"},{"address":"d","az":"2"}]},
		{"endpoints":[{"address":"a","az":"1"},{"address":"x","az":"2"},{"address":"b","az":"2"},{"address":"c","az":"2"}]}]`), "ketama", 2)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[tenant.ID]float64{"alone": 1, "other": 1. / 3} {
		hits, keys := 0.0, 20_000
		for range keys {
			if slices.Contains(replicas(p, id, rand.Uint64()), "x") {
				hits++
			}
		}
		got := ring.SeriesPart(p, id, func(m ring.Member) bool { return m.Addr == "x" })
		if counted := hits / float64(keys); math.Abs(got-counted) > 0.02 || math.Abs(got-want) > 0.05 {
			t.Errorf("tenant %s: the part is %v, of random series %v, want about %v", id, got, counted, want)
		}
	}
}
