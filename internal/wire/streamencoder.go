package wire

import (
	"encoding/binary"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// numberedVersion is the first byte of a frame with numbers, described in docs/format/write-frame.md.
const numberedVersion = 2

// How a series of such a frame is called: bits 2 and 3 of its head. Bits 0 and 1 are its shape, the rest its number.
const (
	calledNumber = 0 << 2 // by the number that was given to it earlier in the stream
	calledNew    = 1 << 2 // by labels, which have the number from here on
	calledLabels = 2 << 2 // by labels, without a number

	headBits  = 4
	shapeMask = 1<<2 - 1
	calledAs  = 3 << 2
)

// StreamEncoder writes the frames of one stream. In it a series travels as a number once its labels have travelled. A
// StreamDecoder reads the frames, all of them, in the order in which they were written. It is not safe for concurrent
// use.
type StreamEncoder struct {
	numbers *numbers
	parts   int
	plain   bool   // some series of the frame has no number
	clock   int64  // the timestamp that the next one is written relative to
	last    uint32 // the number before
	guess   uint32 // the number that is likely to come next
	chained bool   // last is the number of the series before
}

// NewStreamEncoder is the encoder of a new stream.
func NewStreamEncoder() *StreamEncoder { return &StreamEncoder{numbers: newNumbers()} }

// Begin appends the beginning of a frame of tenant id. Add appends its content.
func (e *StreamEncoder) Begin(dst []byte, id tenant.ID) []byte {
	e.numbers.frame++
	e.parts, e.plain, e.clock, e.last, e.chained = 0, false, 0, ^uint32(0), false
	dst = append(dst, numberedVersion)
	return appendText(dst, string(id))
}

// Add appends s, a shard of the frame's tenant. The decoder's batch has its series behind those added before. Add is
// false, and adds nothing, when the frame has a series of s already: what is stored together must not have a series
// twice, since a store compares a sample with those of earlier writes only.
func (e *StreamEncoder) Add(dst []byte, s Shard) ([]byte, bool) {
	if e.parts > 0 && e.overlaps(s) {
		return dst, false
	}
	e.parts++
	dst = binary.AppendUvarint(dst, uint64(len(s.Series)))
	for _, i := range s.Series {
		dst = e.appendSeries(dst, &s.Batch.Series[i])
	}
	return appendMetadata(dst, s), true
}

// Age is called from time to time. A series that was not written between two calls may lose its number.
func (e *StreamEncoder) Age() { e.numbers.age() }

// overlaps reports whether the frame has a series of s already, or may have one: series without a number are not
// remembered.
func (e *StreamEncoder) overlaps(s Shard) bool {
	guess := e.guess
	for _, i := range s.Series {
		n, ok := e.numbers.find(s.Batch.Series[i].Key, guess)
		switch {
		case !ok && e.plain, ok && e.numbers.entries[n].used == e.numbers.frame:
			return true
		case !ok:
			continue
		}
		guess = e.numbers.entries[n].next
	}
	return false
}

// appendSeries appends a series, by its number if it has one.
func (e *StreamEncoder) appendSeries(dst []byte, s *Series) []byte {
	shape := shapeOf(s)
	t := e.numbers
	n, known := t.find(s.Key, e.guess)
	if !known {
		var ok bool
		if n, ok = t.take(s.Key, s.LabelsSize()); !ok {
			e.plain = true
			dst = s.appendSized(append(dst, calledLabels|shape))
			dst, e.clock = appendItems(dst, s, shape, e.clock)
			return dst
		}
	}
	if e.chained && t.entries[e.last].next != n {
		t.entries[e.last].next = n
	}
	entry := &t.entries[n]
	entry.used = t.frame
	head := zigzagEncode(int64(n)-int64(e.last+1)) << headBits
	e.last, e.guess, e.chained = n, entry.next, true
	if known {
		dst = binary.AppendUvarint(dst, head|calledNumber|uint64(shape))
	} else {
		dst = binary.AppendUvarint(dst, head|calledNew|uint64(shape))
		dst = s.appendSized(dst)
	}
	dst, e.clock = appendItems(dst, s, shape, e.clock)
	return dst
}

// zigzagEncode is the inverse of zigzag.
func zigzagEncode(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }
