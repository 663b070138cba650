package tenant

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
)

// LimitFile is what one file says about limits, without anything that it leaves out.
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
	p := newLimitParser(name)
	f := &LimitFile{tenants: map[ID][]setting{}}
	root := p.Document(raw)
	p.Mapping(root, "", map[string]func(*yaml.Node){
		"defaults": func(n *yaml.Node) { f.defaults = p.settings(n, "defaults: ") },
		"tenants": func(n *yaml.Node) {
			p.tenants(n, func(id ID, n *yaml.Node) { f.tenants[id] = p.settings(n, "tenant "+string(id)+": ") })
		},
	})
	return f, p.Err()
}

// ParseLimit reads one default of --limits.default: key=value, with the value as in a file.
func ParseLimit(name, text string) (*LimitFile, error) {
	key, value, ok := bytes.Cut([]byte(text), []byte("="))
	if !ok {
		return nil, fmt.Errorf("%s %q: want key=value", name, text)
	}
	p := newLimitParser(name)
	node := p.Document(value)
	i, known := limitIndex[string(key)]
	switch {
	case p.Err() != nil:
		return nil, p.Err()
	case !known:
		return nil, fmt.Errorf("%s %q: no limit has this name%s", name, text, conf.Suggest(string(key), limitKeys()))
	case node == nil:
		return nil, fmt.Errorf("%s %q: has no value", name, text)
	}
	v, err := p.value(i, node, "")
	if err = errors.Join(p.Err(), err); err != nil {
		return nil, fmt.Errorf("%s %q: %w", name, text, err)
	}
	return &LimitFile{defaults: []setting{{i, v}}}, nil
}

// limitParser reads limits out of a file.
type limitParser struct{ conf.Parser }

func newLimitParser(name string) limitParser { return limitParser{conf.Parser{Name: name}} }

// tenants calls each for every tenant in n.
func (p *limitParser) tenants(n *yaml.Node, each func(ID, *yaml.Node)) {
	p.Pairs(n, "tenants: ", func(key, value *yaml.Node) {
		id, err := Parse(key.Value)
		if err != nil {
			p.Fault(key, "%w", err)
			return
		}
		each(id, value)
	})
}

// settings reads the limits in n.
func (p *limitParser) settings(n *yaml.Node, where string) []setting {
	var all []setting
	p.Pairs(n, where, func(key, value *yaml.Node) {
		i, known := limitIndex[key.Value]
		if !known {
			p.Fault(key, "%s%s: no limit has this name%s", where, key.Value, conf.Suggest(key.Value, limitKeys()))
			return
		}
		v, err := p.value(i, value, where+key.Value+": ")
		if err != nil {
			p.Fault(key, "%s%s: %w", where, key.Value, err)
			return
		}
		all = append(all, setting{i, v})
	})
	return all
}

// value reads the value of field i. Faults of rules are kept with their own lines.
func (p *limitParser) value(i int, n *yaml.Node, where string) (reflect.Value, error) {
	if f := limitFields[i]; f.typ != retentionRulesType {
		return f.decode(n)
	}
	return reflect.ValueOf(p.retentionRules(n, where)), nil
}

// decode makes a value of the field's type, and checks it.
func (f limitField) decode(n *yaml.Node) (reflect.Value, error) {
	n = conf.Resolve(n)
	v := reflect.New(f.typ).Elem()
	if conf.IsNull(n) {
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
		c = conf.Resolve(c)
		if c.Kind != yaml.ScalarNode || c.ShortTag() != "!!str" {
			return errors.New("a list of names is expected")
		}
		names = append(names, c.Value)
	}
	v.Set(reflect.ValueOf(names))
	return nil
}
