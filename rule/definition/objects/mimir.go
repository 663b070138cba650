package objects

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// decodeMimir reads an object of Mimir or Cortex, which must be the group of. docs/format/rules.md has its fields. Some
// numbers mean one thing in Mimir and another one in Cortex. They differ in their types, except for number 13: a
// duration never looks like the name of a tenant, since a name has no control characters and is not empty.
func decodeMimir(of id, raw []byte) (definition.Group, error) {
	if len(raw) > maxObject {
		return definition.Group{}, fmt.Errorf("the object is larger than %d bytes", maxObject)
	}
	g := definition.Group{Tenant: of.tenant}
	user := ""
	var offset, delay time.Duration
	err := fields(raw, func(number protowire.Number, f field) (err error) {
		switch number {
		case 1:
			g.Name = string(f.bytes)
		case 2:
			g.Namespace = string(f.bytes)
		case 3:
			g.Interval, err = f.modelDuration()
		case 4:
			var r rulefmt.Rule
			r, err = mimirRule(f.bytes)
			g.Rules = append(g.Rules, r)
		case 6:
			user = string(f.bytes)
		case 10:
			if f.isNumber {
				g.Limit = int(min(f.number, math.MaxInt32)) // Cortex's limit
			} else {
				err = addSource(&g, f.bytes) // Mimir's source_tenants
			}
		case 11: // Mimir's evaluation_delay, Cortex's query_offset
			delay, err = f.duration()
		case 12: // Cortex's labels; Mimir's align_evaluation_time_on_interval is a number
			if !f.isNumber {
				err = addLabel(&g.Labels, f.bytes)
			}
		case 13:
			if len(f.bytes) == 0 || f.bytes[0] < ' ' {
				offset, err = f.duration() // Mimir's query_offset
			} else {
				err = addSource(&g, f.bytes) // Cortex's source_tenants
			}
		}
		return err
	})
	if err != nil {
		return definition.Group{}, err
	}
	if user != string(of.tenant) {
		return definition.Group{}, fmt.Errorf("the object is of tenant %q, and its name is that of %q", user, of.tenant)
	}
	if offset == 0 {
		offset = delay
	}
	if offset != 0 {
		d := model.Duration(offset)
		g.QueryOffset = &d
	}
	if err := sameNames(of, &g); err != nil {
		return definition.Group{}, err
	}
	return definition.Check(g)
}

func mimirRule(raw []byte) (r rulefmt.Rule, _ error) {
	return r, fields(raw, func(number protowire.Number, f field) (err error) {
		switch number {
		case 1:
			r.Expr = string(f.bytes)
		case 2:
			r.Record = string(f.bytes)
		case 3:
			r.Alert = string(f.bytes)
		case 4:
			r.For, err = f.modelDuration()
		case 5:
			err = addLabel(&r.Labels, f.bytes)
		case 6:
			err = addLabel(&r.Annotations, f.bytes)
		case 13:
			r.KeepFiringFor, err = f.modelDuration()
		}
		return err
	})
}

// addLabel adds a name and a value.
func addLabel(to *map[string]string, raw []byte) error {
	var name, value string
	err := fields(raw, func(number protowire.Number, f field) error {
		switch number {
		case 1:
			name = string(f.bytes)
		case 2:
			value = string(f.bytes)
		}
		return nil
	})
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[name] = value
	return err
}

func addSource(g *definition.Group, name []byte) error {
	source, err := tenant.Parse(string(name))
	g.SourceTenants = append(g.SourceTenants, source)
	return err
}

// field is the value of a field: a number, or bytes.
type field struct {
	isNumber bool
	number   uint64
	bytes    []byte
}

var errNotProtobuf = errors.New("the object is not what Mimir or Cortex writes")

// fields calls each for all fields of a message that are numbers or bytes.
func fields(raw []byte, each func(protowire.Number, field) error) error {
	for len(raw) > 0 {
		number, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return errNotProtobuf
		}
		raw = raw[n:]
		var f field
		switch typ {
		case protowire.VarintType:
			f.isNumber = true
			f.number, n = protowire.ConsumeVarint(raw)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(raw)
		default:
			if n = protowire.ConsumeFieldValue(number, typ, raw); n >= 0 {
				raw = raw[n:]
				continue
			}
		}
		if n < 0 {
			return errNotProtobuf
		}
		if err := each(number, f); err != nil {
			return err
		}
		raw = raw[n:]
	}
	return nil
}

// duration reads google.protobuf.Duration.
func (f field) duration() (time.Duration, error) {
	var seconds, nanos int64
	err := fields(f.bytes, func(number protowire.Number, f field) error {
		switch number {
		case 1:
			seconds = int64(f.number)
		case 2:
			nanos = int64(f.number)
		}
		return nil
	})
	const most = 100 * 365 * 24 * 3600
	if err == nil && (seconds < 0 || seconds > most || nanos < 0 || nanos >= int64(time.Second)) {
		err = fmt.Errorf("%d s and %d ns are not a duration of rules", seconds, nanos)
	}
	return time.Duration(seconds)*time.Second + time.Duration(nanos), err
}

func (f field) modelDuration() (model.Duration, error) {
	d, err := f.duration()
	return model.Duration(d), err
}
