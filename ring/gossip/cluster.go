package gossip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// clusterKey is the key of the cluster value in the gossiped store.
const clusterKey = "cluster"

// maxCluster bounds the decoded size of a gossiped cluster value, in bytes.
const maxCluster = 64 << 20

// cluster is the gossiped value for what a ring descriptor has no field for. Processes and Incarnations are entries
// that are replaced as a whole by their newest version. Versions are totally ordered, so merging is commutative,
// associative and idempotent. Shardings and Factors are joined (usage.join), which is so too.
type cluster struct {
	// Processes has the instance id as its key.
	Processes map[string]process `json:"processes,omitempty"`
	// Incarnations has incarnationKey as its key.
	Incarnations map[string]incarnation `json:"incarnations,omitempty"`
	// Shardings says when series were placed by which shard sizes. The key is the version of the sizes.
	Shardings map[string]usage `json:"shardings,omitempty"`
	// Factors says when series were placed by which replication factor. The key is the factor as text.
	Factors map[string]usage `json:"factors,omitempty"`
}

// process is what a process says of itself, without its heartbeats.
type process struct {
	ID       string   `json:"id"`
	Addr     string   `json:"addr"` // gRPC
	HTTPAddr string   `json:"http,omitempty"`
	Zone     string   `json:"zone,omitempty"`
	Roles    []string `json:"roles,omitempty"`
	RF       int      `json:"rf,omitempty"`        // 0 = it uses the cluster's
	Bucket   string   `json:"bucket,omitempty"`    // "" = none
	Contents string   `json:"contents,omitempty"`  // of a bucket without an id
	Since    int64    `json:"since,omitempty"`     // start of its data, Unix seconds
	ReadOnly int64    `json:"read_only,omitempty"` // since when it takes no writes, Unix seconds; 0 = it does
	Broken   int      `json:"broken,omitempty"`    // number of its tenants that are quarantined
	Off      bool     `json:"off,omitempty"`       // its clock was found to be wrong: its times are not used
	Left     bool     `json:"left,omitempty"`      // a tombstone
	Updated  int64    `json:"updated"`             // version, Unix ms or more

	// unnamed says that the bucket of this process has no identity. Others do not hear it: only a process itself knows
	// how new that is.
	unnamed bool
}

// incarnation is a ring.Incarnation, times in Unix seconds.
type incarnation struct {
	ID      string `json:"id"`
	Addr    string `json:"addr"`
	Zone    string `json:"zone,omitempty"`
	Since   int64  `json:"since"`
	Until   int64  `json:"until,omitempty"` // 0 = a member
	Drained bool   `json:"drained,omitempty"`
	// Off says that the member's clock was found to be wrong: nobody knows when the incarnation began and since when it
	// has had a place.
	Off bool `json:"off,omitempty"`
	// Placed and ReadOnly are those of ring.Incarnation. Placed = 0: not known. ReadOnly = 0: it is not read-only.
	Placed   int64 `json:"placed,omitempty"`
	ReadOnly int64 `json:"read_only,omitempty"`
	// Expires is when a closed incarnation may be dropped. It is written down so that all members drop it at one time;
	// else one would bring back what another dropped.
	Expires int64 `json:"expires,omitempty"`
	Updated int64 `json:"updated"` // version, Unix ms or more
}

func incarnationKey(id string, since int64) string { return id + "@" + strconv.FormatInt(since, 10) }

// newer reports whether a replaces b. It is a total order, so that all members choose the same one.
func newer[T process | incarnation](a, b T, aUpdated, bUpdated int64) bool {
	if aUpdated != bUpdated {
		return aUpdated > bUpdated
	}
	return bytes.Compare(mustJSON(a), mustJSON(b)) > 0
}

// version is the version of an entry that is changed at now; old is its version before.
func version(now time.Time, old int64) int64 { return max(now.UnixMilli(), old+1) }

// Merge takes the newer of each entry into c and returns the entries that changed, nil for none. An entry that other
// lacks stays, also after a local CAS: entries end as tombstones.
func (c *cluster) Merge(other memberlist.Mergeable, _ bool) (memberlist.Mergeable, error) {
	if other == nil {
		return nil, nil
	}
	o, ok := other.(*cluster)
	if !ok {
		return nil, fmt.Errorf("merge of a cluster value with a %T", other)
	}
	if o == nil {
		return nil, nil
	}
	change := newCluster()
	for id, p := range o.Processes {
		old, ok := c.Processes[id]
		if !ok && !full(c.Processes, id, maxProcesses) || ok && newer(p, old, p.Updated, old.Updated) {
			c.Processes[id], change.Processes[id] = p, p
		}
	}
	for key, i := range o.Incarnations {
		old, ok := c.Incarnations[key]
		if !ok && !full(c.Incarnations, key, maxIncarnations) || ok && newer(i, old, i.Updated, old.Updated) {
			c.Incarnations[key], change.Incarnations[key] = i, i
		}
	}
	joinAll(c.Shardings, o.Shardings, change.Shardings, maxShardings)
	joinAll(c.Factors, o.Factors, change.Factors, maxRF)
	if len(change.Processes)+len(change.Incarnations)+len(change.Shardings)+len(change.Factors) == 0 {
		return nil, nil
	}
	return change, nil
}

// MergeContent names the entries, so that a newer message about all entries of an older one replaces it in the queue.
func (c *cluster) MergeContent() []string {
	names := make([]string, 0, len(c.Processes)+len(c.Incarnations)+len(c.Shardings)+len(c.Factors))
	for id := range c.Processes {
		names = append(names, "process "+id)
	}
	for key := range c.Incarnations {
		names = append(names, "incarnation "+key)
	}
	for version := range c.Shardings {
		names = append(names, "sharding "+version)
	}
	for rf := range c.Factors {
		names = append(names, "factor "+rf)
	}
	return names
}

// RemoveTombstones drops processes that left before limit and incarnations that expired before it. With the zero
// limit the store asks to hide tombstones from readers. Nothing is hidden: a process that writes its record again
// must see the tombstone, since the record must be newer.
func (c *cluster) RemoveTombstones(limit time.Time) (total, removed int) {
	for id, p := range c.Processes {
		if !p.Left {
			continue
		}
		if !limit.IsZero() && p.Updated < limit.UnixMilli() {
			delete(c.Processes, id)
			removed++
		} else {
			total++
		}
	}
	if limit.IsZero() {
		return total, removed
	}
	for key, i := range c.Incarnations {
		if i.Until != 0 && i.Expires < limit.Unix() {
			delete(c.Incarnations, key)
			removed++
		}
	}
	for _, usages := range []map[string]usage{c.Shardings, c.Factors} {
		for key, s := range usages {
			if s.Expires < limit.Unix() {
				delete(usages, key)
				removed++
			}
		}
	}
	return total, removed
}

// Clone is a deep copy.
func (c *cluster) Clone() memberlist.Mergeable { return c.clone() }

func (c *cluster) clone() *cluster {
	out := newCluster()
	for id, p := range c.Processes {
		p.Roles = slices.Clone(p.Roles)
		out.Processes[id] = p
	}
	for key, i := range c.Incarnations {
		out.Incarnations[key] = i
	}
	maps.Copy(out.Shardings, c.Shardings)
	maps.Copy(out.Factors, c.Factors)
	return out
}

func newCluster() *cluster {
	return &cluster{
		Processes: map[string]process{}, Incarnations: map[string]incarnation{},
		Shardings: map[string]usage{}, Factors: map[string]usage{},
	}
}

// clusterCodec writes a cluster as JSON in snappy. Fields unknown to a reader are ignored.
type clusterCodec struct{ refused prometheus.Counter } // may be nil

// CodecID names the form on the wire; another form gets another name.
func (clusterCodec) CodecID() string { return "hearthCluster1" }

// Decode is the inverse of Encode. An empty value is an empty cluster.
func (k clusterCodec) Decode(b []byte) (any, error) {
	b, err := decodeSnappy("cluster value", b, maxCluster)
	if err != nil {
		return nil, err
	}
	in, out := cluster{}, newCluster()
	if len(b) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("cluster value: %w", err)
	}
	count(k.refused, out.take(&in, time.Now().Unix()))
	return out, nil
}

// take copies the valid entries of in into c and returns the number of entries that it left out. in may hold
// anything. now is Unix seconds.
func (c *cluster) take(in *cluster, now int64) (refused int) {
	for id, p := range in.Processes {
		p.ID = id
		in.Processes[id] = p
	}
	return take(c.Processes, in.Processes, maxProcesses, func(_ string, p process) bool { return p.valid(now) }) +
		take(c.Incarnations, in.Incarnations, maxIncarnations, func(key string, i incarnation) bool {
			return key == incarnationKey(i.ID, i.Since) && i.valid(now)
		}) +
		take(c.Shardings, in.Shardings, maxShardings, func(version string, s usage) bool {
			return validText(version, maxText) && s.valid(now)
		}) +
		take(c.Factors, in.Factors, maxRF, func(rf string, s usage) bool {
			n, err := strconv.Atoi(rf)
			return err == nil && n > 0 && n <= maxRF && strconv.Itoa(n) == rf && s.valid(now)
		})
}

// Encode writes a *cluster.
func (clusterCodec) Encode(v any) ([]byte, error) {
	c, ok := v.(*cluster)
	if !ok {
		return nil, fmt.Errorf("encode a %T as a cluster value", v)
	}
	return snappy.Encode(nil, mustJSON(c)), nil
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: gossip value is not JSON: " + err.Error())
	}
	return b
}
