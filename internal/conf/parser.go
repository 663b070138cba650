package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Parser walks the nodes of one YAML file and gathers faults. Make one with its Name set.
type Parser struct {
	// Name is what errors call the file.
	Name   string
	faults []error
}

// Err joins all faults so far; nil = there are none.
func (p *Parser) Err() error { return errors.Join(p.faults...) }

// Fault adds a fault at n; format and args as in fmt.Errorf.
func (p *Parser) Fault(n *yaml.Node, format string, args ...any) { p.faultAt(n.Line, format, args...) }

// faultAt adds a fault in a line, 0 = of the whole file.
func (p *Parser) faultAt(line int, format string, args ...any) {
	at := p.Name
	if line > 0 {
		at = fmt.Sprintf("%s:%d", p.Name, line)
	}
	p.faults = append(p.faults, fmt.Errorf("%s: %w", at, fmt.Errorf(format, args...)))
}

// Document is the content of the only document in raw. It is nil when there is none, or a fault.
func (p *Parser) Document(raw []byte) *yaml.Node {
	if line, ok := p.text(raw); !ok {
		p.faultAt(line, "is not text in UTF-8: save it as such")
		return nil
	}
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if again := decoder.Decode(&more); again == nil {
			p.Fault(&more, "a second document begins here: a file holds one")
		} else if !errors.Is(again, io.EOF) {
			err = again
		}
	}
	if err != nil {
		p.syntax(raw, err)
		return nil
	}
	if len(doc.Content) == 0 || IsNull(doc.Content[0]) {
		return nil
	}
	return doc.Content[0]
}

// text reports whether raw is text, and which line is the first that is not. UTF-16 with its mark is text that YAML
// knows.
func (p *Parser) text(raw []byte) (line int, ok bool) {
	if bytes.HasPrefix(raw, []byte("\xff\xfe")) || bytes.HasPrefix(raw, []byte("\xfe\xff")) {
		return 0, true
	}
	for i, l := range bytes.Split(raw, []byte("\n")) {
		if !utf8.Valid(l) || bytes.IndexByte(l, 0) >= 0 {
			return i + 1, false
		}
	}
	return 0, true
}

var (
	// syntaxLine finds the line in the library's error of a file that is no YAML.
	syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	tabIndent  = regexp.MustCompile(`^ *\t`)
)

// syntaxWords are parts of the library's errors, with what a person can do about each.
var syntaxWords = []struct{ theirs, ours string }{
	{"did not find expected key", "a line is indented otherwise than the lines around it, or a quote or bracket is not " +
		"closed"},
	{"mapping values are not allowed in this context", "there is a second colon in the line, or it is indented too " +
		"far: quote a value with a colon"},
	{"could not find expected ':'", "a colon is missing after a key"},
	{"did not find expected ',' or", "a comma, or the bracket that closes a list, is missing"},
	{"did not find expected '-' indicator", "a list ends in the middle: its items begin with - in the same column"},
	{"block sequence entries are not allowed", "a list item (-) may not begin here: it goes into a line of its own"},
	{"cannot start any token", "a value may not begin with this character: quote it"},
	{"found unexpected end of stream", "a quote is not closed"},
	{"unknown escape character", `\ in double quotes begins an escape that YAML does not know: use single quotes`},
	{"unknown anchor", "a value that begins with * is a reference in YAML: quote it"},
	{"control characters are not allowed", "it holds a control character"},
}

// syntax adds the library's error of raw as a fault. The line may be off by one, since the library counts so.
func (p *Parser) syntax(raw []byte, err error) {
	text, line := err.Error(), 0
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		_, _ = fmt.Sscan(m[1], &line) // 0 without one
	}
	for i, l := range strings.Split(string(raw), "\n") {
		if tabIndent.MatchString(l) {
			p.faultAt(i+1, "is not YAML: the line is indented with a tab; YAML wants spaces")
			return
		}
	}
	ours := "brackets, quotes or the indentation are wrong"
	for _, w := range syntaxWords {
		if strings.Contains(text, w.theirs) {
			ours = w.ours
			break
		}
	}
	p.faultAt(line, "is not YAML: %s", ours)
}

// IsNull reports whether n is a value that is left out.
func IsNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// Resolve follows an alias.
func Resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// Pairs calls each for the keys and values of a mapping, each key once. where begins the text of faults. A null value
// has no keys.
func (p *Parser) Pairs(n *yaml.Node, where string, each func(key, value *yaml.Node)) {
	if n = Resolve(n); n == nil || IsNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.Fault(n, "%sa mapping (key: value) is expected", where)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		before, twice := lines[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.Fault(key, "%sa key must be a plain word", where)
		case twice:
			p.Fault(key, "%s%s: is already set in line %d", where, key.Value, before)
		default:
			lines[key.Value] = key.Line
			each(key, n.Content[i+1])
		}
	}
}

// Mapping calls what keys has for each key of n; any other key is a fault.
func (p *Parser) Mapping(n *yaml.Node, where string, keys map[string]func(*yaml.Node)) {
	p.Pairs(n, where, func(key, value *yaml.Node) {
		if read := keys[key.Value]; read != nil {
			read(value)
			return
		}
		known := make([]string, 0, len(keys))
		for k := range keys {
			known = append(known, k)
		}
		p.Unknown(key, where, known)
	})
}

// Unknown adds the fault that key is not one of known.
func (p *Parser) Unknown(key *yaml.Node, where string, known []string) {
	p.Fault(key, "%s%s: there is no such key here%s", where, key.Value, Suggest(key.Value, known))
}
