package downsample

import (
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

// layout is the description of the buckets of a histogram chunk, which all of its histograms have.
type layout struct {
	threshold          float64
	schema             int32
	positive, negative []histogram.Span
}

// layoutReader reads the layout of a histogram chunk.
type layoutReader struct{ xor.BitReader }

// read reads and checks the beginning of a histogram chunk that has samples, integer or float. The library allocates as
// many buckets as are described there, and its arithmetic on histograms relies on their order. What is returned is at
// the first sample.
func (l *layout) read(data []byte) (xor.BitReader, error) {
	if len(data) < histogramHeader {
		return xor.BitReader{}, errCut
	}
	r := layoutReader{xor.NewBitReader(data[histogramHeader:])}
	var ok bool
	if l.threshold, ok = r.zeroThreshold(); !ok {
		return r.BitReader, errThreshold
	}
	schema := r.SignedVarbit()
	if schema < math.MinInt32 || schema > math.MaxInt32 || !histogram.IsKnownSchema(int32(schema)) {
		return r.BitReader, errSchema
	}
	l.schema = int32(schema)
	custom := histogram.IsCustomBucketsSchema(l.schema)
	most := uint64(len(data)) * 8 // each bucket takes at least a bit in each sample
	var end int64
	if l.positive, end, ok = r.spans(l.positive[:0], most, custom); !ok {
		return r.BitReader, errSpans
	}
	if l.negative, _, ok = r.spans(l.negative[:0], most, custom); !ok || custom && len(l.negative) != 0 {
		return r.BitReader, errSpans
	}
	if custom {
		if bounds, ok := r.customBounds(); !ok || end > bounds+1 {
			return r.BitReader, errBounds
		}
	}
	if r.Short() {
		return r.BitReader, errCut
	}
	return r.BitReader, nil
}

// zeroThreshold reads the threshold, and reports whether it is a number that a width can be.
func (r *layoutReader) zeroThreshold() (float64, bool) {
	switch exponent := r.Read(8); exponent {
	case 0:
		return 0, true
	case 255:
		v := math.Float64frombits(r.Read(64))
		return v, v >= 0 && !math.IsInf(v, 1)
	default:
		return math.Ldexp(0.5, int(exponent)-243), true
	}
}

// spans reads spans of at most most buckets into dst. It returns the number behind the last bucket, too, and whether
// they are in order. Of custom buckets the first one has a number of 0 or more.
func (r *layoutReader) spans(dst []histogram.Span, most uint64, custom bool) ([]histogram.Span, int64, bool) {
	end := int64(0)
	var buckets uint64
	n := r.Varbit()
	for i := uint64(0); i < n && !r.Short(); i++ {
		length, offset := r.Varbit(), r.SignedVarbit()
		if length > most || offset > maxBucketIndex || offset < -maxBucketIndex || offset < 0 && (i > 0 || custom) {
			return dst, 0, false
		}
		dst = append(dst, histogram.Span{Offset: int32(offset), Length: uint32(length)})
		buckets += length
		end += offset + int64(length)
		if buckets > most || end > maxBucketIndex {
			return dst, 0, false
		}
	}
	return dst, end, true
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
