package expr

import (
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// scan refuses a text that is too long, nested too deeply, or has regular expressions that are too large.
func scan(text string, maxBytes int) error {
	var s scanner
	return s.scan(text, maxBytes)
}

// scanner adds up the sizes of all texts of one request.
type scanner struct {
	bytes int
	sizes Matchers
}

// scan adds text. It only splits text into tokens, which takes linear time and no recursion.
func (s *scanner) scan(text string, maxBytes int) error {
	if s.bytes += len(text); s.bytes > maxBytes {
		return errs.E(errs.TooLarge,
			"the expression has %d bytes or more, and may have %d (limit --query.max-expression-bytes)", s.bytes, maxBytes)
	}
	var levels nesting
	lexer := parser.Lex(text)
	for {
		var item parser.Item
		lexer.NextItem(&item)
		switch item.Typ {
		case parser.EOF, parser.ERROR: // the parser stops at the same error and reports it
			if depth := levels.depth(); depth > MaxDepth {
				return errs.E(errs.TooLarge,
					"the expression is %d levels deep, and may be %d (limit on nesting and on operators in a row)", depth, MaxDepth)
			}
			return nil
		case parser.STRING: // a function may compile it, too, not only a matcher
			if pattern, err := strutil.Unquote(item.Val); err == nil {
				if err := s.sizes.Check(pattern); err != nil {
					return err
				}
			}
		default:
			levels.add(item.Typ)
		}
	}
}

// nesting computes an upper bound of the depth of the tree that the tokens become. Within one pair of brackets the
// depth is at most the number of operators in a row, whatever their precedence, plus the depth of the deepest operand.
type nesting struct {
	open []level // brackets that are open, the outermost first
	root level
}

// level counts the content of one pair of brackets: operators and the deepest operand (inner) of the current argument,
// and the depth of the deepest argument before it.
type level struct{ operators, inner, deepest int }

func (l level) depth() int { return max(l.deepest, l.operators+l.inner) }

// top is the level of the innermost open bracket.
func (n *nesting) top() *level {
	if len(n.open) == 0 {
		return &n.root
	}
	return &n.open[len(n.open)-1]
}

// add counts one token.
func (n *nesting) add(t parser.ItemType) {
	switch {
	case t == parser.LEFT_BRACKET:
		n.top().operators++ // it applies to the operand before it, as an operator does
		n.open = append(n.open, level{})
	case t == parser.LEFT_PAREN || t == parser.LEFT_BRACE:
		n.open = append(n.open, level{})
	case t == parser.RIGHT_PAREN || t == parser.RIGHT_BRACE || t == parser.RIGHT_BRACKET:
		n.close()
	case t == parser.COMMA:
		l := n.top()
		*l = level{deepest: l.depth()}
	case t.IsOperator() || t.IsKeyword():
		n.top().operators++
	}
}

// close ends the innermost level. A bracket without a partner is left to the parser, which refuses it.
func (n *nesting) close() {
	if len(n.open) == 0 {
		return
	}
	depth := n.top().depth() + 1
	n.open = n.open[:len(n.open)-1]
	n.top().inner = max(n.top().inner, depth)
}

// depth closes all open brackets and returns the bound.
func (n *nesting) depth() int {
	for len(n.open) > 0 {
		n.close()
	}
	return n.root.depth()
}
