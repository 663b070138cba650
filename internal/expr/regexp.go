package expr

import (
	"strings"

	"github.com/grafana/regexp"
	"github.com/grafana/regexp/syntax"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// MaxRegexpSize bounds the regular expressions of one request together, in instructions of the compiled programs. A few
// bytes of text can need a million of them, as "a{1000}" again and again does. To compile these takes a second and 100
// MB.
const MaxRegexpSize = 128 << 10

// maxRepeated is how many of these instructions may be within repetitions (a*, a?, a{9}). All of those may be active at
// each byte of a value. A match with 64,000 of them took minutes for one value of 1 MB, and nothing checks the context
// within a value. A list of names (a|b|c) is cheaper: hardly any of them is active after its first byte.
const maxRepeated = 16 << 10

// The instructions that a character class counts before it is parsed. The tables of \p are long. Where case is ignored,
// the library folds each class rune by rune.
const (
	classSize  = 1000
	foldedSize = 4000
)

// Matchers makes the matchers of one request, and bounds their regular expressions together. The zero value is ready
// for use. It is not safe for concurrent use.
type Matchers struct{ size, repeated int }

// New makes one matcher. Errors: TooLarge if the regular expressions so far exceed a bound, Invalid if value is no
// valid pattern.
func (m *Matchers) New(typ labels.MatchType, name, value string) (*labels.Matcher, error) {
	if typ == labels.MatchRegexp || typ == labels.MatchNotRegexp {
		if err := m.Check(value); err != nil {
			return nil, err
		}
	}
	made, err := labels.NewMatcher(typ, name, value)
	return made, errs.Wrap(errs.Invalid, err)
}

// Check counts pattern, and refuses it with TooLarge if a bound is exceeded. Of a pattern that cannot be parsed only
// the text counts. Compiling it later gives the caller the error.
func (m *Matchers) Check(pattern string) error {
	m.size += textSize(pattern)
	// A pattern without these characters has at most one instruction for each byte.
	if m.size <= MaxRegexpSize && strings.ContainsAny(pattern, `{[\*+?`) {
		if parsed, err := syntax.Parse(pattern, syntax.Perl|syntax.DotNL); err == nil {
			m.repeated += repeatedSize(parsed)
			if strings.ContainsAny(pattern, `{[\`) {
				m.size += treeSize(parsed)
			}
		}
	}
	if m.size > MaxRegexpSize {
		return errs.E(errs.TooLarge,
			"the regular expressions need %d instructions or more, and may need %d "+
				"(limit on regular expressions per request)", m.size, MaxRegexpSize)
	}
	if m.repeated > maxRepeated {
		return errs.E(errs.TooLarge,
			"the regular expressions need %d instructions or more within repetitions, and may need %d "+
				"(limit on regular expressions per request)", m.repeated, maxRepeated)
	}
	return nil
}

// Compile compiles a pattern that may match a part of a text, within the bounds. It gives how many instructions the
// pattern has: at each byte of a text any of them may be active. Errors: TooLarge as in Check, or that of the library.
func (m *Matchers) Compile(pattern string) (*regexp.Regexp, int, error) {
	if err := m.Check(pattern); err != nil {
		return nil, 0, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, 0, err
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, 0, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, 0, err
	}
	return re, len(program.Inst), nil
}

// textSize bounds the size of a pattern from its text, before anything parses it.
func textSize(pattern string) int {
	classes, each := strings.Count(pattern, `\p`)+strings.Count(pattern, `\P`), classSize
	if folds(pattern) {
		classes, each = classes+strings.Count(pattern, "["), foldedSize
	}
	return len(pattern) + classes*each
}

// folds reports whether a part of pattern may ignore case.
func folds(pattern string) bool {
	for rest := pattern; ; {
		_, after, found := strings.Cut(rest, "(?")
		if !found {
			return false
		}
		rest = after
		flags := rest[:len(rest)-len(strings.TrimLeft(rest, "imsU-"))]
		if strings.Contains(flags, "i") {
			return true
		}
	}
}

// treeSize is about the number of instructions that a parsed pattern becomes. A part with a count (a{9}) is compiled
// that many times.
func treeSize(re *syntax.Regexp) int {
	size := 1
	switch re.Op {
	case syntax.OpLiteral:
		size = len(re.Rune)
	case syntax.OpCharClass:
		size += len(re.Rune) / 2
	}
	for _, sub := range re.Sub {
		size = min(size+treeSize(sub), 2*MaxRegexpSize)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(1, re.Min, re.Max)
	}
	return min(size, 2*MaxRegexpSize)
}

// repeatedSize is the number of instructions of a pattern within repetitions.
func repeatedSize(re *syntax.Regexp) (size int) {
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		return treeSize(re)
	}
	for _, sub := range re.Sub {
		size = min(size+repeatedSize(sub), 2*MaxRegexpSize)
	}
	return size
}
