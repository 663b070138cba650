package expr

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Parser is the interface of the library's parser. The library's API and engine take one.
type Parser = parser.Parser

// MaxDepth is how many levels deep an expression may be. Parentheses, calls, brackets and each operator of a chain are
// levels. The library needs cubic time to print an expression for people, and its engine takes some KB of stack for
// each level.
const MaxDepth = 256

// DefaultMaxBytes is the default of the longest expression. It is enough for expressions of people and dashboards.
const DefaultMaxBytes = 64 << 10

// bounded checks the bounds before it calls the library's parser.
type bounded struct {
	maxBytes int
	inner    parser.Parser
}

// New returns a parser of expressions of at most maxBytes; 0 = DefaultMaxBytes. It refuses a text that exceeds a bound
// with an error of kind TooLarge. Only the growth of labels is checked after the library has parsed the text.
func New(maxBytes int) Parser {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	return &bounded{maxBytes, parser.NewParser(parser.Options{})}
}

// ParseExpr implements Parser.
func (b *bounded) ParseExpr(text string) (parser.Expr, error) {
	if err := scan(text, b.maxBytes); err != nil {
		return nil, err
	}
	e, err := b.inner.ParseExpr(text)
	if err != nil {
		return e, err
	}
	return e, checkLabelGrowth(e)
}

// ParseMetric implements Parser.
func (b *bounded) ParseMetric(text string) (labels.Labels, error) {
	if err := scan(text, b.maxBytes); err != nil {
		return labels.EmptyLabels(), err
	}
	return b.inner.ParseMetric(text)
}

// ParseMetricSelector implements Parser.
func (b *bounded) ParseMetricSelector(text string) ([]*labels.Matcher, error) {
	if err := scan(text, b.maxBytes); err != nil {
		return nil, err
	}
	return b.inner.ParseMetricSelector(text)
}

// ParseMetricSelectors implements Parser. The bounds hold for all selectors together, as one request has them all.
func (b *bounded) ParseMetricSelectors(texts []string) ([][]*labels.Matcher, error) {
	var s scanner
	for _, text := range texts {
		if err := s.scan(text, b.maxBytes); err != nil {
			return nil, err
		}
	}
	return b.inner.ParseMetricSelectors(texts)
}

// ParseSeriesDesc implements Parser.
func (b *bounded) ParseSeriesDesc(text string) (labels.Labels, []parser.SequenceValue, error) {
	if err := scan(text, b.maxBytes); err != nil {
		return labels.EmptyLabels(), nil, err
	}
	return b.inner.ParseSeriesDesc(text)
}

// RegisterFeatures implements Parser.
func (b *bounded) RegisterFeatures(r features.Collector) { b.inner.RegisterFeatures(r) }

// Selectors returns the matchers of each selector in an expression of at most DefaultMaxBytes. Errors: TooLarge,
// Invalid.
func Selectors(text string) ([][]*labels.Matcher, error) { return SelectorsOf(New(0), text) }

// SelectorsOf is as Selectors, with the bounds of p.
func SelectorsOf(p Parser, text string) ([][]*labels.Matcher, error) {
	e, err := p.ParseExpr(text)
	if errs.KindOf(err) == errs.Internal { // an error of the library has no kind
		err = errs.Wrap(errs.Invalid, err)
	}
	if err != nil {
		return nil, err
	}
	return parser.ExtractSelectors(e), nil
}
