package expr

import (
	"strings"

	"github.com/grafana/regexp/syntax"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// MaxRegexpSize is how large the regular expressions of one request may be together, in instructions of the compiled
// programs. A few bytes of text can ask for a million ("a{1000}" again and again), which takes a second and 100 MB.
const MaxRegexpSize = 128 << 10

// maxRepeated is how many of these instructions may be within repetitions (a*, a?, a{9}), which all may be at work at
// each byte of each value that is compared: 64,000 of them went on for minutes over one value of 1 MB, and the context
// is not looked at within a value. Of names that stand beside each other hardly any is at work behind its first byte.
const maxRepeated = 16 << 10

// What a character class may take of MaxRegexpSize before it is parsed: the tables of \p are long, and where case does
// not matter any class is folded rune by rune.
const (
	classSize  = 1000
	foldedSize = 4000
)

// Matchers makes the matchers of one request, and bounds their regular expressions together. The zero value is ready.
type Matchers struct{ size, repeated int }

// New makes one matcher. Errors: TooLarge for what is over the bound, Invalid for a pattern that is none.
func (m *Matchers) New(typ labels.MatchType, name, value string) (*labels.Matcher, error) {
	if typ == labels.MatchRegexp || typ == labels.MatchNotRegexp {
		if err := m.check(value); err != nil {
			return nil, err
		}
	}
	made, err := labels.NewMatcher(typ, name, value)
	return made, errs.Wrap(errs.Invalid, err)
}

// check counts pattern. One that cannot be parsed counts with its text only: whoever compiles it gets the error.
func (m *Matchers) check(pattern string) error {
	m.size += textSize(pattern)
	if m.size <= MaxRegexpSize && strings.ContainsAny(pattern, `{[\*+?`) { // else each byte is one instruction at most
		if parsed, err := syntax.Parse(pattern, syntax.Perl|syntax.DotNL); err == nil {
			m.repeated += repeatedSize(parsed)
			if strings.ContainsAny(pattern, `{[\`) {
				m.size += treeSize(parsed)
			}
		}
	}
	if m.size > MaxRegexpSize {
		return errs.E(errs.TooLarge,
			"the regular expressions need %d instructions or more, and may need %d (limit on regular expressions per request)", m.size, MaxRegexpSize)
	}
	if m.repeated > maxRepeated {
		return errs.E(errs.TooLarge,
			"the regular expressions need %d instructions or more within repetitions, and may need %d (limit on regular expressions per request)", m.repeated, maxRepeated)
	}
	return nil
}

// textSize bounds what parsing a pattern takes, without parsing it.
func textSize(pattern string) int {
	classes, each := strings.Count(pattern, `\p`)+strings.Count(pattern, `\P`), classSize
	if folds(pattern) {
		classes, each = classes+strings.Count(pattern, "["), foldedSize
	}
	return len(pattern) + classes*each
}

// folds reports whether a pattern may ignore case anywhere.
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

// treeSize is about how many instructions a parsed pattern becomes: what is repeated is compiled as often.
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

// repeatedSize is how many of a pattern's instructions are within repetitions.
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
