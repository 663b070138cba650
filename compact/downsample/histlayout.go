package downsample

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/hearth-metrics/hearth/internal/xor"
)

// histogramHeader is the length of the header of a histogram chunk: the number of its samples, and flags.
const histogramHeader = 3

// maxBucketIndex bounds the numbers of buckets. Those of real ones are some thousands.
const maxBucketIndex = 1 << 30

var (
	errCut       = errors.New("the chunk is cut off")
	errSpans     = errors.New("the buckets of the histograms are not described in order")
	errBounds    = errors.New("the bounds of the custom buckets are not in order")
	errThreshold = errors.New("the zero threshold is negative or infinite")
	errSchema    = errors.New("the histograms have an unknown schema")
)

// layoutReader reads the description of the buckets of a histogram chunk.
type layoutReader struct{ xor.BitReader }

// checkLayout checks the beginning of a histogram chunk, integer or float, which describes the buckets that all of its
// histograms have. The library allocates as many buckets as are described there, and its arithmetic on histograms
// relies on their order.
func checkLayout(data []byte) error {
	if len(data) < histogramHeader {
		return errCut
	}
	if binary.BigEndian.Uint16(data) == 0 {
		return nil
	}
	r := layoutReader{xor.NewBitReader(data[histogramHeader:])}
	if !r.zeroThreshold() {
		return errThreshold
	}
	schema := r.SignedVarbit()
	if schema < math.MinInt32 || schema > math.MaxInt32 || !histogram.IsKnownSchema(int32(schema)) {
		return errSchema
	}
	custom := histogram.IsCustomBucketsSchema(int32(schema))
	most := uint64(len(data)) * 8 // each bucket takes at least a bit in each sample
	end, ok := r.spans(most, custom)
	if !ok {
		return errSpans
	}
	if negative, ok := r.spans(most, custom); !ok || custom && negative != 0 {
		return errSpans
	}
	if custom {
		if bounds, ok := r.customBounds(); !ok || end > bounds+1 {
			return errBounds
		}
	}
	if r.Short() {
		return errCut
	}
	return nil
}

// zeroThreshold reads the threshold, and reports whether it is a number that a width can be.
func (r *layoutReader) zeroThreshold() bool {
	if r.Read(8) != 255 {
		return true // 0 or a power of 2
	}
	v := math.Float64frombits(r.Read(64))
	return v >= 0 && !math.IsInf(v, 1)
}

// spans reads spans of at most most buckets. It returns the number behind the last one. Of custom buckets the first
// one has a number of 0 or more.
func (r *layoutReader) spans(most uint64, custom bool) (end int64, ok bool) {
	var buckets uint64
	n := r.Varbit()
	for i := uint64(0); i < n && !r.Short(); i++ {
		length, offset := r.Varbit(), r.SignedVarbit()
		if length > most || offset > maxBucketIndex || offset < -maxBucketIndex || offset < 0 && (i > 0 || custom) {
			return 0, false
		}
		buckets += length
		end += offset + int64(length)
		if buckets > most || end > maxBucketIndex {
			return 0, false
		}
	}
	return end, true
}

// customBounds reads the bounds of custom buckets and returns their number.
func (r *layoutReader) customBounds() (int64, bool) {
	n := r.Varbit()
	last := math.Inf(-1)
	for i := uint64(0); i < n && !r.Short(); i++ {
		var bound float64
		if b := r.Varbit(); b == 0 {
			bound = math.Float64frombits(r.Read(64))
		} else {
			bound = float64(b-1) / 1000
		}
		if r.Short() {
			break
		}
		if !(bound > last) {
			return 0, false
		}
		last = bound
	}
	return int64(min(n, math.MaxInt64-1)), true
}
