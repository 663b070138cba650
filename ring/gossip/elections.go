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

// Elections is the gossiped election of each cluster of HA pairs: one value for each tenant, under the key ha/<tenant>.
// It is of no use before g is open. Its methods may be called concurrently.
type Elections struct{ g *Gossip }

// Elections gives access to the elections of HA pairs.
func (g *Gossip) Elections() *Elections { return &Elections{g} }

const (
	electionsPrefix = "ha/"
	// maxElections bounds the decoded size of one tenant's elections, in bytes.
	maxElections = 64 << 20
	// publishTimeout bounds one change of the local store, which waits for nobody.
	publishTimeout = 5 * time.Second
)

// Publish tells all processes of elections of a tenant, by cluster. They are merged with what is known.
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

// All calls f with everything that is known, clusters that were given up included; it may not keep the map.
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

// Watch calls f with what changes, until ctx ends. In a storm of changes it may miss some: All tells them.
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

// tell hands a gossiped value to f. A key that no Hearth process writes is none of ours.
func deliver(key string, value any, f func(tenant.ID, map[string]election.State)) {
	states, ok := value.(elections)
	id, err := tenant.Parse(strings.TrimPrefix(key, electionsPrefix))
	if ok && err == nil {
		f(id, states)
	}
}

// elections is the gossiped value: the states of one tenant, by cluster.
type elections map[string]election.State

// Merge takes what is to be believed of each cluster, and returns what changed, nil for nothing.
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

// MergeContent names the clusters: a newer message about all of those of an older one replaces it in the queue.
func (e elections) MergeContent() []string {
	names := make([]string, 0, len(e))
	for cluster := range e {
		names = append(names, cluster)
	}
	return names
}

// RemoveTombstones drops the clusters that were given up before limit. The zero limit, with which the store hides them from
// readers, drops none: Publish must see that what it has to say is old, or else the store sleeps and tries again.
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

// Clone is a copy.
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
	count(c.refused, take(out, in, maxPairs, func(cluster string, s election.State) bool { return validElection(cluster, s, now) }))
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
