package tenant

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// LimitFile is what one file says about limits: only what is written in it.
type LimitFile struct {
	defaults []setting
	tenants  map[ID][]setting
}

// setting is one key with its value.
type setting struct {
	field int // in Limits
	value reflect.Value
}

// ParseLimits reads a limits file:
//
//	defaults: {samples_per_second: 10000}
//	tenants:
//	  acme: {samples_per_second: 50000}
//
// It is strict, and its error reports every fault as name:line: tenant: key: what is wrong.
func ParseLimits(name string, raw []byte) (*LimitFile, error) {
	p := limitParser{name: name}
	f := &LimitFile{tenants: map[ID][]setting{}}
	root := p.document(raw)
	p.mapping(root, "", map[string]func(*yaml.Node){
		"defaults": func(n *yaml.Node) { f.defaults = p.settings(n, "defaults: ") },
		"tenants": func(n *yaml.Node) {
			p.tenants(n, func(id ID, n *yaml.Node) { f.tenants[id] = p.settings(n, "tenant "+string(id)+": ") })
		},
	})
	return f, errors.Join(p.faults...)
}

// ParseLimit reads one default as --limits.default has it: key=value, the value as in a file.
func ParseLimit(name, text string) (*LimitFile, error) {
	key, value, ok := bytes.Cut([]byte(text), []byte("="))
	if !ok {
		return nil, fmt.Errorf("%s %q: want key=value", name, text)
	}
	p := limitParser{name: name}
	node := p.document(value)
	i, known := limitIndex[string(key)]
	switch {
	case len(p.faults) > 0:
		return nil, errors.Join(p.faults...)
	case !known:
		return nil, fmt.Errorf("%s %q: no limit has this name", name, text)
	case node == nil:
		return nil, fmt.Errorf("%s %q: has no value", name, text)
	}
	v, err := limitFields[i].decode(node)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", name, text, err)
	}
	return &LimitFile{defaults: []setting{{i, v}}}, nil
}

// limitParser walks the nodes of a YAML file and gathers faults.
type limitParser struct {
	name   string
	faults []error
}

func (p *limitParser) fault(n *yaml.Node, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("%s:%d: %w", p.name, n.Line, fmt.Errorf(format, args...)))
}

// syntaxLine is how the library says where a file is no YAML.
var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)

// document is the content of the only document in raw, nil when there is none.
func (p *limitParser) document(raw []byte) *yaml.Node {
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if again := decoder.Decode(&more); again == nil {
			p.fault(&more, "a second document begins here: a file holds one")
		} else if !errors.Is(again, io.EOF) {
			err = again
		}
	}
	if err != nil {
		text, line := err.Error(), ""
		if m := syntaxLine.FindStringSubmatch(text); m != nil {
			text, line = text[len(m[0]):], ":"+m[1]
		}
		p.faults = append(p.faults, fmt.Errorf("%s%s: not YAML: %s", p.name, line, text))
		return nil
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil
	}
	return doc.Content[0]
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// pairs yields the keys and values of a mapping, each key once. Nothing (null) has none.
func (p *limitParser) pairs(n *yaml.Node, where string, each func(key, value *yaml.Node)) {
	if n = resolve(n); n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.fault(n, "%sa mapping is expected", where)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		before, twice := lines[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.fault(key, "%sa key must be a plain word", where)
		case twice:
			p.fault(key, "%s%s: is already set in line %d", where, key.Value, before)
		default:
			lines[key.Value] = key.Line
			each(key, n.Content[i+1])
		}
	}
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// mapping calls what keys has for each key of n; any other key is a fault.
func (p *limitParser) mapping(n *yaml.Node, where string, keys map[string]func(*yaml.Node)) {
	p.pairs(n, where, func(key, value *yaml.Node) {
		if read := keys[key.Value]; read != nil {
			read(value)
			return
		}
		p.fault(key, "%s%s: is not a key that belongs here", where, key.Value)
	})
}

// tenants calls each for every tenant in n.
func (p *limitParser) tenants(n *yaml.Node, each func(ID, *yaml.Node)) {
	p.pairs(n, "tenants: ", func(key, value *yaml.Node) {
		id, err := Parse(key.Value)
		if err != nil {
			p.fault(key, "%w", err)
			return
		}
		each(id, value)
	})
}

// settings reads the limits in n.
func (p *limitParser) settings(n *yaml.Node, where string) []setting {
	var all []setting
	p.pairs(n, where, func(key, value *yaml.Node) {
		i, known := limitIndex[key.Value]
		if !known {
			p.fault(key, "%s%s: no limit has this name", where, key.Value)
			return
		}
		v, err := limitFields[i].decode(value)
		if err != nil {
			p.fault(key, "%s%s: %w", where, key.Value, err)
			return
		}
		all = append(all, setting{i, v})
	})
	return all
}

// decode makes a checked value of the field's type.
func (f limitField) decode(n *yaml.Node) (reflect.Value, error) {
	n = resolve(n)
	v := reflect.New(f.typ).Elem()
	if isNull(n) {
		return v, errors.New("has no value; leave the key out to inherit it")
	}
	if err := f.set(v, n); err != nil {
		return v, err
	}
	if f.typ == durationType && v.IsZero() {
		return v, errors.New("0 is no window; leave the key out to inherit it")
	}
	return v, f.check(v)
}

// set is the part of decode that depends on the type.
func (f limitField) set(v reflect.Value, n *yaml.Node) error {
	if f.typ.Kind() == reflect.Slice {
		return setNames(v, n)
	}
	if n.Kind != yaml.ScalarNode {
		return errors.New("one value is expected")
	}
	tag := n.ShortTag()
	switch {
	case f.typ == durationType:
		d, err := model.ParseDuration(n.Value)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 90m, 3h or 15d", n.Value)
		}
		v.SetInt(int64(d))
	case f.typ.Kind() == reflect.String:
		if tag != "!!str" {
			return fmt.Errorf("%s is not a text", n.Value)
		}
		v.SetString(n.Value)
	case f.typ.Kind() == reflect.Bool:
		if tag != "!!bool" {
			return fmt.Errorf("%q is neither true nor false", n.Value)
		}
		return n.Decode(v.Addr().Interface())
	case tag != "!!int" && tag != "!!float":
		return fmt.Errorf("%q is not a number", n.Value)
	default:
		return setNumber(v, n)
	}
	return nil
}

// setNumber sets an int, int64 or float64. Whole numbers may be written as 1e6 and 1_000_000.
func setNumber(v reflect.Value, n *yaml.Node) error {
	var whole int64
	if n.ShortTag() == "!!int" && v.Kind() != reflect.Float64 {
		if err := n.Decode(&whole); err != nil {
			return fmt.Errorf("%s is too large", n.Value)
		}
		v.SetInt(whole)
		return nil
	}
	var x float64
	if err := n.Decode(&x); err != nil {
		return fmt.Errorf("%q is not a number", n.Value)
	}
	if v.Kind() == reflect.Float64 {
		v.SetFloat(x)
		return nil
	}
	if x != math.Trunc(x) {
		return fmt.Errorf("%s is not a whole number", n.Value)
	}
	if math.Abs(x) >= math.MaxInt64 {
		return fmt.Errorf("%s is too large", strconv.FormatFloat(x, 'g', -1, 64))
	}
	v.SetInt(int64(x))
	return nil
}

// setNames sets a list of names.
func setNames(v reflect.Value, n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return errors.New("a list is expected")
	}
	names := make([]string, 0, len(n.Content))
	for _, c := range n.Content {
		c = resolve(c)
		if c.Kind != yaml.ScalarNode || c.ShortTag() != "!!str" {
			return errors.New("a list of names is expected")
		}
		names = append(names, c.Value)
	}
	v.Set(reflect.ValueOf(names))
	return nil
}
