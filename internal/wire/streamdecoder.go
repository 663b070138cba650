package wire

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// minNumbered is the fewest bytes of a series in a frame of a stream: head and three counts.
const minNumbered = 4

// StreamDecoder reads the frames that a StreamEncoder writes, all of them and in their order. It is not safe for
// concurrent use. Close it when the stream is over.
type StreamDecoder struct {
	shared *SharedSeries
	table  []*oneShared // by number
	held   int          // bytes of their labels
	full   []byte       // scratch
	broken error

	maxNumbers, maxBytes int
}

// NewStreamDecoder is the decoder of a new stream, with the process's shared series.
func NewStreamDecoder(shared *SharedSeries) *StreamDecoder {
	return &StreamDecoder{shared: shared, maxNumbers: maxNumbers, maxBytes: maxNumberBytes}
}

// Close gives up the stream's numbers. Batches that were decoded stay good. It is idempotent. Nothing is decoded after
// it.
func (d *StreamDecoder) Close() {
	for _, n := range d.table {
		d.shared.release(n)
	}
	d.table = nil
	d.broken = errs.E(errs.Internal, "the decoder is closed")
}

// Broken is the error after which the stream must end, nil while the two sides agree on what the numbers mean.
func (d *StreamDecoder) Broken() error { return d.broken }

// Decode reads a frame into a pooled Batch with one reference. The batch shares nothing with payload. Its labels may
// belong to the shared series, which never change. Decode trusts nothing. An error of kind Invalid concerns this frame
// alone (an invalid tenant or invalid labels, or a number of another tenant's series), unless Broken says that the
// stream is over.
func (d *StreamDecoder) Decode(payload []byte) (*Batch, error) {
	if d.broken != nil {
		return nil, d.broken
	}
	if len(payload) == 0 || payload[0] != numberedVersion {
		d.broken = errs.E(errs.Unsupported, "write frame of version %d in a stream of version %d",
			first(payload), numberedVersion)
		return nil, d.broken
	}
	f := frameReader{reader: reader{buf: payload, pos: 1, memory: maxFrameMemory}, StreamDecoder: d}
	id, err := tenant.Parse(string(f.bytes()))
	if err != nil { // numbers that the frame assigns are valid all the same
		f.refuse(err.Error())
	}
	f.batch = newPooled(id)
	for f.rest() > 0 {
		f.part()
	}
	switch {
	case d.broken != nil:
	case f.overspent():
		d.broken = overspent(id, len(payload))
	case f.failed:
		d.broken = errs.E(errs.Invalid, "write frame of %d bytes is damaged near byte %d", len(payload), f.pos)
	case f.fault == "":
		return f.batch, nil
	default:
		f.batch.Release()
		return nil, errs.E(errs.Invalid, "write frame: %s", f.fault)
	}
	f.batch.Release()
	return nil, d.broken
}

// frameReader reads one frame of a stream.
type frameReader struct {
	reader
	*StreamDecoder
	batch *Batch
	clock int64
	next  uint64 // the number after that of the series before
	fault string // why the frame is refused, though it can be read
}

// part reads one shard of the frame.
func (f *frameReader) part() {
	n := f.count(minNumbered)
	for left := n; left > 0; left-- {
		if have := len(f.batch.Series); have == cap(f.batch.Series) && f.fault == "" {
			// By what was read, and not by the number that the frame claims to have.
			f.batch.Series = slices.Grow(f.batch.Series, min(left, max(have, firstSeries)))
		}
		if f.fault != "" || !f.short() {
			f.series()
		}
		if f.failed {
			return
		}
	}
	f.batch.readMetadata(&f.reader)
}

// firstSeries is for how many series memory is taken at first.
const firstSeries = 256

// short reads a series as most are: named by its number, with one sample, all of it in the shortest form. It is false,
// and reads nothing, when the next series is different.
func (f *frameReader) short() bool {
	const size = 1 + 1 + 8
	if len(f.buf)-f.pos < size {
		return false
	}
	p := f.buf[f.pos : f.pos+size : f.pos+size]
	if p[0]&(0x80|calledAs|shapeMask) != calledNumber|shapeSample || p[1] >= 0x80 {
		return false
	}
	n := f.next + uint64(zigzag(uint64(p[0]>>headBits)))
	if n >= uint64(len(f.table)) {
		return false
	}
	one := f.table[n]
	b := f.batch
	if one.tenant != b.Tenant {
		return false
	}
	f.pos += size
	f.next = n + 1
	f.clock += zigzag(uint64(p[1]))
	f.spend(int(unsafe.Sizeof(Series{}) + unsafe.Sizeof(Sample{})))
	at := len(b.samples)
	b.samples = append(b.samples, Sample{T: f.clock, V: math.Float64frombits(binary.LittleEndian.Uint64(p[2:]))})
	b.Series = append(b.Series, Series{
		shared: one, size: int(one.size), Key: one.key, Hash: one.hash, Hint: &one.hint,
		Samples: b.samples[at : at+1 : at+1],
	})
	return true
}

// series reads any series.
func (f *frameReader) series() {
	head := f.uvarint()
	var s Series
	switch called := head & calledAs; called {
	case calledLabels:
		f.failed = f.failed || head>>headBits != 0
		if labels := f.bytes(); f.usable(labels) {
			s = f.batch.identify(labels)
		}
	case calledNumber, calledNew:
		n := f.next + uint64(zigzag(head>>headBits))
		f.next = n + 1
		if called == calledNew {
			f.give(n, f.bytes())
		}
		if f.failed || n >= uint64(len(f.table)) {
			f.failed = true
			return
		}
		one := f.table[n]
		if one.tenant != f.batch.Tenant {
			f.refuse("a number of another tenant's series, or of one that was refused")
		}
		s = Series{shared: one, size: int(one.size), Key: one.key, Hash: one.hash, Hint: &one.hint}
	default:
		f.failed = true
		return
	}
	f.clock = f.batch.readItems(&f.reader, s, f.clock, byte(head&shapeMask))
	if f.fault != "" {
		f.forget()
	}
}

// forget drops what was read of a frame that is refused. Only what the rest of it says of numbers still matters.
func (f *frameReader) forget() {
	b := f.batch
	clear(b.Series)
	b.Series = b.Series[:0]
	b.undo(mark{})
}

// usable reports whether labels may name a series of the frame's tenant.
func (f *frameReader) usable(labels []byte) bool {
	canonical := isCanonical(labels)
	if !canonical {
		f.refuse("labels that are not canonical")
	}
	return canonical && f.batch.Tenant != ""
}

// refuse makes why the fault of the frame, unless it has one.
func (f *frameReader) refuse(why string) {
	if f.fault == "" {
		f.fault = why
	}
}

// give assigns labels to number n: the next number, or one that is given to another series.
func (f *frameReader) give(n uint64, labels []byte) {
	if f.failed || n > uint64(len(f.table)) || len(labels) > maxNumberLabel {
		f.failed = true
		return
	}
	size := f.held + len(labels)
	if n < uint64(len(f.table)) {
		size -= int(f.table[n].size)
	}
	if n >= uint64(f.maxNumbers) || size > f.maxBytes {
		f.broken = errs.E(errs.Exhausted, "the stream has more than %d numbered series, or %d bytes of their labels",
			f.maxNumbers, f.maxBytes)
		f.failed = true
		return
	}
	made := unusable
	if f.usable(labels) {
		f.spend(int(unsafe.Sizeof(oneShared{})) + len(labels))
		f.full = append(AppendTenant(f.full[:0], f.batch.Tenant), labels...)
		if made = f.shared.hold(f.batch.Tenant, f.full); made == nil {
			f.broken = errs.E(errs.Exhausted, "the series that senders have given numbers to take %d bytes, as much as they may",
				f.shared.max)
			f.failed = true
			return
		}
	} else {
		size -= len(labels)
	}
	f.held = size
	if n == uint64(len(f.table)) {
		f.table = append(f.table, made)
		return
	}
	f.shared.release(f.table[n])
	f.table[n] = made
}
