package expr

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// Steps is how many steps the subqueries of a query have together, at most; a subquery without a step of its own has step.
// The engine allocates 16 bytes for each before it evaluates anything, and counts them nowhere, so that a few bytes of text
// ("m[10y:1ms]") ask for terabytes.
func Steps(s parser.Statement, step time.Duration) int64 {
	stmt, ok := s.(*parser.EvalStmt)
	if !ok || stmt.Expr == nil {
		return 0
	}
	return stepsOf(stmt.Expr, stmt.End.Sub(stmt.Start), step)
}

// stepsOf are those below n, which is evaluated over a time of span.
func stepsOf(n parser.Node, span, step time.Duration) (sum int64) {
	if sub, ok := n.(*parser.SubqueryExpr); ok {
		each := sub.Step
		if each <= 0 {
			each = step
		}
		if span += sub.Range; span < 0 { // too long to be said
			span = math.MaxInt64
		}
		sum = int64(span/max(each, time.Millisecond)) + 1
	}
	for child := range parser.ChildrenIter(n) {
		if sum += stepsOf(child, span, step); sum < 0 {
			return math.MaxInt64
		}
	}
	return sum
}
