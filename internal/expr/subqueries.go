package expr

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Work bounds the work of the subqueries of a query. It does not depend on the stored data.
type Work struct {
	// Steps is the number of steps of all subqueries. The engine allocates 16 bytes for each step before it evaluates
	// anything, and no limit counts them. So a few bytes of text ("m[10y:1ms]") can need terabytes.
	Steps int64
	// Visits is the number of samples of one series that the functions over subqueries read: the steps of a window, times
	// the number of windows. The engine checks the context only once for each series, however long that takes.
	Visits int64
}

// WorkOf returns the work of s. step is the step of a subquery that has none of its own.
func WorkOf(s parser.Statement, step time.Duration) Work {
	stmt, ok := s.(*parser.EvalStmt)
	if !ok || stmt.Expr == nil {
		return Work{}
	}
	// the engine counts in the same way
	length := stmt.End.UnixNano()/int64(time.Millisecond) - stmt.Start.UnixNano()/int64(time.Millisecond)
	return workOf(stmt.Expr, max(0, length), millis(stmt.Interval), millis(step))
}

// workOf returns the work of n and below. n is evaluated every interval over a range of length; all times are in ms.
func workOf(n parser.Node, length, interval, step int64) (sum Work) {
	switch n := n.(type) {
	case *parser.StepInvariantExpr:
		length = 0 // it is evaluated once
	case *parser.SubqueryExpr:
		each := step
		if n.Step > 0 {
			each = millis(n.Step)
		}
		window := n.Range.Milliseconds()
		sum.Visits = times(length/interval+1, window/each+1)
		length, interval = length+window, each
		sum.Steps = length/each + 1
	}
	for child := range parser.ChildrenIter(n) {
		below := workOf(child, length, interval, step)
		sum = Work{plus(sum.Steps, below.Steps), plus(sum.Visits, below.Visits)}
	}
	return sum
}

// millis is d in ms, at least 1.
func millis(d time.Duration) int64 { return max(1, d.Milliseconds()) }

// plus is the sum of a and b, or the largest number instead of an overflow.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// times is the product of a and b, or the largest number instead of an overflow.
func times(a, b int64) int64 {
	if a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return a * b
}

// CheckSteps refuses steps below 1ms. The engine counts in ms, so it would divide by 0. The error has the kind Invalid.
func CheckSteps(s parser.Statement) error {
	stmt, ok := s.(*parser.EvalStmt)
	if !ok || stmt.Expr == nil {
		return nil
	}
	faulty := stmt.Interval
	parser.Inspect(stmt.Expr, func(n parser.Node, _ []parser.Node) error {
		if sub, ok := n.(*parser.SubqueryExpr); ok && tooShort(sub.Step) {
			faulty = sub.Step
		}
		return nil
	})
	if tooShort(faulty) {
		return errs.E(errs.Invalid, "step %s: must be 1ms or more", faulty)
	}
	return nil
}

// tooShort is false for 0, which means that no step is given.
func tooShort(step time.Duration) bool { return step > 0 && step < time.Millisecond }
