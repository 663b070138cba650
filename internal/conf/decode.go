package conf

import (
	"encoding"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds how deep a document is walked, since an alias may point to a node that holds the alias.
const maxDepth = 50

// libraryWords begin the errors of the library.
var libraryWords = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?(?:line \d+: )?`)

// Plain is the text of err without the words with which the YAML library begins it.
func Plain(err error) string { return libraryWords.ReplaceAllString(err.Error(), "") }

// Decode sets *to, a pointer to a Go value, to what n says. A key that the type of *to does not know, a key that is set
// twice and a value of another type are faults; *to is then set in part.
func (p *Parser) Decode(n *yaml.Node, to any) {
	if n == nil {
		return
	}
	if !p.check(n, reflect.TypeOf(to).Elem(), "", 0) {
		return
	}
	if err := n.Decode(to); err != nil {
		p.Fault(n, "%s", Plain(err))
	}
}

// Check adds a fault for each key of n that sample, a struct, does not know or that is set twice, and for each value
// that is of another type. It reports whether there were none.
func (p *Parser) Check(n *yaml.Node, where string, sample any) bool {
	return n == nil || p.check(n, reflect.TypeOf(sample), where, 0)
}

// check compares n with the type t.
func (p *Parser) check(n *yaml.Node, t reflect.Type, where string, depth int) bool {
	n = Resolve(n)
	switch {
	case depth > maxDepth:
		p.Fault(n, "%sis nested too deep", where)
		return false
	case IsNull(n):
		return true
	case t.Kind() == reflect.Pointer:
		return p.check(n, t.Elem(), where, depth+1)
	case t.Kind() == reflect.Interface:
		return true
	case t.Kind() == reflect.Struct && len(keysOf(t)) > 0:
		return p.checkStruct(n, t, where, depth)
	case t.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		ok := true
		p.Pairs(n, where, func(key, value *yaml.Node) {
			ok = p.check(value, t.Elem(), where+key.Value+": ", depth+1) && ok
		})
		return ok
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		ok := true
		for _, item := range n.Content {
			ok = p.check(item, t.Elem(), where, depth+1) && ok
		}
		return ok
	}
	return p.checkLeaf(n, t, where)
}

func (p *Parser) checkStruct(n *yaml.Node, t reflect.Type, where string, depth int) bool {
	faults, keys := len(p.faults), keysOf(t)
	p.Pairs(n, where, func(key, value *yaml.Node) {
		if field, ok := keys[key.Value]; ok {
			p.check(value, field, where+key.Value+": ", depth+1)
			return
		}
		if key.ShortTag() == "!!merge" {
			return // its keys are those of another mapping in the file
		}
		known := make([]string, 0, len(keys))
		for k := range keys {
			known = append(known, k)
		}
		p.Unknown(key, where, known)
	})
	return len(p.faults) == faults
}

// checkLeaf looks whether a value can be read.
func (p *Parser) checkLeaf(n *yaml.Node, t reflect.Type, where string) bool {
	v := reflect.New(t)
	err := n.Decode(v.Interface())
	if err == nil {
		return true
	}
	if words := expected(v); words != "" {
		p.Fault(n, "%s%s is expected", where, words)
	} else {
		p.Fault(n, "%s%s", where, Plain(err))
	}
	return false
}

// expected says what a value of v's type looks like. It is "" for a type whose own errors say so.
func expected(v reflect.Value) string {
	switch v.Interface().(type) {
	case *time.Duration:
		return "a duration such as 30s or 1h"
	case yaml.Unmarshaler, encoding.TextUnmarshaler, interface{ UnmarshalYAML(func(any) error) error }:
		return ""
	}
	switch k := v.Elem().Kind(); {
	case k == reflect.Bool:
		return "true or false"
	case k >= reflect.Int && k <= reflect.Uint64:
		return "a whole number"
	case k == reflect.Float32 || k == reflect.Float64:
		return "a number"
	case k == reflect.String:
		return "a text"
	case k == reflect.Slice || k == reflect.Array:
		return "a list"
	}
	return "a mapping (key: value)"
}

// keysOf are the keys of a struct in YAML, with their types.
func keysOf(t reflect.Type) map[string]reflect.Type {
	keys := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case !f.IsExported() && !f.Anonymous, tag == "-":
		case strings.Contains(options, "inline"):
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				for k, v := range keysOf(inner) {
					keys[k] = v
				}
			}
		case name != "":
			keys[name] = f.Type
		}
	}
	return keys
}
