package series

import (
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// checkLayout reports a histogram chunk that claims more buckets than it can hold. e has a header. The decoders of
// Prometheus make memory for all buckets before they read the first, so a chunk of 30 bytes could ask for 100 GB, and
// end the process. Each bucket takes a bit of the first sample at least.
func checkLayout(e Encoded) error {
	switch e.Encoding {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
	default:
		return nil
	}
	r := bitReader{b: e.Data[minChunkBytes:]}
	if r.read(8) == 255 { // the zero threshold does not fit into one byte
		r.read(64)
	}
	r.varbit() // schema
	limit := 8 * uint64(len(e.Data))
	buckets := uint64(0)
	for range 2 { // positive, negative
		for spans := r.varbit(); spans > 0 && !r.ended && buckets <= limit; spans-- {
			buckets += uint64(uint32(r.varbit()))
			r.varbit() // offset
		}
	}
	if buckets > limit {
		return errs.E(errs.Internal, "histogram chunk of %d bytes claims %d buckets", len(e.Data), buckets)
	}
	return nil // the decoder finds it if the layout is cut off
}

// bitReader reads numbers of a chunk. Behind the end there are zeros.
type bitReader struct {
	b     []byte
	at    int // in bits
	ended bool
}

func (r *bitReader) read(n int) (v uint64) {
	for range n {
		bit := byte(0)
		if i := r.at / 8; i < len(r.b) {
			bit = r.b[i] >> (7 - r.at%8) & 1
		} else {
			r.ended = true
		}
		r.at++
		v = v<<1 | uint64(bit)
	}
	return v
}

// varbitSizes are the lengths in bits of numbers, by the number of ones that come before them.
var varbitSizes = [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}

// varbit reads a number of variable length. Of a signed one the value is wrong, and the place of the next one right.
func (r *bitReader) varbit() uint64 {
	ones := 0
	for ones < 8 && r.read(1) == 1 {
		ones++
	}
	return r.read(varbitSizes[ones])
}
