package store

import "github.com/prometheus/prometheus/tsdb/index"

const (
	// readGap is how many unwanted bytes are read rather than making another range read: about what a request costs, in
	// time and CPU (design 004).
	readGap = 128 << 10
	// maxRange bounds one read of adjacent postings, series or chunks, in bytes.
	maxRange = 8 << 20
	// seriesGuess and chunkGuess are what is read for a series entry or a chunk, in bytes, until more is known of their
	// sizes.
	seriesGuess = 2 << 10
	chunkGuess  = 4 << 10
	// blockReads is how many ranges of one block a request reads at once.
	blockReads = 16
)

// run is one range read. It has the parts [first, last) of a list.
type run struct {
	index.Range
	first, last int
}

func (r run) size() int64 { return r.End - r.Start }

// runs joins n parts of an object, which are in order, into few reads. Gaps of up to readGap are read, too. A read has
// at most maxRange bytes, unless a single part has more.
func runs(n int, part func(i int) index.Range) (out []run) {
	for i := range n {
		p := part(i)
		if k := len(out) - 1; k >= 0 && p.Start-out[k].End <= readGap && p.End-out[k].Start <= maxRange {
			out[k].End, out[k].last = max(out[k].End, p.End), i+1
			continue
		}
		out = append(out, run{p, i, i + 1})
	}
	return out
}
