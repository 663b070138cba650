package wire

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// protoHistogram is a Histogram message as read, in buffers that are used again. Both versions of remote write have the
// same message, except for the start timestamp.
type protoHistogram struct {
	isFloat, zeroIsFloat bool
	count, zeroCount     uint64 // bits of a float if isFloat, zeroIsFloat
	sum, zeroThreshold   float64
	schema               int32
	hint                 histogram.CounterResetHint
	t, st                int64

	negativeSpans, positiveSpans   []histogram.Span
	negativeDeltas, positiveDeltas []int64
	negativeCounts, positiveCounts []float64
	customValues                   []float64
}

func (h *protoHistogram) reset() {
	*h = protoHistogram{
		negativeSpans: reuse(h.negativeSpans), positiveSpans: reuse(h.positiveSpans),
		negativeDeltas: reuse(h.negativeDeltas), positiveDeltas: reuse(h.positiveDeltas),
		negativeCounts: reuse(h.negativeCounts), positiveCounts: reuse(h.positiveCounts),
		customValues: reuse(h.customValues),
	}
}

// histogram reads a Histogram message, m[pos:]. An invalid histogram is counted as lost.
func (b *Batch) histogram(m []byte, pos int, v2 bool) int {
	h := &b.hist
	h.reset()
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		if pos = h.field(m, next, num, typ, v2); pos < 0 {
			return pos
		}
	}
	if !b.charge(histogramSize) {
		return faultExpand
	}
	out, err := h.build()
	if err != nil {
		b.lost.Histograms++
		if b.lost.Reason == "" {
			b.lost.Reason = "histogram: " + err.Error()
		}
		return pos
	}
	if !b.charge(out.memory()) {
		return faultExpand
	}
	b.histograms = append(b.histograms, out)
	b.starts = b.starts || out.ST != 0
	return pos
}

// memory is about how many bytes the lists of h take.
func (h *Histogram) memory() int {
	if i := h.H; i != nil {
		return 8 * (len(i.PositiveBuckets) + len(i.NegativeBuckets) + len(i.PositiveSpans) + len(i.NegativeSpans) +
			len(i.CustomValues))
	}
	f := h.FH
	return 8 * (len(f.PositiveBuckets) + len(f.NegativeBuckets) + len(f.PositiveSpans) + len(f.NegativeSpans) +
		len(f.CustomValues))
}

func (h *protoHistogram) field(m []byte, pos int, num int32, typ int, v2 bool) int {
	var v uint64
	var f float64
	switch num {
	case 1:
		h.count, pos = number(m, pos, typ)
		h.isFloat = false
	case 2:
		f, pos = double(m, pos, typ)
		h.count, h.isFloat = math.Float64bits(f), true
	case 3:
		h.sum, pos = double(m, pos, typ)
	case 4:
		v, pos = number(m, pos, typ)
		h.schema = zigzag32(uint32(v))
	case 5:
		h.zeroThreshold, pos = double(m, pos, typ)
	case 6:
		h.zeroCount, pos = number(m, pos, typ)
		h.zeroIsFloat = false
	case 7:
		f, pos = double(m, pos, typ)
		h.zeroCount, h.zeroIsFloat = math.Float64bits(f), true
	case 14:
		v, pos = number(m, pos, typ)
		h.hint = histogram.CounterResetHint(v)
	case 15:
		v, pos = number(m, pos, typ)
		h.t = int64(v)
	case 17:
		if !v2 {
			return skip(m, pos, typ)
		}
		v, pos = number(m, pos, typ)
		h.st = int64(v)
	default:
		return h.list(m, pos, num, typ)
	}
	return pos
}

// list reads one of the repeated fields.
func (h *protoHistogram) list(m []byte, pos int, num int32, typ int) int {
	switch num {
	case 8:
		h.negativeSpans, pos = appendSpan(h.negativeSpans, m, pos, typ)
	case 9:
		h.negativeDeltas, pos = appendDeltas(h.negativeDeltas, m, pos, typ)
	case 10:
		h.negativeCounts, pos = appendDoubles(h.negativeCounts, m, pos, typ)
	case 11:
		h.positiveSpans, pos = appendSpan(h.positiveSpans, m, pos, typ)
	case 12:
		h.positiveDeltas, pos = appendDeltas(h.positiveDeltas, m, pos, typ)
	case 13:
		h.positiveCounts, pos = appendDoubles(h.positiveCounts, m, pos, typ)
	case 16:
		h.customValues, pos = appendDoubles(h.customValues, m, pos, typ)
	default:
		return skip(m, pos, typ)
	}
	return pos
}

func appendSpan(dst []histogram.Span, m []byte, pos, typ int) ([]histogram.Span, int) {
	pos, end := bytesField(m, pos, typ)
	if pos < 0 {
		return dst, pos
	}
	m = m[:end]
	var s histogram.Span
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return dst, next
		}
		var v uint64
		switch num {
		case 1:
			v, next = number(m, next, typ)
			s.Offset = zigzag32(uint32(v))
		case 2:
			v, next = number(m, next, typ)
			s.Length = uint32(v)
		default:
			next = skip(m, next, typ)
		}
		if pos = next; pos < 0 {
			return dst, pos
		}
	}
	return append(dst, s), pos
}

func appendDeltas(dst []int64, m []byte, pos, typ int) ([]int64, int) {
	var v uint64
	if typ == typeVarint {
		v, pos = uvarint(m, pos)
		return append(dst, zigzag(v)), pos
	}
	pos, end := bytesField(m, pos, typ)
	for pos >= 0 && pos < end {
		v, pos = uvarint(m, pos)
		dst = append(dst, zigzag(v))
	}
	return dst, pos
}

func appendDoubles(dst []float64, m []byte, pos, typ int) ([]float64, int) {
	var f float64
	if typ == typeFixed64 {
		f, pos = double(m, pos, typ)
		return append(dst, f), pos
	}
	pos, end := bytesField(m, pos, typ)
	for pos >= 0 && pos < end {
		f, pos = double(m, pos, typeFixed64)
		dst = append(dst, f)
	}
	return dst, pos
}

// build makes the histogram of what was read, in memory of its own, of a schema that a TSDB can store.
func (h *protoHistogram) build() (Histogram, error) {
	out := Histogram{T: h.t, ST: h.st}
	if h.isFloat {
		fh := &histogram.FloatHistogram{
			CounterResetHint: h.hint, Schema: h.schema, ZeroThreshold: h.zeroThreshold, Sum: h.sum,
			Count:         math.Float64frombits(h.count),
			PositiveSpans: own(h.positiveSpans), PositiveBuckets: own(h.positiveCounts),
			NegativeSpans: own(h.negativeSpans), NegativeBuckets: own(h.negativeCounts),
			CustomValues: own(h.customValues),
		}
		if h.zeroIsFloat {
			fh.ZeroCount = math.Float64frombits(h.zeroCount)
		}
		out.FH = fh
		if tooFine(h.schema) {
			if err := fh.ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
				return out, err
			}
		}
		return out, fh.Validate()
	}
	ih := &histogram.Histogram{
		CounterResetHint: h.hint, Schema: h.schema, ZeroThreshold: h.zeroThreshold, Sum: h.sum,
		Count:         h.count,
		PositiveSpans: own(h.positiveSpans), PositiveBuckets: own(h.positiveDeltas),
		NegativeSpans: own(h.negativeSpans), NegativeBuckets: own(h.negativeDeltas),
		CustomValues: own(h.customValues),
	}
	if !h.zeroIsFloat {
		ih.ZeroCount = h.zeroCount
	}
	out.H = ih
	if tooFine(h.schema) {
		if err := ih.ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
			return out, err
		}
	}
	return out, ih.Validate()
}

// tooFine reports whether schema is legal on the wire but finer than a TSDB stores.
func tooFine(schema int32) bool {
	return histogram.IsExponentialSchemaReserved(schema) && schema > histogram.ExponentialSchemaMax
}

// own copies s out of the reused buffers; nothing stays nil, as histograms are valid or not by that.
func own[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}
