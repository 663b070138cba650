package ring

import (
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Owners picks the n members that own a key. It returns their indexes into members, the first owner first. It divides
// work and data other than series: blocks among store gateways, jobs among compactors, groups of rules among rulers.
// If there are n members or fewer, it returns all of them. The caller passes the members that may own something.
// Their ids must be distinct. Only ids and zones matter; the order of members does not.
//
// Every member has a score for the key. The member with the k-th highest score in its zone has rank k. Owners
// are taken by rank; of equal ranks the higher score comes first. So no zone is used twice before every zone is used
// once. Each of N members is the first owner of about 1/N of all keys. A member that joins takes its part evenly from
// the others, and no other key changes its first owner. A member that leaves gives its part to the others in the same
// way.
//
// The result must be the same on every process and in every version, or two members would own one key:
// docs/format/owners.md has the function and vectors.
func Owners(members []Member, key []byte, n int) []int32 {
	n = min(max(n, 0), len(members))
	all, zones := candidates(members, key)
	owners := make([]int32, 0, n)
	for len(owners) < n {
		least := int32(math.MaxInt32) // of the zones with members left, the one with the fewest owners has this many
		for _, z := range zones {
			if z.left > 0 {
				least = min(least, z.owners)
			}
		}
		best := -1
		for i := range all {
			if c := &all[i]; !c.owner && zones[c.zone].owners == least && (best < 0 || c.before(&all[best])) {
				best = i
			}
		}
		c := &all[best]
		c.owner = true
		zones[c.zone].owners++
		zones[c.zone].left--
		owners = append(owners, int32(best))
	}
	return owners
}

// score orders the members for a key: XXH64 (seed 0) of the key, the byte 0xff and the member's id. The higher score
// comes first.
func score(key []byte, member string) uint64 {
	var buf [128]byte
	return xxhash.Sum64(append(append(append(buf[:0], key...), 0xff), member...))
}

// candidate is a member while owners are chosen.
type candidate struct {
	score uint64
	id    string
	zone  int32
	owner bool
}

// before reports whether c is chosen before other if both may be chosen. If two scores are equal, which hardly
// happens, the id decides, so that the order of members has no effect.
func (c *candidate) before(other *candidate) bool {
	return c.score > other.score || c.score == other.score && c.id < other.id
}

// zoneCount counts the members of a zone while owners are chosen.
type zoneCount struct {
	name         string
	owners, left int32
}

// candidates returns members with their scores, in the order of members, and their zones.
func candidates(members []Member, key []byte) (all []candidate, zones []zoneCount) {
	all, zones = make([]candidate, len(members)), make([]zoneCount, 0, 4)
	for i, m := range members {
		z := slices.IndexFunc(zones, func(z zoneCount) bool { return z.name == m.Zone })
		if z < 0 {
			z = len(zones)
			zones = append(zones, zoneCount{name: m.Zone})
		}
		zones[z].left++
		all[i] = candidate{score: score(key, m.ID), id: m.ID, zone: int32(z)}
	}
	return all, zones
}
