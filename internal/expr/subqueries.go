package expr

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Work is what the subqueries of a query do at most, whatever is stored.
type Work struct {
	// Steps is how many steps they have together. The engine allocates 16 bytes for each before it evaluates anything, and
	// counts them nowhere, so that a few bytes of text ("m[10y:1ms]") ask for terabytes.
	Steps int64
	// Visits is how many samples of one series the functions over them look at: the steps of each window, for each time
	// that a function is evaluated. The engine looks at the context once for a series, however long that takes.
	Visits int64
}

// WorkOf is the work of s, where a subquery without a step of its own has step.
func WorkOf(s parser.Statement, step time.Duration) Work {
	stmt, ok := s.(*parser.EvalStmt)
	if !ok || stmt.Expr == nil {
		return Work{}
	}
	// as the engine has it
	span := stmt.End.UnixNano()/int64(time.Millisecond) - stmt.Start.UnixNano()/int64(time.Millisecond)
	return workOf(stmt.Expr, max(0, span), millis(stmt.Interval), millis(step))
}

// workOf is that below n, which is evaluated every interval over a time of span, in ms.
func workOf(n parser.Node, span, interval, step int64) (sum Work) {
	switch n := n.(type) {
	case *parser.StepInvariantExpr:
		span = 0 // it is evaluated once
	case *parser.SubqueryExpr:
		each := step
		if n.Step > 0 {
			each = millis(n.Step)
		}
		window := n.Range.Milliseconds()
		sum.Visits = times(span/interval+1, window/each+1)
		span, interval = span+window, each
		sum.Steps = span/each + 1
	}
	for child := range parser.ChildrenIter(n) {
		below := workOf(child, span, interval, step)
		sum = Work{plus(sum.Steps, below.Steps), plus(sum.Visits, below.Visits)}
	}
	return sum
}

// millis is d in ms, at least 1.
func millis(d time.Duration) int64 { return max(1, d.Milliseconds()) }

func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func times(a, b int64) int64 {
	if a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return a * b
}

// CheckSteps refuses steps that the engine, which counts in ms, takes for 0 and divides by. The error is of kind
// Invalid.
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

// tooShort is false for 0, which says that there is no step.
func tooShort(step time.Duration) bool { return step > 0 && step < time.Millisecond }
