package ring

import (
	"slices"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// shareProbes is the number of keys at which Share looks. They are spread evenly, so the error is under one percent of all
// keys, which is well below the differences that the tokens of members make.
const shareProbes = 2048

// Share is the part of tenant id's series, 0 to 1, of which p places a copy on a member that is self: with n equal
// members about rf/n. It is an estimate from shareProbes keys, and takes about a tenth of a millisecond.
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

// SeriesPart is the part of tenant id's limit on series, above 0 and up to 1, that a process keeps for itself: its Share.
// A process that p does not name cannot know its share. It keeps the whole limit, since a part that is too small would
// refuse series that the tenant may have.
func SeriesPart(p Placement, id tenant.ID, self func(Member) bool) float64 {
	if part := Share(p, id, self); part > 0 {
		return part
	}
	return 1
}

// RateDivisor is among how many processes a tenant's rate is divided, at least 1. Gossip knows the distributors and the
// receivers. Where there are live distributors they take the writes; else the live receivers do.
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

// StaticRateDivisor is RateDivisor where a hashring file names the members: all of them take writes. A process that the
// file does not name cannot know how many others route as it does, and takes the whole rate for itself.
func StaticRateDivisor(members []Member, self func(Member) bool) int {
	if slices.ContainsFunc(members, self) {
		return len(members)
	}
	return 1
}
