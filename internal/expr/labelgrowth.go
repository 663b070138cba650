package expr

import (
	"regexp"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxGrowth is how many copies of a stored label's value a query may put into one label. A label_replace can repeat the
// result of the label_replace within it, so ten of them can make a gigabyte of one byte.
const maxGrowth = 64

// valueSize bounds the size of a label's value that a query makes: copies is the number of copies of stored values in
// it, text the number of bytes that come from the query itself.
type valueSize struct{ copies, text int }

// maxSize bounds the numbers of a valueSize, so that they do not overflow. No label can be that long.
const maxSize = 1 << 40

func (m valueSize) times(n int) valueSize { return valueSize{m.copies * n, min(m.text*n, maxSize)} }

func (m valueSize) plus(o valueSize) valueSize {
	return valueSize{min(m.copies+o.copies, maxSize), min(m.text+o.text, maxSize)}
}

// labelSizes are the sizes of the labels that an expression makes, by name of the label.
type labelSizes map[string]valueSize

// of returns the size of label name: one copy of the stored value, if the expression does not make it.
func (l labelSizes) of(name string) valueSize {
	if m, ok := l[name]; ok {
		return m
	}
	return valueSize{copies: 1}
}

// set notes that label name may get a value of size m, or keep the one it had.
func (l labelSizes) set(name string, m valueSize) {
	old := l.of(name)
	l[name] = valueSize{max(old.copies, m.copies), max(old.text, m.text)}
}

// reference matches a use of a capture group in a replacement.
var reference = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// labelSizesOf follows the values of labels through the functions that make them, from the innermost to n.
func labelSizesOf(n parser.Node) labelSizes {
	out := labelSizes{}
	for child := range parser.ChildrenIter(n) {
		for name, m := range labelSizesOf(child) {
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
		out.set(text(1), value.plus(valueSize{text: len(replacement)}))
	case "label_join": // vector, target, separator, sources
		value := valueSize{}
		for i := 3; i < len(call.Args); i++ {
			value = value.plus(out.of(text(i))).plus(valueSize{text: len(text(2))})
		}
		out.set(text(1), value)
	}
	return out
}

// unwrap returns e without the parentheses around it.
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

// checkLabelGrowth refuses an expression that makes longer labels than maxGrowth allows, with an error of kind
// TooLarge.
func checkLabelGrowth(e parser.Expr) error {
	for name, m := range labelSizesOf(e) {
		if m.copies > maxGrowth {
			return errs.E(errs.TooLarge,
				"label_replace and label_join repeat a value %d times in label %q, and may do so %d times "+
					"(limit on the growth of labels)",
				m.copies, name, maxGrowth)
		}
	}
	return nil
}

// LabelBytes is the largest number of bytes of its own text that a query may put into the labels of one resulting
// series.
func LabelBytes(s parser.Statement) int {
	stmt, ok := s.(*parser.EvalStmt)
	if !ok || stmt.Expr == nil {
		return 0
	}
	sum := 0
	for _, m := range labelSizesOf(stmt.Expr) {
		sum = min(sum+m.text, maxSize)
	}
	return sum
}
