package static

import (
	"crypto/md5"
	"encoding/binary"
	"math/rand"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// shuffle gives each tenant a ketama ring of some of the endpoints, which the tenant's name chooses.
type shuffle struct {
	config    shuffleConfig
	endpoints []endpoint
	members   []int32 // of each endpoint, its index in Placement.Members
	rf        int
	zones     []zoneSections

	mu     sync.RWMutex // guards shards
	shards map[tenant.ID]*ketama
}

// zoneSections are a zone's sections of the whole ring.
type zoneSections struct {
	zone   string
	hashes []uint64 // sorted
	owners []int    // of each section, the index of its endpoint
}

// zone is az, or "" if shuffle sharding must ignore zones.
func (c *shuffleConfig) zone(az string) string {
	if c.ZoneAwarenessDisabled {
		return ""
	}
	return az
}

// size is the shard size of a tenant. An override without a matcher type applies to nobody, as in Thanos.
func (c *shuffleConfig) size(id tenant.ID) int {
	for _, o := range c.Overrides {
		if o.TenantMatcher != "" && matches(o.Tenants, o.TenantMatcher, id) {
			return o.ShardSize
		}
	}
	return c.ShardSize
}

// takePerZone is the number of endpoints of each zone in a shard of size endpoints.
func takePerZone(size, zones int) int { return (size + zones - 1) / zones }

func newShuffle(whole *ketama, r *hashring, members []int32, rf int) *shuffle {
	s := &shuffle{config: r.Shuffle, endpoints: r.Endpoints, members: members, rf: rf, shards: map[tenant.ID]*ketama{}}
	if s.config.CacheSize <= 0 {
		s.config.CacheSize = 100
	}
	endpointOf := map[int32]int{}
	for i, m := range members {
		endpointOf[m] = i
	}
	for i, hash := range whole.hashes {
		e := endpointOf[whole.owners[i]]
		zone := s.config.zone(s.endpoints[e].Zone)
		z := slices.IndexFunc(s.zones, func(z zoneSections) bool { return z.zone == zone })
		if z < 0 {
			z = len(s.zones)
			s.zones = append(s.zones, zoneSections{zone: zone})
		}
		s.zones[z].hashes = append(s.zones[z].hashes, hash)
		s.zones[z].owners = append(s.zones[z].owners, e)
	}
	return s
}

// shard returns the ring of a tenant. It takes some milliseconds for a tenant that is not cached.
func (s *shuffle) shard(id tenant.ID) *ketama {
	s.mu.RLock()
	k := s.shards[id]
	s.mu.RUnlock()
	if k != nil {
		return k
	}
	k = s.build(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.shards { // drop any of them: it is made again when it is needed
		if len(s.shards) < s.config.CacheSize {
			break
		}
		delete(s.shards, other)
	}
	s.shards[id] = k
	return k
}

// build draws endpoints of each zone and makes a ring of them.
func (s *shuffle) build(id tenant.ID) *ketama {
	take := takePerZone(s.config.size(id), len(s.zones))
	var members []int32
	var endpoints []endpoint
	for _, z := range s.zones {
		for _, e := range z.draw(take, seed(id, z.zone)) {
			members = append(members, s.members[e])
			endpoints = append(endpoints, s.endpoints[e])
		}
	}
	return newKetama(members, endpoints, s.rf)
}

// draw picks take endpoints: each time the first one after a random point of the circle that is not picked yet.
func (z *zoneSections) draw(take int, seed int64) []int {
	random := rand.New(rand.NewSource(seed)) // math/rand and not v2: the numbers must be those of Thanos
	var picked []int
	for range take {
		start, _ := slices.BinarySearch(z.hashes, random.Uint64())
		for i := range z.hashes {
			e := z.owners[(start+i)%len(z.hashes)]
			if !slices.Contains(picked, e) {
				picked = append(picked, e)
				break
			}
		}
	}
	return picked
}

// seed is the first 8 bytes of md5(tenant [0 zone]), big-endian.
func seed(id tenant.ID, zone string) int64 {
	name := []byte(id)
	if zone != "" {
		name = append(append(name, 0), zone...)
	}
	sum := md5.Sum(name)
	return int64(binary.BigEndian.Uint64(sum[:]))
}
