package ring

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Sharding says on how many members each tenant's series are spread. The sizes are limits of the tenants and may
// change at any time. Implementations are safe for concurrent use and answer from memory, since every write asks.
type Sharding interface {
	// Size is the number of members of a tenant's shard, 0 for all. A size below the replication factor counts as the
	// replication factor, since a shard must have a member for each replica.
	Size(id tenant.ID) int
	// Version names the sizes of all tenants. Two processes with equal sizes have equal versions. "" = no tenant has a
	// size.
	Version() string
}

// Shard picks size of the members for a tenant and returns their indexes, ascending. If size is 0, or there are size
// members or fewer, it returns all. The chosen ones are the owners of the tenant's name (Owners). So zones are used
// evenly, a larger size only adds members, and when a member joins or leaves, at most one other member enters or
// leaves the shard.
func Shard(members []Member, id tenant.ID, size int) []int32 {
	if size <= 0 {
		size = len(members)
	}
	shard := Owners(members, []byte(id), size)
	slices.Sort(shard)
	return shard
}

// ShardSize is the number of members that a tenant's shard needs when its limit is size: at least one for each of rf
// replicas. 0 = all members.
func ShardSize(size, rf int) int {
	if size <= 0 {
		return 0
	}
	return max(size, rf)
}

// For returns the placement of one tenant: it places that tenant's series as p does now, and does not change when the
// size of the tenant's shard changes. It finds the tenant's part of the ring once and not for each series. Members
// and their indexes are those of p.
func For(p Placement, id tenant.ID) Placement {
	if s, ok := p.(*shuffled); ok {
		return s.ringOf(id)
	}
	return p
}

// shuffled is a token ring on which the series of each tenant stay on a shard of the members.
type shuffled struct {
	*tokenRing
	source []TokenMember // sorted by id, as members
	placed []int32       // the members that may be placed
	sizes  Sharding

	mu     sync.RWMutex // guards the fields below, which are a cache
	shards map[tenant.ID]cachedShard
	rings  map[string]*tokenRing // by indexes.key of the shard: tenants with one shard share its ring
	tokens int                   // the number of tokens in rings
}

// cachedShard is the ring of one tenant, and the size for which it was made.
type cachedShard struct {
	size int
	ring *tokenRing
}

// The cache of shards is emptied when it holds more than this, so that it takes at most about 30 MB for rings and 10
// MB for tenants.
const (
	maxShardTokens = 1 << 20
	maxShards      = 1 << 17
)

// NewShuffled is NewTokens with shuffle sharding: every tenant's series stay on the members of its shard (Shard).
// Each call of For and Replicas asks sizes. A shard is computed when it is first needed, in about a tenth of a
// millisecond, and again when its size changes.
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

// reset empties the cache.
func (s *shuffled) reset() {
	s.shards, s.rings, s.tokens = map[tenant.ID]cachedShard{}, map[string]*tokenRing{}, 0
}

// Replicas appends the members of the tenant's shard that store the hash.
func (s *shuffled) Replicas(dst []int32, id tenant.ID, hash uint64) []int32 {
	return s.ringOf(id).Replicas(dst, id, hash)
}

// ringOf returns the ring of a tenant: that of its shard, or of all members if it has no smaller shard.
func (s *shuffled) ringOf(id tenant.ID) *tokenRing {
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
	s.shards[id] = cachedShard{size, ring}
	return ring
}

// indexes are positions in shuffled.members, ascending.
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

// compile makes the ring of the chosen members. The others stay in it as read-only members, so that indexes are the
// same in every ring.
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

// MembersFor returns the indexes into p.Members of the members that may store new series of a tenant, ascending. For
// a placement that is not made of tokens it returns all members.
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
