package static

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// The algorithms, by the names that they have in the file and in flags.
const (
	Hashmod = "hashmod" // the default, as in Thanos
	Ketama  = "ketama"
)

// hashring is one element of the file.
type hashring struct {
	Name           string            `json:"hashring"`
	Tenants        []string          `json:"tenants"` // empty = all tenants
	TenantMatcher  string            `json:"tenant_matcher_type"`
	Endpoints      []endpoint        `json:"endpoints"`
	Algorithm      string            `json:"algorithm"`
	ExternalLabels map[string]string `json:"external_labels"`
	Shuffle        shuffleConfig     `json:"shuffle_sharding_config"`
}

type shuffleConfig struct {
	ShardSize             int             `json:"shard_size"` // 0 = no shuffle sharding
	CacheSize             int             `json:"cache_size"`
	ZoneAwarenessDisabled bool            `json:"zone_awareness_disabled"`
	Overrides             []shardOverride `json:"overrides"`
}

type shardOverride struct {
	ShardSize     int      `json:"shard_size"`
	Tenants       []string `json:"tenants"`
	TenantMatcher string   `json:"tenant_matcher_type"`
}

// endpoint is a receiver. In the file it is a string with its address, or an object. Hearth does not use its Cap'n
// Proto address.
type endpoint struct {
	Address string `json:"address"`
	Zone    string `json:"az"`
}

// UnmarshalJSON reads either form.
func (e *endpoint) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &e.Address) == nil {
		return nil
	}
	type object endpoint
	return json.Unmarshal(data, (*object)(e))
}

// parseConfig reads the content of the file and reports every fault of it. It sets algorithm in hashrings that name
// none. A file without hashrings and a hashring without endpoints are valid: a controller has not filled them yet.
func parseConfig(content []byte, algorithm string, rf int) ([]hashring, error) {
	if algorithm == "" {
		algorithm = Hashmod
	}
	var rings []hashring
	if content = bytes.TrimSpace(content); len(content) > 0 {
		if err := json.Unmarshal(content, &rings); err != nil {
			return nil, fmt.Errorf("hashrings are not valid JSON: %w", err)
		}
	}
	if rf < 1 {
		return nil, fmt.Errorf("replication factor %d: must be at least 1", rf)
	}
	var faults []error
	for i := range rings {
		r := &rings[i]
		if r.Algorithm == "" {
			r.Algorithm = algorithm
		}
		for _, err := range r.faults(rf) {
			faults = append(faults, fmt.Errorf("hashring %q (number %d): %w", r.Name, i+1, err))
		}
	}
	return rings, errors.Join(faults...)
}

func (r *hashring) faults(rf int) []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	seen := map[string]bool{}
	for i, e := range r.Endpoints {
		switch {
		case e.Address == "":
			fault("endpoint number %d has no address", i+1)
		case seen[e.Address]:
			fault("endpoint %s is listed twice", e.Address)
		case e.Zone != "" && r.Algorithm == Hashmod:
			fault("endpoint %s has an az, which needs the algorithm %s", e.Address, Ketama)
		}
		seen[e.Address] = true
	}
	switch {
	case len(r.Endpoints) == 0:
	case r.Algorithm != Hashmod && r.Algorithm != Ketama:
		fault("algorithm %q is neither %s nor %s", r.Algorithm, Hashmod, Ketama)
	case r.Algorithm == Ketama && len(r.Endpoints) < rf:
		fault("%d endpoints are fewer than the replication factor %d", len(r.Endpoints), rf)
	case r.Shuffle.ShardSize < 0:
		fault("shuffle sharding: shard size %d is negative", r.Shuffle.ShardSize)
	case r.Shuffle.ShardSize > 0 && r.Algorithm != Ketama:
		fault("shuffle sharding needs the algorithm %s", Ketama)
	case r.Shuffle.ShardSize > 0:
		faults = append(faults, r.shardFaults(rf)...)
	}
	return append(faults, matcherFaults(r.Tenants, r.TenantMatcher)...)
}

// shardFaults reports shard sizes that leave too few endpoints to place a tenant's series.
func (r *hashring) shardFaults(rf int) []error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("shuffle sharding: "+format, args...))
	}
	zones := r.zoneSizes()
	check := func(size int, whose string) {
		take := takePerZone(size, len(zones))
		for zone, n := range zones {
			if take > n {
				fault("shard size %d of %s needs %d endpoints in az %q, which has %d", size, whose, take, zone, n)
			}
		}
		if take*len(zones) < rf {
			fault("shard size %d of %s is below the replication factor %d", size, whose, rf)
		}
	}
	check(r.Shuffle.ShardSize, "all tenants")
	for _, o := range r.Shuffle.Overrides {
		check(o.ShardSize, "tenants "+strings.Join(o.Tenants, ", "))
		faults = append(faults, matcherFaults(o.Tenants, o.TenantMatcher)...)
	}
	return faults
}

// zoneSizes counts the endpoints of each zone. If shuffle sharding ignores zones, all endpoints are in zone "".
func (r *hashring) zoneSizes() map[string]int {
	zones := map[string]int{}
	for _, e := range r.Endpoints {
		zones[r.Shuffle.zone(e.Zone)]++
	}
	return zones
}

func matcherFaults(tenants []string, matcher string) []error {
	var faults []error
	switch matcher {
	case "", "exact":
	case "glob":
		for _, p := range tenants {
			if _, err := path.Match(p, ""); err != nil {
				faults = append(faults, fmt.Errorf("tenants: pattern %q: %w", p, err))
			}
		}
	default:
		faults = append(faults, fmt.Errorf("tenant matcher type %q is neither exact nor glob", matcher))
	}
	return faults
}

// serves reports whether the hashring takes the series of tenant id.
func (r *hashring) serves(id tenant.ID) bool {
	return len(r.Tenants) == 0 || matches(r.Tenants, r.TenantMatcher, id)
}

// matches reports whether id is among tenants. These are names or, with matcher "glob", patterns of path.Match.
func matches(tenants []string, matcher string, id tenant.ID) bool {
	for _, t := range tenants {
		if matcher != "glob" {
			if t == string(id) {
				return true
			}
		} else if ok, _ := path.Match(t, string(id)); ok {
			return true
		}
	}
	return false
}
