package series

import "github.com/prometheus/prometheus/model/histogram"

// counterValue is the value of a counter: the number v, or the histogram h when h is set. No method changes a value;
// iterators share them.
type counterValue struct {
	v float64
	h *histogram.FloatHistogram
}

// sameKind reports whether a and b are both numbers or both histograms.
func (a counterValue) sameKind(b counterValue) bool { return (a.h == nil) == (b.h == nil) }

// below reports whether a counter that had the value b and now has a was reset.
func (a counterValue) below(b counterValue) bool {
	switch {
	case !a.sameKind(b):
		return true
	case a.h == nil:
		return a.v < b.v
	}
	now := a.h
	if now.Schema > b.h.Schema && !now.UsesCustomBuckets() && !b.h.UsesCustomBuckets() {
		reduced, err := now.CopyToSchema(b.h.Schema) // finer buckets alone are no reset
		if err != nil {
			return true
		}
		now = reduced
	}
	return now.DetectReset(b.h)
}

// plus is the sum of a and b. It is a alone where they cannot be added, such as histograms with other custom buckets.
func (a counterValue) plus(b counterValue) counterValue { return a.add(b, 1) }

// minus is the difference of a and b. It is a alone where b cannot be subtracted.
func (a counterValue) minus(b counterValue) counterValue { return a.add(b, -1) }

// minusOrZero is a minus b, or zero where a is below b.
func (a counterValue) minusOrZero(b counterValue) counterValue {
	if a.below(b) {
		return a.minus(a)
	}
	return a.minus(b)
}

func (a counterValue) add(b counterValue, sign float64) counterValue {
	switch {
	case !a.sameKind(b):
		return a
	case a.h == nil:
		return counterValue{v: a.v + sign*b.v}
	}
	sum, other := a.h.Copy(), b.h
	if sign < 0 {
		other = other.Copy().Mul(-1)
	}
	if _, _, _, err := sum.Add(other); err != nil {
		return a
	}
	sum.CounterResetHint = histogram.UnknownCounterReset
	return counterValue{h: sum}
}

// times is a multiplied by factor.
func (a counterValue) times(factor float64) counterValue {
	if a.h == nil {
		return counterValue{v: a.v * factor}
	}
	return counterValue{h: a.h.Copy().Mul(factor)}
}

// size is a number to compare values by: of a histogram, how many observations it has.
func (a counterValue) size() float64 {
	if a.h == nil {
		return a.v
	}
	return a.h.Count
}
