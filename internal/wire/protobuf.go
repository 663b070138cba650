package wire

import (
	"encoding/binary"
	"math"
)

// Reading protobuf. Every function takes the message m (cut where the innermost message ends) and a position in it, and
// returns the position behind what it read, or a negative fault. What is accepted is what gogo/protobuf's generated
// code accepts, so that a request means the same here and in Prometheus: fields in any order, unknown ones skipped, the
// last of a scalar wins, varints of up to ten bytes whose surplus bits are lost, and a packed list whose last item
// reaches beyond the list's end.
const (
	faultEnd    = -1 - iota // the message ends inside a field
	faultVarint             // a varint of more than ten bytes
	faultType               // a known field with another wire type
	faultTag                // a field number below one, or an unknown wire type
	faultGroup              // the end of a group that never began
	faultTable              // symbols that do not begin with the empty string
	faultExpand             // a message that would take many times its size in memory
	faultAgain              // not a fault of the message: the plain path does not apply
)

// Wire types.
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeGroup   = 3
	typeEnd     = 4
	typeFixed32 = 5
)

func faultText(pos int) string {
	switch pos {
	case faultEnd:
		return "ends inside a field"
	case faultVarint:
		return "has a number of more than ten bytes"
	case faultType:
		return "has a field of the wrong type"
	case faultTag:
		return "has an illegal field number or type"
	case faultGroup:
		return "ends a group that never began"
	case faultTable:
		return "has a symbol table that does not begin with the empty string"
	case faultExpand:
		return "asks for far more memory than its size, by many references to long symbols or many empty histograms or " +
			"exemplars"
	}
	panic("BUG: wire: no such fault")
}

// uvarint reads a varint.
func uvarint(m []byte, pos int) (uint64, int) {
	if uint(pos) < uint(len(m)) && m[pos] < 0x80 {
		return uint64(m[pos]), pos + 1
	}
	return longUvarint(m, pos)
}

func longUvarint(m []byte, pos int) (v uint64, next int) {
	for shift := uint(0); shift < 64; shift += 7 {
		if pos >= len(m) {
			return 0, faultEnd
		}
		c := m[pos]
		pos++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, pos
		}
	}
	return 0, faultVarint
}

// tag reads a field's number and wire type.
func tag(m []byte, pos int) (num int32, typ int, next int) {
	v, next := uvarint(m, pos)
	if next < 0 {
		return 0, 0, next
	}
	num, typ = int32(v>>3), int(v&7)
	switch {
	case typ == typeEnd:
		return 0, 0, faultGroup
	case num <= 0:
		return 0, 0, faultTag
	}
	return num, typ, next
}

// bytesField reads the length of a field of type bytes: its content is m[next:end].
func bytesField(m []byte, pos, typ int) (next, end int) {
	if typ != typeBytes {
		return faultType, faultType
	}
	size, pos := uvarint(m, pos)
	if pos < 0 {
		return pos, pos
	}
	if size > uint64(len(m)-pos) {
		return faultEnd, faultEnd
	}
	return pos, pos + int(size)
}

// nextField finds the next field from pos on whose number is one of known, a bit for each. It skips other fields. A
// field that it finds has type bytes, and its content is m[at:end]. num is 0 when there is none; then at is the
// position behind the message, or a fault.
func nextField(m []byte, pos int, known uint32) (num int32, at, end int) {
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return 0, next, 0
		}
		if known>>num&1 != 0 { // 0 from number 32 on
			if at, end = bytesField(m, next, typ); at < 0 {
				return 0, at, 0
			}
			return num, at, end
		}
		if pos = skip(m, next, typ); pos < 0 {
			return 0, pos, 0
		}
	}
	return 0, pos, 0
}

// number reads a varint field.
func number(m []byte, pos, typ int) (uint64, int) {
	if typ != typeVarint {
		return 0, faultType
	}
	return uvarint(m, pos)
}

// double reads a fixed64 field as a float.
func double(m []byte, pos, typ int) (float64, int) {
	if typ != typeFixed64 {
		return 0, faultType
	}
	if len(m)-pos < 8 {
		return 0, faultEnd
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(m[pos:])), pos + 8
}

// skip passes over the content of an unknown field. Of a group it passes over everything in it.
func skip(m []byte, pos, typ int) int {
	depth := 0
	for {
		switch typ {
		case typeVarint:
			_, pos = uvarint(m, pos)
		case typeFixed64:
			pos += 8
		case typeBytes:
			_, pos = bytesField(m, pos, typ)
		case typeGroup:
			depth++
		case typeEnd:
			if depth == 0 {
				return faultGroup
			}
			depth--
		case typeFixed32:
			pos += 4
		default:
			return faultTag
		}
		if pos < 0 {
			return pos
		}
		if pos > len(m) {
			return faultEnd
		}
		if depth == 0 {
			return pos
		}
		var v uint64
		if v, pos = uvarint(m, pos); pos < 0 {
			return pos
		}
		typ = int(v & 7)
	}
}

func zigzag(v uint64) int64   { return int64(v>>1) ^ -int64(v&1) }
func zigzag32(v uint32) int32 { return int32(v>>1) ^ -int32(v&1) }
