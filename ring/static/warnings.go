package static

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/ring"
)

// endpointsOf is how many endpoints rings have.
func endpointsOf(rings []hashring) (n int) {
	for _, r := range rings {
		n += len(r.Endpoints)
	}
	return n
}

// emptied reports hashrings that lose all their endpoints when next takes the place of current. An empty hashring is one that
// a controller has not filled yet. One that was filled before is a mistake of who writes the file: obeying it would refuse
// all writes of its tenants.
func lostEndpoints(current, next []hashring) error {
	if endpointsOf(current) > 0 && endpointsOf(next) == 0 {
		return errors.New("no hashring has endpoints any more")
	}
	var faults []error
	filled := func(rings []hashring, name string) (n int) { // names need not differ
		for _, r := range rings {
			if r.Name == name && len(r.Endpoints) > 0 {
				n++
			}
		}
		return n
	}
	for _, r := range next {
		if len(r.Endpoints) == 0 && filled(next, r.Name) < filled(current, r.Name) {
			faults = append(faults, fmt.Errorf("hashring %q has no endpoints any more", r.Name))
		}
	}
	return errors.Join(faults...)
}

// warnings tells what in valid hashrings will not do what it seems to say.
func warnings(rings []hashring, rf int) []string {
	var all []string
	warn := func(r hashring, format string, args ...any) {
		all = append(all, fmt.Sprintf("hashring %q: ", r.Name)+fmt.Sprintf(format, args...))
	}
	takesAll := -1
	for i, r := range rings {
		if takesAll >= 0 {
			warn(r, "it is never used: hashring %q before it takes all tenants", rings[takesAll].Name)
		} else if len(r.Tenants) == 0 {
			takesAll = i
		}
		if len(r.ExternalLabels) > 0 {
			warn(r, "external_labels are not added here; set them on its receivers")
		}
		for _, o := range r.Shuffle.Overrides {
			if o.TenantMatcher == "" {
				warn(r, "the shuffle sharding override for %s has no tenant_matcher_type and so, as in Thanos, no effect", strings.Join(o.Tenants, ", "))
			}
		}
		if n := len(r.Endpoints); n == 0 {
			warn(r, "it has no endpoints: writes of its tenants are answered 503 until it has")
		} else if n < ring.Quorum(rf) {
			warn(r, "every write to it is answered 503: it has %d endpoints, and with a replication factor of %d a write needs %d", n, rf, ring.Quorum(rf))
		} else if w := r.zoneWarning(rf); w != "" {
			warn(r, "%s", w)
		}
	}
	return all
}

// zoneWarning says why the zones of r do not do what they are for, "" where they do or where there are none.
func (r *hashring) zoneWarning(rf int) string {
	zones := map[string]int{}
	for _, e := range r.Endpoints {
		zones[e.Zone]++
	}
	if len(zones) == 1 {
		return ""
	}
	sizes := slices.Sorted(maps.Values(zones))
	switch {
	case zones[""] > 0:
		return fmt.Sprintf("%d of its %d endpoints have no az: they count as one more zone", zones[""], len(r.Endpoints))
	case len(zones) < rf:
		return fmt.Sprintf("its endpoints are in %d zones (az), fewer than the replication factor %d: one zone holds two copies of a series", len(zones), rf)
	case sizes[0] < sizes[len(sizes)-1]:
		return fmt.Sprintf("its zones (az) have from %d to %d endpoints: those of the smallest zone store the most series", sizes[0], sizes[len(sizes)-1])
	}
	return ""
}

// The keys that Thanos knows, of each kind of object in the file.
var (
	ringKeys     = []string{"hashring", "tenants", "tenant_matcher_type", "endpoints", "algorithm", "external_labels", "shuffle_sharding_config"}
	endpointKeys = []string{"address", "capnproto_address", "az"}
	shuffleKeys  = []string{"shard_size", "cache_size", "zone_awareness_disabled", "overrides"}
	overrideKeys = []string{"shard_size", "tenants", "tenant_matcher_type"}
)

// strangeKeys names the keys of a valid file that mean nothing. Thanos passes over them, and so must we: newer versions of it
// may have more.
func unknownKeys(content []byte) []string {
	var rings []map[string]json.RawMessage
	if json.Unmarshal(content, &rings) != nil {
		return nil // empty
	}
	var all []string
	look := func(where string, object map[string]json.RawMessage, known []string) {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, key) }) { // as the decoder does
				continue
			}
			text := fmt.Sprintf("%s: unknown key %q", where, key)
			if near := conf.Nearest(key, known); near != "" {
				text += fmt.Sprintf(", did you mean %q?", near)
			}
			all = append(all, text)
		}
	}
	for i, r := range rings {
		where := fmt.Sprintf("hashring number %d", i+1)
		look(where, r, ringKeys)
		for j, e := range objects(field(r, "endpoints")) {
			look(fmt.Sprintf("%s, endpoint number %d", where, j+1), e, endpointKeys)
		}
		shuffle := object(field(r, "shuffle_sharding_config"))
		look(where+", shuffle_sharding_config", shuffle, shuffleKeys)
		for j, o := range objects(field(shuffle, "overrides")) {
			look(fmt.Sprintf("%s, shuffle_sharding_config, override number %d", where, j+1), o, overrideKeys)
		}
	}
	return all
}

// field is the value of a key however it is spelt in capitals; nil for none.
func field(object map[string]json.RawMessage, key string) json.RawMessage {
	for k, v := range object {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return nil
}

// object is raw as an object, nil if it is none.
func object(raw json.RawMessage) map[string]json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil {
		return nil
	}
	return o
}

// objects are the elements of a list; those that are no objects are nil.
func objects(raw json.RawMessage) []map[string]json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	out := make([]map[string]json.RawMessage, len(list))
	for i, e := range list {
		out[i] = object(e)
	}
	return out
}
