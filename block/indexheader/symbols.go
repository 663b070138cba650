package indexheader

import (
	"encoding/binary"
	"sort"

	"github.com/prometheus/prometheus/tsdb/encoding"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// symbolSampling is how many symbols there are for each one whose place is kept in memory. A lookup walks over half of
// them on average. With 16, and 4 bytes for each place, a symbol takes a quarter of a byte.
const symbolSampling = 16

// symbols are the sorted strings of an index: index.Symbols with a shorter and faster walk.
type symbols struct {
	list    []byte   // of each symbol its length, as a uvarint, and its bytes
	offsets []uint32 // in list, of one of symbolSampling symbols
	count   int
}

// readSymbols verifies the symbols of the index-header b, at off, and samples them.
func readSymbols(b []byte, off int) (symbols, error) {
	d := encoding.NewDecbufAt(block.Bytes(b), off, block.Castagnoli)
	s := symbols{count: d.Be32int(), list: d.Get()}
	if err := d.Err(); err != nil {
		return symbols{}, errs.Wrap(errs.Invalid, err)
	}
	s.offsets = make([]uint32, 0, min(s.count, len(s.list))/symbolSampling+1)
	at := 0
	for i := range s.count {
		if i%symbolSampling == 0 {
			s.offsets = append(s.offsets, uint32(at))
		}
		n, size := binary.Uvarint(s.list[at:])
		if size <= 0 || n > uint64(len(s.list)-at-size) {
			return symbols{}, errs.E(errs.Invalid, "symbol %d of %d leaves the symbols", i, s.count)
		}
		at += size + int(n)
	}
	return s, nil
}

// at is the symbol at an offset in list, and the offset of the next one. readSymbols has checked all of them.
func (s *symbols) at(off int) (text string, next int) {
	n, size := uint64(s.list[off]), 1
	if n >= 0x80 {
		n, size = binary.Uvarint(s.list[off:])
	}
	next = off + size + int(n)
	return alias(s.list[off+size : next]), next
}

// lookup is the symbol with a number.
func (s *symbols) lookup(ref uint32) (string, error) {
	if int64(ref) >= int64(s.count) {
		return "", errs.E(errs.Invalid, "symbol %d of %d", ref, s.count)
	}
	off := int(s.offsets[ref/symbolSampling])
	for range ref % symbolSampling {
		_, off = s.at(off)
	}
	text, _ := s.at(off)
	return text, nil
}

// find is the number of a symbol; false if it is not there.
func (s *symbols) find(text string) (uint32, bool) {
	from := sort.Search(len(s.offsets), func(i int) bool {
		first, _ := s.at(int(s.offsets[i]))
		return first > text
	}) - 1
	if from < 0 {
		return 0, false
	}
	off := int(s.offsets[from])
	for ref := from * symbolSampling; ref < min(s.count, (from+1)*symbolSampling); ref++ {
		var found string
		if found, off = s.at(off); found == text {
			return uint32(ref), true
		}
	}
	return 0, false
}
