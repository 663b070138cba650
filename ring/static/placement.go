package static

import (
	"slices"
	"strings"
	"sync"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// Parse makes a placement with rf replicas from the content of a hashring file. algorithm is for the hashrings that
// name none: Hashmod (also if "") or Ketama. The error names every fault and the hashrings that have them.
func Parse(content []byte, algorithm string, rf int) (ring.Placement, error) {
	rings, err := parseConfig(content, algorithm, rf)
	if err != nil {
		return nil, err
	}
	return compile(rings, rf), nil
}

// tenantRing is the ring on which one tenant's series are placed. replicas appends the indexes of the members for a
// hash.
type tenantRing interface {
	replicas(dst []int32, hash uint64) []int32
}

// placement is all hashrings of a file.
type placement struct {
	rf      int
	members []ring.Member
	rings   []compiled

	mu    sync.RWMutex // guards cache
	cache map[tenant.ID]int
}

// compiled is a hashring with its ring: plain for all tenants, or a ring for each tenant if shards is set.
type compiled struct {
	config hashring
	plain  tenantRing
	shards *shuffle // nil = no shuffle sharding
}

// cachedTenants is the largest number of tenants in placement.cache. The hashring of other tenants is looked for each
// time.
const cachedTenants = 10_000

func compile(rings []hashring, rf int) *placement {
	p := &placement{rf: rf, cache: map[tenant.ID]int{}}
	for _, r := range rings {
		for _, e := range r.Endpoints {
			p.members = append(p.members, ring.Member{ID: e.Address, Addr: e.Address, Zone: e.Zone})
		}
	}
	// An endpoint of several hashrings is one member. Its Zone is that of the first of them; each hashring still spreads
	// replicas by its own zones.
	slices.SortStableFunc(p.members, func(a, b ring.Member) int { return strings.Compare(a.ID, b.ID) })
	p.members = slices.CompactFunc(p.members, func(a, b ring.Member) bool { return a.ID == b.ID })
	for _, r := range rings {
		c := compiled{config: r}
		members := make([]int32, len(r.Endpoints))
		for i, e := range r.Endpoints {
			at, _ := slices.BinarySearchFunc(p.members, e.Address, func(m ring.Member, id string) int {
				return strings.Compare(m.ID, id)
			})
			members[i] = int32(at)
		}
		if r.Algorithm == Hashmod || len(members) == 0 {
			slices.Sort(members) // members are sorted by address, so this sorts by address
			c.plain = &hashmod{members: members, rf: rf}
		} else {
			whole := newKetama(members, r.Endpoints, rf)
			c.plain = whole
			if r.Shuffle.ShardSize > 0 {
				c.shards = newShuffle(whole, &r, members, rf)
			}
		}
		p.rings = append(p.rings, c)
	}
	return p
}

// Members are the endpoints of all hashrings by address, each once.
func (p *placement) Members() []ring.Member { return p.members }

// ReplicationFactor is the configured one.
func (p *placement) ReplicationFactor() int { return p.rf }

// Replicas appends the members on the first hashring that serves the tenant, none if no hashring does.
func (p *placement) Replicas(dst []int32, id tenant.ID, hash uint64) []int32 {
	i := p.ringOf(id)
	if i < 0 {
		return dst
	}
	if s := p.rings[i].shards; s != nil {
		return s.shard(id).replicas(dst, hash)
	}
	return p.rings[i].plain.replicas(dst, hash)
}

// ringOf is the index of the first hashring that serves the tenant, or -1.
func (p *placement) ringOf(id tenant.ID) int {
	switch {
	case len(p.rings) == 0:
		return -1
	case len(p.rings[0].config.Tenants) == 0:
		return 0
	}
	p.mu.RLock()
	i, ok := p.cache[id]
	p.mu.RUnlock()
	if ok {
		return i
	}
	i = slices.IndexFunc(p.rings, func(c compiled) bool { return c.config.serves(id) })
	p.mu.Lock()
	if len(p.cache) < cachedTenants {
		p.cache[id] = i
	}
	p.mu.Unlock()
	return i
}
