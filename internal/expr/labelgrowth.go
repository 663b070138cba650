package expr

import (
	"regexp"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxGrowth is how many copies of a stored label's value a query may put into one label. Each label_replace can repeat
// what the one within it made, so that ten of them make a gigabyte of one byte.
const maxGrowth = 64

// made is what a query makes of the value of one label: some copies of a stored value, and some bytes of its own text.
type made struct{ copies, text int }

const manyBytes = 1 << 40 // no label is as long; sums of it do not overflow

func (m made) times(n int) made { return made{m.copies * n, min(m.text*n, manyBytes)} }

func (m made) plus(o made) made {
	return made{min(m.copies+o.copies, manyBytes), min(m.text+o.text, manyBytes)}
}

// madeLabels are the labels whose values an expression makes, by name.
type madeLabels map[string]made

func (l madeLabels) of(name string) made {
	if m, ok := l[name]; ok {
		return m
	}
	return made{copies: 1}
}

// set notes that label name may have the value m, or the one it had.
func (l madeLabels) set(name string, m made) {
	old := l.of(name)
	l[name] = made{max(old.copies, m.copies), max(old.text, m.text)}
}

var reference = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// labelsOf follows the values of labels through the functions that make them.
func labelsOf(n parser.Node) madeLabels {
	out := madeLabels{}
	for child := range parser.ChildrenIter(n) {
		for name, m := range labelsOf(child) {
			out.set(name, m)
		}
	}
	call, ok := n.(*parser.Call)
	if !ok {
		return out
	}
	text := func(i int) string {
		if i < len(call.Args) {
			if s, ok := unwrap(call.Args[i]).(*parser.StringLiteral); ok {
				return s.Val
			}
		}
		return ""
	}
	switch call.Func.Name {
	case "label_replace": // vector, target, replacement, source, pattern
		replacement := text(2)
		value := out.of(text(3)).times(len(reference.FindAllStringIndex(replacement, -1)))
		out.set(text(1), value.plus(made{text: len(replacement)}))
	case "label_join": // vector, target, separator, sources
		value := made{}
		for i := 3; i < len(call.Args); i++ {
			value = value.plus(out.of(text(i))).plus(made{text: len(text(2))})
		}
		out.set(text(1), value)
	}
	return out
}

func unwrap(e parser.Expr) parser.Expr {
	for {
		switch x := e.(type) {
		case *parser.ParenExpr:
			e = x.Expr
		case *parser.StepInvariantExpr:
			e = x.Expr
		default:
			return e
		}
	}
}

func checkGrowth(e parser.Expr) error {
	for name, m := range labelsOf(e) {
		if m.copies > maxGrowth {
			return errs.E(errs.TooLarge,
				"label_replace and label_join repeat a value %d times in label %q, and may do so %d times (limit on the growth of labels)",
				m.copies, name, maxGrowth)
		}
	}
	return nil
}

// LabelBytes is how many bytes of its own text a query may put into the labels of each series that it makes.
func LabelBytes(s parser.Statement) int {
	stmt, ok := s.(*parser.EvalStmt)
	if !ok || stmt.Expr == nil {
		return 0
	}
	sum := 0
	for _, m := range labelsOf(stmt.Expr) {
		sum = min(sum+m.text, manyBytes)
	}
	return sum
}
