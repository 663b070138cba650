package tsdb

import (
	"math/bits"
	"math/rand/v2"

	"github.com/prometheus/prometheus/storage"
)

// refSet is the series that a transaction has appended to. Starting over costs nothing (BenchmarkAppend).
type refSet struct {
	slots []uint64 // a reference below, and above it the number of the round that it is of
	round uint64
	shift int // of a product of 64 bits, to an index in slots
}

const (
	refBits  = 40
	maxRound = 1<<(64-refBits) - 1
)

// scatter is odd, and another one in each process: a sender cannot choose series that fall on one place.
var scatter = rand.Uint64() | 1

// reset makes s empty, for up to n references.
func (s *refSet) reset(n int) {
	if 2*n > len(s.slots) || s.round == maxRound {
		size := max(64, len(s.slots))
		for size < 2*n {
			size *= 2
		}
		s.slots, s.shift, s.round = make([]uint64, size), bits.LeadingZeros64(uint64(size))+1, 0
	}
	s.round++
}

// add adds ref and reports whether s had it already.
func (s *refSet) add(ref storage.SeriesRef) bool {
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
