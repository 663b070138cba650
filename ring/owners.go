package ring

import (
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Owners picks the n members that own a key, the first owner first: their indexes into members. It is the one answer to
// "who does this?" where work or data other than series is shared out: blocks among gateways, jobs among compactors,
// groups of rules among rulers. It gives all members when they are no more than n. The caller passes the members that may
// own something, whose ids are distinct; only ids and zones matter, and the order of members does not.
//
// Every member has a score for the key (Score). The member with the k-th highest score in its zone has rank k. Owners are
// taken by rank, and of equal ranks those with higher scores first. So each zone is used once while unused zones remain.
// Of N members each is the first owner of about 1/N of all keys; a member that joins takes its part evenly from the
// others, and nothing else moves; a member that leaves gives its part to the others in the same way.
//
// The result is the same on every process and in every version: docs/format/owners.md has the function and vectors.
func Owners(members []Member, key []byte, n int) []int32 {
	n = min(max(n, 0), len(members))
	all, zones := candidates(members, key)
	owners := make([]int32, 0, n)
	for len(owners) < n {
		least := int32(math.MaxInt32) // owners that a zone with members left has
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

// Score is the rank of a member among others for a key: XXH64 (seed 0) of the key, the byte 0xff and the member's id.
func Score(key []byte, member string) uint64 {
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

// before reports whether c is chosen before other where both may be. Scores are equal about never; the id then decides, so
// that the order of members has no effect.
func (c *candidate) before(other *candidate) bool {
	return c.score > other.score || c.score == other.score && c.id < other.id
}

// zoneOf counts the members of a zone while owners are chosen.
type zoneCount struct {
	name         string
	owners, left int32
}

// candidates are members with their scores, in the order of members, and their zones.
func candidates(members []Member, key []byte) (all []candidate, zones []zoneCount) {
	all, zones = make([]candidate, len(members)), make([]zoneCount, 0, 4)
	for i, m := range members {
		z := slices.IndexFunc(zones, func(z zoneCount) bool { return z.name == m.Zone })
		if z < 0 {
			z = len(zones)
			zones = append(zones, zoneCount{name: m.Zone})
		}
		zones[z].left++
		all[i] = candidate{score: Score(key, m.ID), id: m.ID, zone: int32(z)}
	}
	return all, zones
}
