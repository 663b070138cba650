package frontend

import (
	"math"

	"github.com/hearth-metrics/hearth/internal/expr"
)

// piece is a part of a request: the steps from one time to another, both included, in ms.
type piece struct{ from, to int64 }

// steps is how many steps a piece has.
func (p piece) steps(step int64) int { return int((p.to-p.from)/step) + 1 }

// cut divides the steps of a request at the multiples of interval, in ms; 0 = it is one piece. The pieces together
// have each step once, in order.
func cut(from, to, step, interval int64) (pieces []piece) {
	if interval <= 0 {
		return []piece{{from, to}}
	}
	for from <= to {
		border := (from/interval + 1) * interval
		last := min(from+(border-1-from)/step*step, to)
		pieces = append(pieces, piece{from, last})
		from = last + step
	}
	return pieces
}

// and is what two pieces with steps at the same times have both. ok is false if that is nothing.
func (p piece) and(o piece) (both piece, ok bool) {
	both = piece{max(p.from, o.from), min(p.to, o.to)}
	return both, both.from <= both.to
}

// minSteps is how many steps a piece has at least, apart from the first and the last one.
const minSteps = 60

// widened is the smallest multiple of interval, in ms, in which a piece has enough steps to be worth a request of its
// own.
func widened(interval, step int64) int64 {
	if interval <= 0 {
		return 0
	}
	return interval * max(1, (minSteps*step+interval-1)/interval)
}

// without are the parts of p that have is not: none, one before it, one after it. Both have steps at the same times.
func (p piece) without(have piece, step int64) (rest []piece) {
	if _, ok := p.and(have); !ok {
		return []piece{p}
	}
	if p.from < have.from {
		rest = append(rest, piece{p.from, have.from - step})
	}
	if p.to > have.to {
		rest = append(rest, piece{have.to + step, p.to})
	}
	return rest
}

// slack is how far behind the time of a step its samples are looked for beyond what an expression says: the
// look-back, whose length another process decides.
const slack = 24 * 60 * 60 * 1000

// samples are the times in ms between which all samples are that the steps of p read, both included, of an expression
// that reaches r. ok is false if they read none.
func samples(r expr.Reach, p piece) (mint, maxt int64, ok bool) {
	mint, maxt = r.FixedMin, r.FixedMax
	if r.Ahead != math.MinInt64 {
		mint, maxt = min(mint, p.from-r.Back), max(maxt, p.to+r.Ahead)
	}
	return mint - slack, maxt, maxt != math.MinInt64
}

// until is the last step of p that reads no sample after maxt, of an expression that reaches r. ok is false if there
// is none.
func until(r expr.Reach, p piece, step, maxt int64) (last int64, ok bool) {
	if r.FixedMax > maxt {
		return 0, false
	}
	if r.Ahead == math.MinInt64 || p.to+r.Ahead <= maxt {
		return p.to, true
	}
	most := maxt - r.Ahead
	if most < p.from {
		return 0, false
	}
	return most - (most-p.from)%step, true
}
