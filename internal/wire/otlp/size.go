package otlp

import (
	"encoding/binary"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxDepth is how deep messages, objects and arrays may be nested. The metrics of OTLP take 8; the rest is for
// attribute values that hold attribute values.
const maxDepth = 64

// Size is about how many bytes of memory the decoded form of msg takes. It looks at every message or object in it,
// since a few bytes of input can ask for hundreds. Errors are of kind Invalid: nested too deep, or no protobuf.
func Size(form Form, msg []byte) (int64, error) {
	if form == JSON {
		return sizeJSON(msg)
	}
	s := sizer{size: int64(len(msg))}
	err := s.walk(msg, request, 1)
	return s.size, err
}

// message is a type of protobuf message.
type message uint8

const (
	scalar message = iota // no message, or one without any in it that repeats
	request
	resourceMetrics
	resource
	scopeMetrics
	scope
	metric
	gauge // and sum, and every other list of data points but these
	histograms
	exponentials
	summaries
	number
	histogramPoint
	exponential
	buckets
	summary
	quantile
	exemplarValue
	keyValue
	anyValue
	arrayValue
	keyValueList
	entity
)

// types says what of each message is a message, by field number, and what one costs when decoded: its structure, the
// pointer to it, growth of the list that it is in. Fields that it does not name hold no messages.
var types = [...]struct {
	cost    int64
	perByte int64 // cost of a byte of it: numbers and strings in lists
	fields  [16]message
}{
	request:         {0, 0, [16]message{1: resourceMetrics}},
	resourceMetrics: {200, 0, [16]message{1: resource, 2: scopeMetrics}}, // and 1000, see child
	resource:        {40, 0, [16]message{1: keyValue, 3: entity}},
	scopeMetrics:    {180, 0, [16]message{1: scope, 2: metric}},
	scope:           {40, 0, [16]message{3: keyValue}},
	metric: {180, 0, [16]message{
		5: gauge, 7: gauge, 9: histograms, 10: exponentials, 11: summaries, 12: keyValue,
	}},
	gauge:          {64, 0, [16]message{1: number}},
	histograms:     {64, 0, [16]message{1: histogramPoint}},
	exponentials:   {64, 0, [16]message{1: exponential}},
	summaries:      {64, 0, [16]message{1: summary}},
	number:         {160, 0, [16]message{5: exemplarValue, 7: keyValue}},
	histogramPoint: {260, 0, [16]message{8: exemplarValue, 9: keyValue}},
	exponential:    {320, 0, [16]message{1: keyValue, 8: buckets, 9: buckets, 11: exemplarValue}},
	buckets:        {0, 16, [16]message{}},
	summary:        {160, 0, [16]message{6: quantile, 7: keyValue}},
	quantile:       {40, 0, [16]message{}},
	exemplarValue:  {160, 0, [16]message{7: keyValue}},
	keyValue:       {100, 0, [16]message{2: anyValue}},
	anyValue:       {48, 0, [16]message{5: arrayValue, 6: keyValueList}},
	arrayValue:     {32, 0, [16]message{1: anyValue}},
	keyValueList:   {32, 0, [16]message{1: keyValue}},
	entity:         {150, 16, [16]message{}},
}

func (t message) child(field uint64) message {
	switch {
	case field < 16:
		return types[t].fields[field]
	case t == resourceMetrics && field == 1000: // scope metrics of old senders
		return scopeMetrics
	}
	return scalar
}

var errNested = errs.E(errs.Invalid, "the message is nested deeper than %d", maxDepth)

type sizer struct{ size int64 }

// walk adds the cost of m, a message of type t. It is stricter than the decoder, so that the two never see different
// messages: groups, and field numbers that do not exist, are errors.
func (s *sizer) walk(m []byte, t message, depth int) error {
	if depth > maxDepth {
		return errNested
	}
	s.size += types[t].cost + types[t].perByte*int64(len(m))
	for len(m) > 0 {
		tag, n := uvarint(m)
		m = m[n:]
		field := tag >> 3
		if n == 0 || field == 0 || field > 1<<29-1 {
			return errs.E(errs.Invalid, "the message is not protobuf: bad tag")
		}
		var skip uint64
		switch tag & 7 {
		case 0:
			_, n = uvarint(m)
			if n == 0 {
				return errs.E(errs.Invalid, "the message is not protobuf: bad number")
			}
			skip = uint64(n)
		case 1:
			skip = 8
		case 2:
			skip, n = uvarint(m)
			if m = m[n:]; n == 0 || skip > uint64(len(m)) {
				return errs.E(errs.Invalid, "the message is not protobuf: it ends too early")
			}
			if c := t.child(field); c != scalar {
				if err := s.walk(m[:skip], c, depth+1); err != nil {
					return err
				}
			}
		case 5:
			skip = 4
		default:
			return errs.E(errs.Invalid, "the message is not protobuf as OTLP uses it: wire type %d", tag&7)
		}
		if skip > uint64(len(m)) {
			return errs.E(errs.Invalid, "the message is not protobuf: it ends too early")
		}
		m = m[skip:]
	}
	return nil
}

// uvarint is binary.Uvarint with a short way, and n = 0 for every fault.
func uvarint(m []byte) (v uint64, n int) {
	if len(m) > 0 && m[0] < 0x80 {
		return uint64(m[0]), 1
	}
	v, n = binary.Uvarint(m)
	return v, max(n, 0)
}

// sizeJSON counts objects, arrays and commas outside of strings. Every object is taken for a large one.
func sizeJSON(msg []byte) (int64, error) {
	const object, array, item = 240, 32, 16
	size, depth, quoted := int64(len(msg)), 0, false
	for i := 0; i < len(msg); i++ {
		c := msg[i]
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
			if c == '\\' {
				i++
			}
		case c == ',':
			size += item
		case c == '{' || c == '[':
			size += array
			if c == '{' {
				size += object - array
			}
			if depth++; depth > maxDepth {
				return size, errNested
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return size, nil
}
