package gossip

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring/election"
)

// Elections is the gossiped elections of HA pairs: one value for each tenant, under the key ha/<tenant>, with one
// election for each pair. Before g is open its methods return errs.Unavailable, and Watch returns at once. Its
// methods may be called concurrently.
type Elections struct{ g *Gossip }

// Elections gives access to the elections of HA pairs.
func (g *Gossip) Elections() *Elections { return &Elections{g} }

const (
	electionsPrefix = "ha/"
	// maxElections bounds the decoded size of one tenant's elections, in bytes.
	maxElections = 64 << 20
	// publishTimeout bounds one change of the local store. The change waits for no other member.
	publishTimeout = 5 * time.Second
)

// Publish merges elections of a tenant, by cluster label, into what is known. Gossip then spreads them to all
// processes. It does not keep the map.
func (e *Elections) Publish(ctx context.Context, id tenant.ID, states map[string]election.State) error {
	client, err := e.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return client.CAS(ctx, electionsPrefix+string(id), func(in any) (any, bool, error) {
		known := elections{}
		if have, ok := in.(elections); ok {
			known = have
		}
		if changed, _ := known.Merge(elections(states), true); changed == nil {
			return nil, false, nil
		}
		return known, true, nil
	})
}

// All calls f with everything that is known, including clusters that were given up. f may not keep or change the map.
func (e *Elections) All(ctx context.Context, f func(tenant.ID, map[string]election.State)) error {
	client, err := e.client()
	if err != nil {
		return err
	}
	keys, err := client.List(ctx, electionsPrefix)
	if err != nil {
		return err
	}
	for _, key := range keys {
		value, err := client.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("gossiped value %s: %w", key, err)
		}
		deliver(key, value, f)
	}
	return nil
}

// Watch calls f with the elections of a tenant when they change, until ctx ends. If much changes at once it may miss
// some changes; All has them.
func (e *Elections) Watch(ctx context.Context, f func(tenant.ID, map[string]election.State)) {
	client, err := e.client()
	if err != nil {
		return
	}
	client.WatchPrefix(ctx, electionsPrefix, func(key string, value any) bool {
		deliver(key, value, f)
		return true
	})
}

func (e *Elections) client() (kv.Client, error) {
	if err := e.g.available(); err != nil {
		return nil, err
	}
	return e.g.Client(electionsCodec{})
}

// deliver calls f with a gossiped value. A key that no Hearth process writes is ignored.
func deliver(key string, value any, f func(tenant.ID, map[string]election.State)) {
	states, ok := value.(elections)
	id, err := tenant.Parse(strings.TrimPrefix(key, electionsPrefix))
	if ok && err == nil {
		f(id, states)
	}
}

// elections is the gossiped value: the states of one tenant, by cluster label.
type elections map[string]election.State

// Merge merges the states of each cluster (election.Merge) and returns what changed, nil for nothing.
func (e elections) Merge(other memberlist.Mergeable, _ bool) (memberlist.Mergeable, error) {
	if other == nil {
		return nil, nil
	}
	o, ok := other.(elections)
	if !ok {
		return nil, fmt.Errorf("merge of elections with a %T", other)
	}
	change := elections{}
	for cluster, s := range o {
		if merged := election.Merge(e[cluster], s); merged != e[cluster] && !full(e, cluster, maxPairs) {
			e[cluster], change[cluster] = merged, merged
		}
	}
	if len(change) == 0 {
		return nil, nil
	}
	return change, nil
}

// MergeContent names the clusters, so that a newer message about all clusters of an older one replaces it in the
// queue.
func (e elections) MergeContent() []string {
	names := make([]string, 0, len(e))
	for cluster := range e {
		names = append(names, cluster)
	}
	return names
}

// RemoveTombstones drops the clusters that were given up before limit. With the zero limit the store asks to hide
// them from readers. None is hidden: Publish must see that its states are old, or else the store would find no
// change, sleep and try again.
func (e elections) RemoveTombstones(limit time.Time) (total, removed int) {
	for cluster, s := range e {
		switch {
		case !s.Gone():
		case !limit.IsZero() && s.Deleted < limit.UnixMilli():
			delete(e, cluster)
			removed++
		default:
			total++
		}
	}
	return total, removed
}

// Clone returns a copy.
func (e elections) Clone() memberlist.Mergeable {
	out := make(elections, len(e))
	for cluster, s := range e {
		out[cluster] = s
	}
	return out
}

// electionsCodec writes elections as JSON in snappy. Fields unknown to a reader are ignored.
type electionsCodec struct{ refused prometheus.Counter } // may be nil

// CodecID names the form on the wire; another form gets another name.
func (electionsCodec) CodecID() string { return "hearthElections1" }

// Decode is the inverse of Encode. An empty value is no elections.
func (c electionsCodec) Decode(b []byte) (any, error) {
	b, err := decodeSnappy("elections", b, maxElections)
	if err != nil {
		return nil, err
	}
	in, out := elections{}, elections{}
	if len(b) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("elections: %w", err)
	}
	now := time.Now().Unix()
	count(c.refused, take(out, in, maxPairs, func(cluster string, s election.State) bool {
		return validElection(cluster, s, now)
	}))
	return out, nil
}

// Encode writes elections.
func (electionsCodec) Encode(v any) ([]byte, error) {
	e, ok := v.(elections)
	if !ok {
		return nil, fmt.Errorf("encode a %T as elections", v)
	}
	return snappy.Encode(nil, mustJSON(e)), nil
}
