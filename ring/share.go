package ring

import (
	"slices"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// shareProbes is the number of keys that Share looks at. They are spread evenly, so the error is under one percent of
// all keys. The tokens of members make larger differences than that.
const shareProbes = 2048

// Share is the part of tenant id's series, 0 to 1, of which p places a copy on this process. self reports whether a
// member is this process. With n equal members it is about rf/n. It is counted with p itself, so it is right however
// uneven zones are, and a series with two copies on members that are self counts once. It is an estimate from
// shareProbes keys, and takes about a tenth of a millisecond.
func Share(p Placement, id tenant.ID, self func(Member) bool) float64 {
	mine := map[int32]bool{}
	for i, m := range p.Members() {
		if self(m) {
			mine[int32(i)] = true
		}
	}
	if len(mine) == 0 {
		return 0
	}
	const golden = 0x9e3779b97f4a7c15 // its multiples are spread evenly, in their upper bits and modulo any number
	var buf [8]int32
	hits, hash := 0, uint64(0)
	for range shareProbes {
		hash += golden
		for _, r := range p.Replicas(buf[:0], id, hash) {
			if mine[r] {
				hits++
				break
			}
		}
	}
	return float64(hits) / shareProbes
}

// SeriesPart is the part of tenant id's limit on series, above 0 and up to 1, that a process applies to what it
// stores: its Share. A process on which p places nothing cannot know its share. It applies the whole limit, since a
// part that is too small would refuse series that the tenant may have.
func SeriesPart(p Placement, id tenant.ID, self func(Member) bool) float64 {
	if part := Share(p, id, self); part > 0 {
		return part
	}
	return 1
}

// RateDivisor is the number of processes among which a tenant's rate is divided, at least 1. distributors and
// receivers are the members of those roles. If a distributor is active, the distributors take the writes; else the
// active receivers do.
func RateDivisor(distributors, receivers []Status) int {
	for _, role := range [][]Status{distributors, receivers} {
		live := 0
		for _, m := range role {
			if m.State == Active {
				live++
			}
		}
		if live > 0 {
			return live
		}
	}
	return 1
}

// StaticRateDivisor is RateDivisor for a hashring file: all of its members take writes. A process that the file does
// not name cannot know how many others route as it does, so it applies the whole rate.
func StaticRateDivisor(members []Member, self func(Member) bool) int {
	if slices.ContainsFunc(members, self) {
		return len(members)
	}
	return 1
}
