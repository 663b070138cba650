package ring

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Sharding says on how many members each tenant's series are spread. Implementations are safe for concurrent use and
// answer from memory.
type Sharding interface {
	// Size is the number of members of a tenant's shard, 0 for all. Replicas are taken from it: a size below the replication
	// factor counts as that.
	Size(id tenant.ID) int
	// Version names the sizes of all tenants: equal where they are equal, on every process. "" = no tenant has a size.
	Version() string
}

// Shard picks size of the members for a tenant: their indexes in ascending order, all of them when size is 0 or they are
// no more. Only ids, which are distinct, and zones of the members matter.
//
// Every member has a score for the tenant, a hash of both names. The member with the k-th highest score in its zone has
// rank k; members are taken by rank, of equal ranks those with higher scores. So zones are used evenly, a larger size only
// adds members, and when a member comes or goes at most one other leaves the shard or enters it.
func Shard(members []Member, id tenant.ID, size int) []int32 {
	order := make([]int32, len(members))
	for i := range order {
		order[i] = int32(i)
	}
	if size <= 0 || size >= len(members) {
		return order
	}
	scores := make([]uint64, len(members))
	var buf []byte
	for i, m := range members {
		buf = append(append(append(buf[:0], id...), 0xff), m.ID...)
		scores[i] = xxhash.Sum64(buf)
	}
	higher := func(a, b int32) int {
		return cmp.Or(cmp.Compare(scores[b], scores[a]), strings.Compare(members[a].ID, members[b].ID))
	}
	slices.SortFunc(order, higher)
	met, ranks := map[string]int{}, make([]int, len(members))
	for _, i := range order {
		ranks[i] = met[members[i].Zone]
		met[members[i].Zone]++
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(ranks[a], ranks[b]), higher(a, b)) })
	order = order[:size]
	slices.Sort(order)
	return order
}

// ShardSize is the number of members a tenant's shard really has: at least one for each replica, 0 for all.
func ShardSize(size, rf int) int {
	if size <= 0 {
		return 0
	}
	return max(size, rf)
}

// For is p for one tenant: it places that tenant's series as p does, and finds the tenant's part of the ring once and not
// for each series. Members and their indexes are p's.
func For(p Placement, id tenant.ID) Placement {
	if s, ok := p.(*shuffled); ok {
		return s.shard(id)
	}
	return p
}

// shuffled is a token ring on which each tenant has a shard of the members.
type shuffled struct {
	*tokenRing
	source []TokenMember // sorted by id, as members
	placed []int32       // the members that may be placed
	sizes  Sharding

	mu     sync.RWMutex // guards what follows, which is only a cache
	shards map[tenant.ID]shard
	rings  map[string]*tokenRing // by their members: tenants share them
	tokens int                   // in rings
}

// shard is the ring of one tenant, as it is for a size.
type shard struct {
	size int
	ring *tokenRing
}

// The cache of shards is begun anew beyond these: some 30 MB of rings, some 10 MB of tenants.
const (
	maxShardTokens = 1 << 20
	maxShards      = 1 << 17
)

// NewShuffled is NewTokens where every tenant's series stay on the members of its shard (Shard). A shard is found when it is
// first asked for, in about a tenth of a millisecond, and again when its size changes.
func NewShuffled(members []TokenMember, rf int, sizes Sharding) Placement {
	s := &shuffled{source: sorted(members), sizes: sizes}
	s.tokenRing = newTokens(s.source, rf)
	for i, m := range s.source {
		if m.placed() {
			s.placed = append(s.placed, int32(i))
		}
	}
	s.reset()
	return s
}

// reset forgets all shards.
func (s *shuffled) reset() {
	s.shards, s.rings, s.tokens = map[tenant.ID]shard{}, map[string]*tokenRing{}, 0
}

// Replicas appends the members of the tenant's shard that store the hash.
func (s *shuffled) Replicas(dst []int32, id tenant.ID, hash uint64) []int32 {
	return s.shard(id).Replicas(dst, id, hash)
}

// shard is the ring of a tenant.
func (s *shuffled) shard(id tenant.ID) *tokenRing {
	size := ShardSize(s.sizes.Size(id), s.rf)
	if size == 0 || size >= len(s.placed) {
		return s.tokenRing
	}
	s.mu.RLock()
	known, ok := s.shards[id]
	s.mu.RUnlock()
	if ok && known.size == size {
		return known.ring
	}
	chosen := s.choose(id, size)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens > maxShardTokens || len(s.shards) > maxShards {
		s.reset()
	}
	key := string(chosen.key())
	ring := s.rings[key]
	if ring == nil {
		ring = s.compile(chosen)
		s.rings[key] = ring
		s.tokens += len(ring.tokens)
	}
	s.shards[id] = shard{size, ring}
	return ring
}

// indexes are those of members, ascending.
type indexes []int32

func (x indexes) key() (key []byte) {
	for _, i := range x {
		key = binary.LittleEndian.AppendUint32(key, uint32(i))
	}
	return key
}

// choose picks the members of a tenant's shard.
func (s *shuffled) choose(id tenant.ID, size int) indexes {
	candidates := make([]Member, len(s.placed))
	for i, m := range s.placed {
		candidates[i] = s.members[m]
	}
	chosen := indexes(Shard(candidates, id, size))
	for i, c := range chosen {
		chosen[i] = s.placed[c]
	}
	return chosen
}

// compile makes the ring of chosen members. The others stay in it, not placed, so that indexes are the same.
func (s *shuffled) compile(chosen indexes) *tokenRing {
	masked := make([]TokenMember, len(s.source))
	for i, m := range s.source {
		masked[i] = TokenMember{Member: m.Member, ReadOnly: true}
	}
	for _, i := range chosen {
		masked[i] = s.source[i]
	}
	r := newTokens(masked, s.rf)
	r.members = s.members
	return r
}

// MembersFor are the indexes in p.Members of those that may store new series of a tenant, ascending.
func MembersFor(p Placement, id tenant.ID) []int32 {
	var all []int32
	switch r := For(p, id).(type) {
	case *tokenRing:
		return r.placed()
	default:
		for i := range p.Members() {
			all = append(all, int32(i))
		}
	}
	return all
}
