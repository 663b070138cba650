package expr

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// Reach says which samples an expression reads for a step at time t: those from t-Back to t+Ahead, without the
// look-back, and those from FixedMin to FixedMax whatever t is. All are in ms. Ahead is negative where all of them
// are older. Back and Ahead are math.MinInt64 if no selector depends on t, and FixedMax is if all of them do.
type Reach struct {
	Back, Ahead        int64
	FixedMin, FixedMax int64
}

// Nothing is the reach of an expression that reads no samples.
var Nothing = Reach{math.MinInt64, math.MinInt64, math.MaxInt64, math.MinInt64}

// ReachOf finds the reach of an expression. ok is false for one whose value depends on more than samples and the time
// of a step: on when the whole query begins and ends.
func ReachOf(e parser.Expr) (r Reach, ok bool) {
	w := &reachWalk{reach: Nothing}
	w.visit(e, moment{})
	return w.reach, !w.whole
}

// moment is when an expression is evaluated: at the time of a step less back, or at fixed.
type moment struct {
	back  int64
	fixed *int64
	width int64 // of the subqueries around it: it is evaluated that long before, too
}

// shifted is the moment for something with an offset and a time of its own.
func (a moment) shifted(offset int64, ts *int64) moment {
	switch {
	case ts != nil:
		fixed := *ts - offset
		a.fixed = &fixed
	case a.fixed != nil:
		fixed := *a.fixed - offset
		a.fixed = &fixed
	default:
		a.back += offset
	}
	return a
}

// reachWalk collects the reach of an expression.
type reachWalk struct {
	reach Reach
	whole bool // the value depends on the whole query
}

func (w *reachWalk) visit(n parser.Node, a moment) {
	switch e := n.(type) {
	case *parser.Call:
		if e.Func != nil && slices.Contains([]string{"start", "end", "range", "step", "info"}, e.Func.Name) {
			w.whole = true
		}
	case *parser.SubqueryExpr:
		w.whole = w.whole || e.StartOrEnd != 0
		b := a.shifted(e.OriginalOffset.Milliseconds(), e.Timestamp)
		if e.Timestamp != nil {
			b.width = 0
		}
		b.width += e.Range.Milliseconds()
		w.visit(e.Expr, b)
		return
	case *parser.MatrixSelector:
		if v, ok := e.VectorSelector.(*parser.VectorSelector); ok {
			w.read(v, a, e.Range.Milliseconds())
		}
		return
	case *parser.VectorSelector:
		w.read(e, a, 0)
		return
	}
	for child := range parser.ChildrenIter(n) {
		w.visit(child, a)
	}
}

// read adds what a selector reads.
func (w *reachWalk) read(v *parser.VectorSelector, a moment, width int64) {
	if v.Timestamp != nil {
		a.width = 0
	}
	w.whole = w.whole || v.StartOrEnd != 0 || v.Smoothed || v.Anchored // which read beyond their range
	a = a.shifted(v.OriginalOffset.Milliseconds(), v.Timestamp)
	width += a.width
	if a.fixed != nil {
		w.reach.FixedMin, w.reach.FixedMax = min(w.reach.FixedMin, *a.fixed-width), max(w.reach.FixedMax, *a.fixed)
		return
	}
	w.reach.Back, w.reach.Ahead = max(w.reach.Back, a.back+width), max(w.reach.Ahead, -a.back)
}
