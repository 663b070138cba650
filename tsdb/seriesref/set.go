package seriesref

import (
	"math/bits"
	"math/rand/v2"

	"github.com/prometheus/prometheus/storage"
)

// Set is the series that a transaction has appended to. Reset costs nothing, as it only begins a new round
// (BenchmarkAppend).
type Set struct {
	slots []uint64 // a reference in the lower bits, and in the upper ones the round in which it was added
	round uint64
	shift int // from a product of 64 bits to an index in slots
}

const (
	refBits  = 40
	maxRound = 1<<(64-refBits) - 1
)

// scatter is odd, and differs from process to process: a sender cannot choose series that all fall on one slot.
var scatter = rand.Uint64() | 1

// Reset makes s empty, for up to n references.
func (s *Set) Reset(n int) {
	if 2*n > len(s.slots) || s.round == maxRound {
		size := max(64, len(s.slots))
		for size < 2*n {
			size *= 2
		}
		s.slots, s.shift, s.round = make([]uint64, size), bits.LeadingZeros64(uint64(size))+1, 0
	}
	s.round++
}

// Add adds ref and reports whether s had it already.
func (s *Set) Add(ref storage.SeriesRef) bool {
	want := s.round<<refBits | uint64(ref)&(1<<refBits-1)
	for i := uint64(ref) * scatter >> s.shift; ; i = (i + 1) & uint64(len(s.slots)-1) {
		switch at := s.slots[i]; {
		case at == want:
			return true
		case at>>refBits != s.round:
			s.slots[i] = want
			return false
		}
	}
}
