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

// endpointsOf counts the endpoints of rings.
func endpointsOf(rings []hashring) (n int) {
	for _, r := range rings {
		n += len(r.Endpoints)
	}
	return n
}

// lostEndpoints returns an error for hashrings that would lose all their endpoints if next replaced current. A
// hashring that was always empty waits for a controller to fill it. One that had endpoints was emptied by mistake:
// without them every write of its tenants would fail.
func lostEndpoints(current, next []hashring) error {
	if endpointsOf(current) > 0 && endpointsOf(next) == 0 {
		return errors.New("no hashring has endpoints any more")
	}
	var faults []error
	filled := func(rings []hashring, name string) (n int) { // several hashrings may have one name
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

// warnings lists what in valid hashrings does not do what it seems to say.
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
				warn(r, "the shuffle sharding override for %s has no tenant_matcher_type and so, as in Thanos, no effect",
					strings.Join(o.Tenants, ", "))
			}
		}
		if n := len(r.Endpoints); n == 0 {
			warn(r, "it has no endpoints: writes of its tenants are answered 503 until it has")
		} else if n < ring.Quorum(rf) {
			warn(r, "every write to it is answered 503: "+
				"it has %d endpoints, and with a replication factor of %d a write needs %d",
				n, rf, ring.Quorum(rf))
		} else if w := r.zoneWarning(rf); w != "" {
			warn(r, "%s", w)
		}
	}
	return all
}

// zoneWarning says why the zones of r do not spread copies evenly, "" if they do or if there are none.
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
		return fmt.Sprintf("its endpoints are in %d zones (az), fewer than the replication factor %d: "+
			"one zone holds two copies of a series", len(zones), rf)
	case sizes[0] < sizes[len(sizes)-1]:
		return fmt.Sprintf("its zones (az) have from %d to %d endpoints: those of the smallest zone store the most series",
			sizes[0], sizes[len(sizes)-1])
	}
	return ""
}

// The keys that Thanos knows, for each kind of object in the file.
var (
	ringKeys = []string{"hashring", "tenants", "tenant_matcher_type", "endpoints", "algorithm", "external_labels",
		"shuffle_sharding_config"}
	endpointKeys = []string{"address", "capnproto_address", "az"}
	shuffleKeys  = []string{"shard_size", "cache_size", "zone_awareness_disabled", "overrides"}
	overrideKeys = []string{"shard_size", "tenants", "tenant_matcher_type"}
)

// unknownKeys lists the keys of a valid file that have no meaning. Thanos ignores them, and so must Hearth: newer
// versions of Thanos may have more keys.
func unknownKeys(content []byte) []string {
	var rings []map[string]json.RawMessage
	if json.Unmarshal(content, &rings) != nil {
		return nil // an empty file
	}
	var all []string
	look := func(where string, object map[string]json.RawMessage, known []string) {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			// The decoder ignores case too.
			if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, key) }) {
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

// field returns the value of a key, whatever its case; nil for none.
func field(object map[string]json.RawMessage, key string) json.RawMessage {
	for k, v := range object {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return nil
}

// object decodes raw as an object; nil if it is none.
func object(raw json.RawMessage) map[string]json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil {
		return nil
	}
	return o
}

// objects decodes raw as a list of objects. Elements that are no objects are nil.
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
