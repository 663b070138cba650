package plan

import (
	"math"

	"github.com/hearth-metrics/hearth/block"
)

// fill is up to which share of its limit an index is filled, by what is known beforehand.
const fill = 0.85

// parts is into how many parts all series are split in an output of blocks, which have those of part.
//
// An index has at most what the indexes of all inputs have together. How many series an output has is not known
// beforehand: at least as many as the largest input, at most as many as all of them. A quarter of what the others
// have counts as new, so that the guess is wrong by a factor of 4 at most, and by 2.5 for the seven blocks of the
// last range; the next larger range guesses from the real number.
func (p *planner) parts(in []*block.Meta, part block.Part) int {
	var index, most, all float64
	of := part.Of
	for _, m := range in {
		of = max(of, m.Part().Of)
		index += float64(m.SizeOf(block.IndexName))
		most, all = max(most, float64(m.Stats.NumSeries)), all+float64(m.Stats.NumSeries)
	}
	if shares := shareSize(in, part); shares > 1 { // parts of one output have different series
		most *= shares
	}
	n := 1.0
	if p.MaxIndexSize > 0 {
		n = max(n, index/(fill*float64(p.MaxIndexSize)))
	}
	if p.MaxSeries > 0 {
		n = max(n, (most+max(all-most, 0)/4)/float64(p.MaxSeries))
	}
	for want := n * float64(part.Of); float64(of) < min(want, math.MaxInt32) && of < block.MaxParts; {
		of *= 2
	}
	return of
}

// shareSize is how many of the smallest parts among blocks make up part.
func shareSize(in []*block.Meta, part block.Part) float64 {
	of := part.Of
	for _, m := range in {
		of = max(of, m.Part().Of)
	}
	return float64(of / part.Of)
}
