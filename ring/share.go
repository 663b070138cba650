package ring

import "github.com/hearth-metrics/hearth/internal/tenant"

// shareProbes is on how many keys Share looks. They are even, so the error is well below what the tokens of members differ
// by: under one percent of all keys.
const shareProbes = 2048

// Share is the part of tenant id's series, 0 to 1, of which p places a copy on a member that is self: with n like members
// about rf/n. It looks at as many keys as make a good estimate, in about a tenth of a millisecond.
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
