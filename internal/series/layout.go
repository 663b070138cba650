package series

import (
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/xor"
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
	r := xor.NewBitReader(e.Data[minChunkBytes:])
	if r.Read(8) == 255 { // the zero threshold does not fit into one byte
		r.Read(64)
	}
	r.SignedVarbit() // schema
	limit := 8 * uint64(len(e.Data))
	buckets := uint64(0)
	for range 2 { // positive, negative
		for spans := r.Varbit(); spans > 0 && !r.Short() && buckets <= limit; spans-- {
			buckets += uint64(uint32(r.Varbit()))
			r.SignedVarbit() // offset
		}
	}
	if buckets > limit {
		return errs.E(errs.Internal, "histogram chunk of %d bytes claims %d buckets", len(e.Data), buckets)
	}
	return nil // the decoder finds it if the layout is cut off
}
