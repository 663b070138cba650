package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// vector reads a result. A scalar becomes a sample without labels.
func vector(typ string, result json.RawMessage) (promql.Vector, error) {
	switch typ {
	case "scalar":
		var s point
		if err := json.Unmarshal(result, &s); err != nil {
			return nil, errs.E(errs.Unavailable, "scalar: %w", err)
		}
		return promql.Vector{{T: s.t, F: s.v}}, nil
	case "vector":
		var items []struct {
			Metric    labels.Labels   `json:"metric"`
			Value     *point          `json:"value"`
			Histogram *histogramPoint `json:"histogram"`
		}
		if err := json.Unmarshal(result, &items); err != nil {
			return nil, errs.E(errs.Unavailable, "vector: %w", err)
		}
		out := make(promql.Vector, len(items))
		for i, it := range items {
			switch {
			case it.Value != nil:
				out[i] = promql.Sample{Metric: it.Metric, T: it.Value.t, F: it.Value.v}
			case it.Histogram != nil:
				out[i] = promql.Sample{Metric: it.Metric, T: it.Histogram.t, H: it.Histogram.h}
			default:
				return nil, errs.E(errs.Unavailable, "vector: %s has no value", it.Metric)
			}
		}
		return out, nil
	}
	return nil, errs.E(errs.Invalid, "rule result is not a vector or scalar")
}

// point is [seconds, "value"].
type point struct {
	t int64 // ms
	v float64
}

// UnmarshalJSON reads a point.
func (p *point) UnmarshalJSON(b []byte) error {
	var at float64
	var text string
	if err := pair(b, &at, &text); err != nil {
		return err
	}
	v, err := strconv.ParseFloat(text, 64)
	p.t, p.v = int64(math.Round(at*1000)), v
	return err
}

func pair(b []byte, first, second any) error {
	var both []json.RawMessage
	if err := json.Unmarshal(b, &both); err != nil {
		return err
	}
	if len(both) != 2 {
		return fmt.Errorf("a list of 2 is expected, and there are %d", len(both))
	}
	return errors.Join(json.Unmarshal(both[0], first), json.Unmarshal(both[1], second))
}

// histogramPoint is [seconds, histogram].
type histogramPoint struct {
	t int64
	h *histogram.FloatHistogram
}

// UnmarshalJSON reads a histogram. Its buckets are named by their bounds, from which the schema is found again.
func (p *histogramPoint) UnmarshalJSON(b []byte) error {
	var at float64
	var form struct {
		Count   float64 `json:"count,string"`
		Sum     float64 `json:"sum,string"`
		Buckets []bucket
	}
	if err := pair(b, &at, &form); err != nil {
		return err
	}
	p.t = int64(math.Round(at * 1000))
	p.h = &histogram.FloatHistogram{Count: form.Count, Sum: form.Sum, CounterResetHint: histogram.GaugeType}
	return fill(p.h, form.Buckets)
}

// The bounds of a bucket that belong to it.
const (
	openLeft   = 0 // (lower, upper]: positive buckets
	openRight  = 1 // [lower, upper): negative buckets
	closedBoth = 3 // the zero bucket
)

// bucket is [bounds, "lower", "upper", "count"].
type bucket struct {
	bounds              int
	lower, upper, count float64
}

// UnmarshalJSON reads a bucket.
func (b *bucket) UnmarshalJSON(raw []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		return err
	}
	if len(parts) != 4 {
		return fmt.Errorf("a bucket has 4 parts, and there are %d", len(parts))
	}
	if err := json.Unmarshal(parts[0], &b.bounds); err != nil {
		return err
	}
	for i, to := range []*float64{&b.lower, &b.upper, &b.count} {
		var text string
		if err := json.Unmarshal(parts[i+1], &text); err != nil {
			return err
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return err
		}
		*to = v
	}
	return nil
}

// errBuckets: buckets with bounds of their own have no schema to find, and empty ones are not in the answer.
var errBuckets = errors.New("the buckets of a native histogram have bounds of their own: they cannot be read over " +
	"HTTP; record a quantile or a sum of it")

// at is a bucket by its index.
type at struct {
	index int32
	count float64
}

// fill gives h the buckets. One that the zero bucket covers in part begins where that one ends, so its index follows
// from its upper bound and from the schema of the others.
func fill(h *histogram.FloatHistogram, buckets []bucket) error {
	for _, b := range buckets {
		if b.bounds == closedBoth {
			h.ZeroThreshold, h.ZeroCount = max(math.Abs(b.lower), math.Abs(b.upper)), b.count
		}
	}
	known := false
	var positive, negative []at
	for _, clipped := range []bool{false, true} {
		for _, b := range buckets {
			lower, upper, side := b.lower, b.upper, &positive
			if b.bounds == openRight {
				lower, upper, side = -b.upper, -b.lower, &negative
			}
			switch {
			case b.bounds == closedBoth:
				continue
			case b.bounds != openLeft && b.bounds != openRight:
				return errBuckets
			case clipped != (h.ZeroCount > 0 && lower == h.ZeroThreshold):
				continue
			}
			schema, index, ok := place(lower, upper)
			if clipped && known {
				schema, ok = h.Schema, true
				index = int32(math.Round(math.Log2(upper) * math.Exp2(float64(schema))))
			}
			if !ok || known && schema != h.Schema {
				return errBuckets
			}
			h.Schema, known = schema, true
			*side = append(*side, at{index, b.count})
		}
	}
	spans := func(list []at) (spans []histogram.Span, counts []float64) {
		slices.SortFunc(list, func(a, b at) int { return int(a.index) - int(b.index) })
		next := int32(0)
		for i, b := range list {
			if i == 0 || b.index != next {
				spans = append(spans, histogram.Span{Offset: b.index - next})
			}
			spans[len(spans)-1].Length++
			counts, next = append(counts, b.count), b.index+1
		}
		return spans, counts
	}
	h.PositiveSpans, h.PositiveBuckets = spans(positive)
	h.NegativeSpans, h.NegativeBuckets = spans(negative)
	return h.Validate()
}

// place finds the schema and index of the bucket (lower, upper] of a histogram with exponential buckets.
func place(lower, upper float64) (schema, index int32, ok bool) {
	if !(lower > 0) || !(upper > lower) {
		return 0, 0, false
	}
	width := math.Log2(upper) - math.Log2(lower) // 2^-schema
	if math.IsInf(upper, 1) {
		return 0, 0, false
	}
	schema = int32(math.Round(-math.Log2(width)))
	if schema < histogram.ExponentialSchemaMin || schema > histogram.ExponentialSchemaMax {
		return 0, 0, false
	}
	at := math.Log2(upper)
	index = int32(math.Round(at * math.Exp2(float64(schema))))
	near := math.Abs(at-float64(index)*math.Exp2(-float64(schema))) < 1e-9*max(1, math.Abs(at))
	return schema, index, near && math.Abs(width*math.Exp2(float64(schema))-1) < 1e-6
}
