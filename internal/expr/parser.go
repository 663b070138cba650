package expr

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Parser is what the library's API and engine parse with.
type Parser = parser.Parser

// MaxDepth is how many levels deep an expression may be: parentheses, calls, brackets and operators of one chain. The
// library prints an expression for people in cubic time, and its engine takes some KB of stack for each level.
const MaxDepth = 256

// DefaultMaxBytes is a length that is enough for what people and dashboards write.
const DefaultMaxBytes = 64 << 10

// bounded is the library's parser behind the bounds.
type bounded struct {
	maxBytes int
	inner    parser.Parser
}

// New returns a parser of expressions of at most maxBytes; 0 = DefaultMaxBytes. What is over a bound is refused as
// TooLarge before it is parsed.
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
	return e, checkGrowth(e)
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

// ParseMetricSelectors implements Parser. The bounds are for all selectors together.
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

// Selectors are the matchers of each selector in an expression of at most DefaultMaxBytes. Errors: TooLarge, Invalid.
func Selectors(text string) ([][]*labels.Matcher, error) { return SelectorsOf(New(0), text) }

// SelectorsOf is as Selectors, within the bounds of p.
func SelectorsOf(p Parser, text string) ([][]*labels.Matcher, error) {
	e, err := p.ParseExpr(text)
	if errs.KindOf(err) == errs.Internal { // the library's
		err = errs.Wrap(errs.Invalid, err)
	}
	if err != nil {
		return nil, err
	}
	return parser.ExtractSelectors(e), nil
}
