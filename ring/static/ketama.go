package static

import (
	"math"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// sectionsPerEndpoint is the number that Thanos has. Another one would move almost every series.
const sectionsPerEndpoint = 1000

// ketama is consistent hashing: each endpoint owns sections of the 64-bit circle, and each section knows its replicas.
type ketama struct {
	hashes []uint64 // the ends of the sections, sorted
	owners []int32  // the member of each section
	sets   []int32  // rf members for each section
	rf     int
}

// newKetama makes a ring of endpoints. members holds the index of each endpoint in Placement.Members. There are at
// least rf endpoints.
func newKetama(members []int32, endpoints []endpoint, rf int) *ketama {
	type section struct {
		hash  uint64
		which int // index in members
	}
	sections := make([]section, 0, len(members)*sectionsPerEndpoint)
	var name []byte
	for i, e := range endpoints {
		for n := 1; n <= sectionsPerEndpoint; n++ {
			name = strconv.AppendInt(append(append(name[:0], e.Address...), ':'), int64(n), 10)
			sections = append(sections, section{xxhash.Sum64(name), i})
		}
	}
	slices.SortFunc(sections, func(a, b section) int {
		if a.hash != b.hash {
			if a.hash < b.hash {
				return -1
			}
			return 1
		}
		return a.which - b.which
	})
	k := &ketama{rf: rf, hashes: make([]uint64, len(sections)), owners: make([]int32, len(sections))}
	order := make([]int, len(sections))
	for i, s := range sections {
		k.hashes[i], k.owners[i], order[i] = s.hash, members[s.which], s.which
	}
	k.sets = make([]int32, 0, len(sections)*rf)
	zoneSpread := newZoneSpread(endpoints)
	for i := range sections {
		k.sets = zoneSpread.walk(k.sets, order[i:], order[:i], members, rf)
	}
	return k
}

// replicas appends the members for hash: those of the first section that ends at hash or after it.
func (k *ketama) replicas(dst []int32, hash uint64) []int32 {
	i, _ := slices.BinarySearch(k.hashes, hash)
	if i == len(k.hashes) {
		i = 0
	}
	return append(dst, k.sets[i*k.rf:(i+1)*k.rf]...)
}

// zoneSpread chooses the replicas of a section so that zones are used evenly. Its slices are used again for each
// section.
type zoneSpread struct {
	zone []int // of each endpoint
	size []int // endpoints of each zone
	used []int // replicas in each zone
	took []bool
}

func newZoneSpread(endpoints []endpoint) *zoneSpread {
	s := &zoneSpread{zone: make([]int, len(endpoints)), took: make([]bool, len(endpoints))}
	numbers := map[string]int{}
	for i, e := range endpoints {
		z, ok := numbers[e.Zone]
		if !ok {
			z = len(s.size)
			numbers[e.Zone] = z
			s.size = append(s.size, 0)
		}
		s.zone[i] = z
		s.size[z]++
	}
	s.used = make([]int, len(s.size))
	return s
}

// walk appends rf members to dst. It goes round the circle (the sections of first, then those of second) until it has
// them, and takes each new endpoint whose zone has no more replicas than the least used zone. A zone without
// endpoints left does not count as the least used: Thanos counts it, and never returns for such a ring.
func (s *zoneSpread) walk(dst []int32, first, second []int, members []int32, rf int) []int32 {
	clear(s.used)
	clear(s.took)
	for want := len(dst) + rf; ; {
		for _, part := range [2][]int{first, second} {
			for _, e := range part {
				if z := s.zone[e]; s.took[e] || s.used[z] > s.least() {
					continue
				}
				s.took[e] = true
				s.used[s.zone[e]]++
				if dst = append(dst, members[e]); len(dst) == want {
					return dst
				}
			}
		}
	}
}

// least is the number of replicas in the least used zone that has an endpoint left.
func (s *zoneSpread) least() int {
	least := math.MaxInt
	for z, n := range s.used {
		if n < s.size[z] {
			least = min(least, n)
		}
	}
	return least
}
