package wire

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/model/histogram"
)

// minHistogram is the fewest bytes of a histogram in a frame: ten numbers, the kind, the hint and two floats.
const minHistogram = 28

// Kinds of histogram in a frame.
const (
	histogramInt   = 0
	histogramFloat = 1
)

func appendHistogram(dst []byte, h *Histogram) []byte {
	if h.H != nil {
		i := h.H
		dst = append(dst, histogramInt, byte(i.CounterResetHint))
		dst = binary.AppendVarint(dst, h.T-h.ST)
		dst = appendHead(dst, i.Schema, i.ZeroThreshold, i.Sum)
		dst = binary.AppendUvarint(dst, i.Count)
		dst = binary.AppendUvarint(dst, i.ZeroCount)
		dst = appendSpans(dst, i.PositiveSpans)
		dst = appendInts(dst, i.PositiveBuckets)
		dst = appendSpans(dst, i.NegativeSpans)
		dst = appendInts(dst, i.NegativeBuckets)
		return appendFloats(dst, i.CustomValues)
	}
	f := h.FH
	dst = append(dst, histogramFloat, byte(f.CounterResetHint))
	dst = binary.AppendVarint(dst, h.T-h.ST)
	dst = appendHead(dst, f.Schema, f.ZeroThreshold, f.Sum)
	dst = appendDouble(dst, f.Count)
	dst = appendDouble(dst, f.ZeroCount)
	dst = appendSpans(dst, f.PositiveSpans)
	dst = appendFloats(dst, f.PositiveBuckets)
	dst = appendSpans(dst, f.NegativeSpans)
	dst = appendFloats(dst, f.NegativeBuckets)
	return appendFloats(dst, f.CustomValues)
}

func appendHead(dst []byte, schema int32, zeroThreshold, sum float64) []byte {
	dst = binary.AppendVarint(dst, int64(schema))
	dst = appendDouble(dst, zeroThreshold)
	return appendDouble(dst, sum)
}

func appendSpans(dst []byte, spans []histogram.Span) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(spans)))
	for _, s := range spans {
		dst = binary.AppendVarint(dst, int64(s.Offset))
		dst = binary.AppendUvarint(dst, uint64(s.Length))
	}
	return dst
}

func appendInts(dst []byte, vs []int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(vs)))
	for _, v := range vs {
		dst = binary.AppendVarint(dst, v)
	}
	return dst
}

func appendFloats(dst []byte, vs []float64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(vs)))
	for _, v := range vs {
		dst = appendDouble(dst, v)
	}
	return dst
}

// readHistogram reads what appendHistogram wrote, into memory of its own.
func readHistogram(r *reader, t int64) Histogram {
	kind, hint := r.byte(), histogram.CounterResetHint(r.byte())
	out := Histogram{T: t, ST: t - r.varint()}
	schema, zeroThreshold, sum := r.int32(), r.double(), r.double()
	switch kind {
	case histogramInt:
		out.H = &histogram.Histogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: zeroThreshold, Sum: sum,
			Count: r.uvarint(), ZeroCount: r.uvarint(),
			PositiveSpans: readSpans(r), PositiveBuckets: readInts(r),
			NegativeSpans: readSpans(r), NegativeBuckets: readInts(r),
			CustomValues: readFloats(r),
		}
	case histogramFloat:
		out.FH = &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: zeroThreshold, Sum: sum,
			Count: r.double(), ZeroCount: r.double(),
			PositiveSpans: readSpans(r), PositiveBuckets: readFloats(r),
			NegativeSpans: readSpans(r), NegativeBuckets: readFloats(r),
			CustomValues: readFloats(r),
		}
	default:
		r.failed = true
	}
	return out
}

// int32 reads a signed number of 32 bits.
func (r *reader) int32() int32 {
	v := r.varint()
	if v != int64(int32(v)) {
		r.failed = true
	}
	return int32(v)
}

func readSpans(r *reader) []histogram.Span {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	spans := make([]histogram.Span, n)
	for i := range spans {
		offset, length := r.int32(), r.uvarint()
		if length > 1<<32-1 {
			r.failed = true
		}
		spans[i] = histogram.Span{Offset: offset, Length: uint32(length)}
	}
	return spans
}

func readInts(r *reader) []int64 {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	vs := make([]int64, n)
	for i := range vs {
		vs[i] = r.varint()
	}
	return vs
}

func readFloats(r *reader) []float64 {
	n := r.count(8)
	if n == 0 {
		return nil
	}
	vs := make([]float64, n)
	for i := range vs {
		vs[i] = r.double()
	}
	return vs
}
