package expr

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Read says what a selector reads of downsampled data. These have a few numbers for each window instead of samples.
type Read uint8

// The reads. ReadAverage is the zero value: the average stands for the samples where no other number is better.
const (
	ReadAverage Read = iota
	ReadCount        // the number of samples; 1 for a raw sample
	ReadSum
	ReadMin
	ReadMax
	ReadCounter // totals without resets
)

// Selector says how the samples of one selector of an expression are used.
type Selector struct {
	Read Read
	// Vague is the function whose result is only approximate over windows, "" for none. The answer gets a warning with it.
	Vague string
}

// Uses are the selectors of a statement, by the address of their first matcher. The engine passes the matchers of a
// selector to the querier without a copy, and the querier learns nothing else about which selector it is.
type Uses map[*labels.Matcher]Selector

// overWindows says what functions over ranges read. Functions that are not listed read averages.
var overWindows = map[string]Selector{
	"rate": {Read: ReadCounter}, "increase": {Read: ReadCounter}, "irate": {Read: ReadCounter},
	"min_over_time": {Read: ReadMin}, "max_over_time": {Read: ReadMax}, "sum_over_time": {Read: ReadSum},
	"present_over_time": {Read: ReadCount}, "absent_over_time": {Read: ReadCount},
	// Of the resets within a window one shows: its least value is below that of the window before.
	"resets":             {ReadMin, "resets"},
	"changes":            {ReadAverage, "changes"},
	"quantile_over_time": {ReadAverage, "quantile_over_time"},
	"stddev_over_time":   {ReadAverage, "stddev_over_time"}, "stdvar_over_time": {ReadAverage, "stdvar_over_time"},
	"mad_over_time": {ReadAverage, "mad_over_time"},
}

// OfCounter reports whether function, which is over ranges, takes a value below the one before it for a counter reset.
func OfCounter(function string) bool {
	return function == "resets" || overWindows[function].Read == ReadCounter
}

// overSteps says what functions over subqueries read. Each step has one value, so an average is best except for
// functions that want the largest value, the least value or the growth of a counter.
var overSteps = map[string]Selector{
	"rate": {Read: ReadCounter}, "increase": {Read: ReadCounter}, "irate": {Read: ReadCounter},
	"min_over_time": {Read: ReadMin}, "max_over_time": {Read: ReadMax},
}

// ForDownsampled changes a statement so that it can read downsampled data, and returns what its selectors must read. It
// sets the look-back to the result of widen, which gets the look-back of the statement and the longest step at which a
// selector is evaluated. Samples of windows are counted by the sum of their counts. So count_over_time becomes a
// sum_over_time of counts, and avg_over_time a quotient of two sums. It returns nil for other statements than an
// EvalStmt.
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

// use is the function or aggregation that gets the values of an expression unchanged. It is empty if an operator or
// another function stands between.
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

// preparation is one walk of ForDownsampled: longest is the longest step so far.
type preparation struct {
	uses    Uses
	longest time.Duration
}

// visit notes the selectors of e, and returns the expression that replaces e.
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
	case *parser.UnaryExpr: // max(-m) is the least of m, so min and max do not pass
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

// visitCall is visit for a call. It replaces count_over_time and avg_over_time over stored samples.
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

// over turns call into a sum of the numbers read of its range.
func (p *preparation) over(call *parser.Call, read Read) parser.Expr {
	call.Func = parser.Functions["sum_over_time"]
	p.note(matrix(call.Args[0]).VectorSelector.(*parser.VectorSelector), Selector{Read: read})
	return call
}

// note stores what selector s reads.
func (p *preparation) note(s *parser.VectorSelector, read Selector) {
	if len(s.LabelMatchers) > 0 {
		p.uses[s.LabelMatchers[0]] = read
	}
}

// isRange reports whether call is over a range of stored samples, not over a subquery.
func isRange(call *parser.Call) bool { return len(call.Args) == 1 && matrix(call.Args[0]) != nil }

// matrix returns the range selector within e, nil if there is none.
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

// copyRange returns a copy of the range e. Its first matcher is a copy, too, so that Uses tells the two apart and the
// engine selects each of them.
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
