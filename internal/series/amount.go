package series

import "github.com/prometheus/prometheus/model/histogram"

// amount is what a counter has counted: a number, or a histogram where h is set. Amounts are not changed once made.
type amount struct {
	v float64
	h *histogram.FloatHistogram
}

// alike reports whether a and b are both numbers or both histograms.
func (a amount) alike(b amount) bool { return (a.h == nil) == (b.h == nil) }

// below reports whether a counter that stood at b and now stands at a was reset.
func (a amount) below(b amount) bool {
	switch {
	case !a.alike(b):
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

// plus is a and b together; a alone where they cannot be added, as histograms of other custom buckets.
func (a amount) plus(b amount) amount { return a.add(b, 1) }

// minus is what a is more than b; a where they have nothing in common.
func (a amount) minus(b amount) amount { return a.add(b, -1) }

// less is a minus b, and nothing where that would be less than nothing.
func (a amount) less(b amount) amount {
	if a.below(b) {
		return a.minus(a)
	}
	return a.minus(b)
}

func (a amount) add(b amount, sign float64) amount {
	switch {
	case !a.alike(b):
		return a
	case a.h == nil:
		return amount{v: a.v + sign*b.v}
	}
	sum, other := a.h.Copy(), b.h
	if sign < 0 {
		other = other.Copy().Mul(-1)
	}
	if _, _, _, err := sum.Add(other); err != nil {
		return a
	}
	sum.CounterResetHint = histogram.UnknownCounterReset
	return amount{h: sum}
}

// times is a part of a.
func (a amount) times(part float64) amount {
	if a.h == nil {
		return amount{v: a.v * part}
	}
	return amount{h: a.h.Copy().Mul(part)}
}

// size is one number that is larger the more was counted.
func (a amount) size() float64 {
	if a.h == nil {
		return a.v
	}
	return a.h.Count
}
