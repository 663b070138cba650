package expr

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Read is what a selector reads of downsampled data, which has some numbers for each window instead of samples.
type Read uint8

// The reads. ReadAverage, the zero one, stands for the samples where nothing else is better.
const (
	ReadAverage Read = iota
	ReadCount        // how many samples; 1 for a raw one
	ReadSum
	ReadMin
	ReadMax
	ReadCounter // totals that never go back
)

// Selector is what a selector is for.
type Selector struct {
	Read Read
	// Vague is the function of which windows tell too little for a true result, "" for none.
	Vague string
}

// Uses are the selectors of a statement by their first matcher, which the engine hands on as it is.
type Uses map[*labels.Matcher]Selector

// overWindows says what functions of ranges read. Others read averages.
var overWindows = map[string]Selector{
	"rate": {Read: ReadCounter}, "increase": {Read: ReadCounter}, "irate": {Read: ReadCounter},
	"min_over_time": {Read: ReadMin}, "max_over_time": {Read: ReadMax}, "sum_over_time": {Read: ReadSum},
	"present_over_time": {Read: ReadCount}, "absent_over_time": {Read: ReadCount},
	// of those of a window, one shows, as its least value is below that of the window before
	"resets":             {ReadMin, "resets"},
	"changes":            {ReadAverage, "changes"},
	"quantile_over_time": {ReadAverage, "quantile_over_time"},
	"stddev_over_time":   {ReadAverage, "stddev_over_time"}, "stdvar_over_time": {ReadAverage, "stdvar_over_time"},
	"mad_over_time": {ReadAverage, "mad_over_time"},
}

// OfCounter reports whether a function of ranges takes a value below the one before for a reset of a counter.
func OfCounter(function string) bool {
	return function == "resets" || overWindows[function].Read == ReadCounter
}

// overSteps says what functions of subqueries read. Each step has one value, so only what is largest, least or counted
// on is better than an average.
var overSteps = map[string]Selector{
	"rate": {Read: ReadCounter}, "increase": {Read: ReadCounter}, "irate": {Read: ReadCounter},
	"min_over_time": {Read: ReadMin}, "max_over_time": {Read: ReadMax},
}

// ForDownsampled prepares a statement that may read downsampled data, and says what its selectors are to read. It sets
// the look-back to what widen makes of it, which is also told the longest step at which a selector is evaluated. The
// samples that a window stands for are counted by summing up their numbers, so it replaces count_over_time and
// avg_over_time.
func ForDownsampled(s parser.Statement, widen func(lookback, step time.Duration) time.Duration) Uses {
	stmt, ok := s.(*parser.EvalStmt)
	if !ok || stmt.Expr == nil {
		return nil
	}
	p := preparation{uses: Uses{}, longest: stmt.Interval}
	stmt.Expr = p.visit(stmt.Expr, use{})
	stmt.LookbackDelta = widen(stmt.LookbackDelta, p.longest)
	return p.uses
}

// use is what stands above an expression: the function or aggregation, as far as it sees the selector's values as they
// are.
type use struct {
	function string // of a range or subquery
	steps    bool   // the function is over a subquery
	operator parser.ItemType
}

func (u use) selector() Selector {
	switch {
	case u.function != "" && u.steps:
		return overSteps[u.function]
	case u.function != "":
		return overWindows[u.function]
	case u.operator == parser.MIN:
		return Selector{Read: ReadMin}
	case u.operator == parser.MAX:
		return Selector{Read: ReadMax}
	}
	return Selector{}
}

type preparation struct {
	uses    Uses
	longest time.Duration
}

// visit notes the selectors of e, and returns what e is replaced by.
func (p *preparation) visit(e parser.Expr, above use) parser.Expr {
	switch e := e.(type) {
	case *parser.VectorSelector:
		p.note(e, above.selector())
	case *parser.MatrixSelector:
		e.VectorSelector = p.visit(e.VectorSelector, above)
	case *parser.SubqueryExpr:
		p.longest = max(p.longest, e.Step)
		above.steps = true
		e.Expr = p.visit(e.Expr, above)
	case *parser.ParenExpr:
		e.Expr = p.visit(e.Expr, above)
	case *parser.StepInvariantExpr:
		e.Expr = p.visit(e.Expr, above)
	case *parser.UnaryExpr: // the largest of the negative is the least
		e.Expr = p.visit(e.Expr, use{})
	case *parser.BinaryExpr:
		e.LHS, e.RHS = p.visit(e.LHS, use{}), p.visit(e.RHS, use{})
	case *parser.AggregateExpr:
		e.Expr = p.visit(e.Expr, use{operator: e.Op})
		if e.Param != nil {
			e.Param = p.visit(e.Param, use{})
		}
	case *parser.Call:
		return p.visitCall(e)
	}
	return e
}

func (p *preparation) visitCall(call *parser.Call) parser.Expr {
	name := call.Func.Name
	if name == "count_over_time" && isRange(call) {
		return p.over(call, ReadCount)
	}
	if name == "avg_over_time" && isRange(call) {
		count := *call
		count.Args = parser.Expressions{copyRange(call.Args[0])}
		return &parser.BinaryExpr{
			Op: parser.DIV, LHS: p.over(call, ReadSum), RHS: p.over(&count, ReadCount),
			VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne},
		}
	}
	for i, arg := range call.Args {
		above := use{}
		if t := arg.Type(); t == parser.ValueTypeMatrix {
			above.function = name
		}
		call.Args[i] = p.visit(arg, above)
	}
	return call
}

// over makes call a sum of what its range reads.
func (p *preparation) over(call *parser.Call, read Read) parser.Expr {
	call.Func = parser.Functions["sum_over_time"]
	p.note(matrix(call.Args[0]).VectorSelector.(*parser.VectorSelector), Selector{Read: read})
	return call
}

func (p *preparation) note(s *parser.VectorSelector, read Selector) {
	if len(s.LabelMatchers) > 0 {
		p.uses[s.LabelMatchers[0]] = read
	}
}

// isRange reports whether call is over a range of what is stored, not over a subquery.
func isRange(call *parser.Call) bool { return len(call.Args) == 1 && matrix(call.Args[0]) != nil }

func matrix(e parser.Expr) *parser.MatrixSelector {
	switch e := e.(type) {
	case *parser.MatrixSelector:
		return e
	case *parser.ParenExpr:
		return matrix(e.Expr)
	case *parser.StepInvariantExpr:
		return matrix(e.Expr)
	}
	return nil
}

// copyRange is a copy of the range e that the engine selects by itself.
func copyRange(e parser.Expr) parser.Expr {
	switch e := e.(type) {
	case *parser.ParenExpr:
		c := *e
		c.Expr = copyRange(e.Expr)
		return &c
	case *parser.StepInvariantExpr:
		c := *e
		c.Expr = copyRange(e.Expr)
		return &c
	}
	c := *matrix(e)
	s := *c.VectorSelector.(*parser.VectorSelector)
	s.LabelMatchers = append([]*labels.Matcher(nil), s.LabelMatchers...)
	if len(s.LabelMatchers) > 0 {
		first := *s.LabelMatchers[0]
		s.LabelMatchers[0] = &first
	}
	c.VectorSelector = &s
	return &c
}
