package template

import (
	"context"
	"strings"

	"github.com/grafana/regexp"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
)

// Bounds of one evaluation of a rule, and what each of its alerts adds. Work is counted in bytes that are copied, or
// what takes as long.
const (
	maxWork, workOfAlert       = 64 << 20, 256 << 10
	maxQueries, queriesOfAlert = 1000, 10
)

// MaxBytes bounds a text that comes out of a template, and each value within it.
const MaxBytes = 64 << 10

// maxMade bounds what a function may make at once, by an estimate from above that is made before.
const maxMade = 4 << 20

// maxCalls is how deep templates that call templates may nest.
const maxCalls = 100

// Budget is what the templates of one evaluation of a rule may cost together. It is not safe for concurrent use.
type Budget struct {
	work, queries int
	matchers      expr.Matchers
	patterns      map[string]pattern
	fault         error // the bound that was exceeded
}

// pattern is a compiled regular expression, and what it costs for each byte that it looks at.
type pattern struct {
	*regexp.Regexp
	cost int
}

// NewBudget is the Budget for the given number of alerts.
func NewBudget(alerts int) *Budget {
	return &Budget{work: maxWork + alerts*workOfAlert, queries: maxQueries + alerts*queriesOfAlert,
		patterns: map[string]pattern{}}
}

// Err is the bound that was exceeded; nil = none was. Then no template is expanded with b any more.
func (b *Budget) Err() error { return b.fault }

// exceed notes which bound was exceeded. The error has kind TooLarge.
func (b *Budget) exceed(format string, args ...any) error {
	b.fault = errs.E(errs.TooLarge, format, args...)
	return b.fault
}

// take counts work that is about to be done.
func (b *Budget) take(work int) error {
	if b.work -= work; b.work < 0 {
		return b.exceed("the templates of the rule take too long: a loop, or texts that are too large")
	}
	return nil
}

// made checks the size of a value that is to be made, or was.
func (b *Budget) made(size, limit int) error {
	if size > limit {
		return b.exceed("a text within a template may have %d bytes", MaxBytes)
	}
	return b.take(size)
}

// step counts the work of a part that is repeated.
func (b *Budget) step(ctx context.Context, work int) error {
	if err := ctx.Err(); err != nil {
		b.fault = errs.E(errs.Unavailable, "the templates of the rule were broken off: %w", context.Cause(ctx))
		return b.fault
	}
	return b.take(work)
}

// compile gives a pattern. One that was used before is not compiled again.
func (b *Budget) compile(text string) (pattern, error) {
	if p, ok := b.patterns[text]; ok {
		return p, nil
	}
	if err := b.take(costOfCompiling * len(text)); err != nil {
		return pattern{}, err
	}
	re, size, err := b.matchers.Compile(text)
	if errs.KindOf(err) == errs.TooLarge {
		b.fault = err
	}
	if err != nil {
		return pattern{}, err
	}
	p := pattern{re, 4 + size/4} // hardly ever are more of the instructions active at one byte
	b.patterns[text] = p
	return p, nil
}

// costOfCompiling is the work for each byte of a pattern.
const costOfCompiling = 1000

// replaceAll replaces what matches. The text that comes out is estimated from above first: each match may become as
// long as the replacement, with the whole match in the place of each reference.
func (b *Budget) replaceAll(p pattern, with, text string) (string, error) {
	if err := b.take(p.cost * (len(text) + 1)); err != nil {
		return "", err
	}
	refs := strings.Count(with, "$")
	size := (len(text) + 1) * (len(with) + refs*len(text))
	if size > MaxBytes {
		size = len(text)
		if err := b.take(p.cost * (len(text) + 1)); err != nil {
			return "", err
		}
		p.ReplaceAllStringFunc(text, func(match string) string {
			size += len(with) + refs*len(match)
			return ""
		})
	}
	if err := b.made(size, maxMade); err != nil {
		return "", err
	}
	return p.ReplaceAllString(text, with), nil
}
