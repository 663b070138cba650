package series

import (
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/xor"
)

// Check reports a chunk that must not be given to the decoders of Prometheus: one that is shorter than a header, or of
// histograms and claims more buckets than it can hold. They make memory for all buckets before they read the first, so
// a chunk of 30 bytes could ask for 100 GB, and end the process. Each bucket takes a bit of the first sample at least.
// Errors have the kind Internal.
func (e Encoded) Check() error {
	if len(e.Data) < minChunkBytes {
		return errs.E(errs.Internal, "chunk of %d bytes", len(e.Data))
	}
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
