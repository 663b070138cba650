package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// shardVersion is the first byte of a shard's bytes, described in docs/format/write-frame.md.
const shardVersion = 1

// Shapes of a series in a frame: what follows its labels.
const (
	shapeSample = 0 // one float sample without start timestamp
	shapeCounts = 1 // counts of samples, histograms and exemplars, then those
	shapeStarts = 2 // the same, and samples have start timestamps
)

// maxFrameMemory is how many bytes a decoded frame may take. A sender divides what is larger than a frame may be, so
// that no good frame comes near. But a few bytes can claim a whole series, so the memory is bounded and not the bytes.
const maxFrameMemory = 128 << 20

// FrameMemory is how many bytes at most a frame of that size takes once it is decoded. Whoever bounds the memory of
// frames asks for that much before decoding, and gives back what the batch did not take (Batch.Content).
func FrameMemory(frame int) int64 {
	const perByte = 24 // a series of one sample is ten bytes in a frame, and more than two hundred in memory
	return min(perByte*int64(frame), maxFrameMemory)
}

// AppendShard appends the bytes of s that travel between Hearth processes. DecodeShard reads them. It allocates only to
// grow dst.
func AppendShard(dst []byte, s Shard) []byte {
	dst = append(dst, shardVersion)
	dst = appendText(dst, string(s.Batch.Tenant))
	dst = binary.AppendUvarint(dst, uint64(len(s.Series)))
	var clock int64
	for _, i := range s.Series {
		one := &s.Batch.Series[i]
		shape := shapeOf(one)
		dst = append(one.appendSized(dst), shape)
		dst, clock = appendItems(dst, one, shape, clock)
	}
	return appendMetadata(dst, s)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendMetadata(dst []byte, s Shard) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s.Metadata)))
	for _, i := range s.Metadata {
		m := &s.Batch.Metadata[i]
		dst = appendText(dst, m.Family)
		dst = appendText(dst, m.Help)
		dst = appendText(dst, m.Unit)
		dst = appendText(dst, m.Type)
	}
	return dst
}

// shapeOf is the shortest shape that can hold all of s.
func shapeOf(s *Series) byte {
	if len(s.Samples) == 1 && s.Samples[0].ST == 0 && len(s.Histograms) == 0 && len(s.Exemplars) == 0 {
		return shapeSample
	}
	for i := range s.Samples {
		if s.Samples[i].ST != 0 {
			return shapeStarts
		}
	}
	return shapeCounts
}

// appendItems appends the samples, histograms and exemplars of s. clock is the timestamp that the next one is written
// relative to.
func appendItems(dst []byte, s *Series, shape byte, clock int64) ([]byte, int64) {
	if shape == shapeSample {
		dst = binary.AppendVarint(dst, s.Samples[0].T-clock)
		return appendDouble(dst, s.Samples[0].V), s.Samples[0].T
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Samples)))
	dst = binary.AppendUvarint(dst, uint64(len(s.Histograms)))
	dst = binary.AppendUvarint(dst, uint64(len(s.Exemplars)))
	for i := range s.Samples {
		p := &s.Samples[i]
		dst = binary.AppendVarint(dst, p.T-clock)
		clock = p.T
		if shape == shapeStarts {
			dst = binary.AppendVarint(dst, p.T-p.ST)
		}
		dst = appendDouble(dst, p.V)
	}
	for i := range s.Histograms {
		dst = binary.AppendVarint(dst, s.Histograms[i].T-clock)
		clock = s.Histograms[i].T
		dst = appendHistogram(dst, &s.Histograms[i])
	}
	for i := range s.Exemplars {
		e := &s.Exemplars[i]
		dst = binary.AppendVarint(dst, e.T-clock)
		clock = e.T
		dst = appendDouble(dst, e.V)
		dst = binary.AppendUvarint(dst, uint64(len(e.Labels)))
		dst = append(dst, e.Labels...)
	}
	return dst, clock
}

func appendDouble(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}

// DecodeShard reads what AppendShard wrote, into a pooled Batch of all its series with one reference. The batch shares
// nothing with payload. It trusts nothing: labels that are not canonical, or anything else that AppendShard does not
// write, are an error of kind Invalid; another version is one of kind Unsupported. Histograms are taken as they are.
func DecodeShard(payload []byte) (*Batch, error) {
	if len(payload) == 0 || payload[0] != shardVersion {
		return nil, errs.E(errs.Unsupported, "write frame of version %d, this process reads version %d",
			first(payload), shardVersion)
	}
	r := reader{buf: payload, pos: 1, memory: maxFrameMemory}
	id, err := tenant.Parse(string(r.bytes()))
	if err != nil {
		return nil, errs.E(errs.Invalid, "write frame: %w", err)
	}
	b := newPooled(id)
	var clock int64
	for range r.count(minSeries) {
		if clock = b.readSeries(&r, clock); r.failed {
			break
		}
	}
	b.readMetadata(&r)
	if r.overspent() {
		b.Release()
		return nil, overspent(id, len(payload))
	}
	if r.failed || r.pos != len(payload) {
		b.Release()
		return nil, errs.E(errs.Invalid, "write frame of %d bytes is damaged near byte %d", len(payload), r.pos)
	}
	return b, nil
}

// overspent is the error of a frame that would take too much memory.
func overspent(id tenant.ID, size int) error {
	return errs.E(errs.TooLarge, "write frame of %d bytes for tenant %q would take more than %d bytes of memory",
		size, id, maxFrameMemory)
}

func first(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	return int(b[0])
}

// The fewest bytes that items of a list take, so that a count is never believed beyond what can follow.
const (
	minSeries   = 9  // length, the shortest label, shape, three counts
	minSample   = 9  // timestamp, value
	minExemplar = 10 // timestamp, value, length
	minMetadata = 4  // four lengths
)

func (b *Batch) readMetadata(r *reader) {
	for range r.count(minMetadata) {
		if r.failed {
			return
		}
		from := r.pos
		m := Metadata{Family: string(r.bytes()), Help: string(r.bytes()), Unit: string(r.bytes()), Type: string(r.bytes())}
		r.spend(metadataSize + r.pos - from)
		b.Metadata = append(b.Metadata, m)
	}
}

// readSeries reads one series into b and returns the clock after it.
func (b *Batch) readSeries(r *reader, clock int64) int64 {
	labels := r.bytes()
	if !isCanonical(labels) {
		r.failed = true
		return clock
	}
	s := b.identify(labels)
	return b.readItems(r, s, clock, r.byte())
}

// identify is the series of canonical labels, which are copied.
func (b *Batch) identify(labels []byte) Series {
	from := len(b.canonical)
	b.canonical = append(AppendTenant(b.canonical, b.Tenant), labels...)
	key, hash := Identify(b.canonical[from:])
	return Series{labels: since(b.canonical, len(b.canonical)-len(labels)), size: len(labels), Key: key, Hash: hash}
}

// readItems reads what s has, adds s to b and returns the clock after it.
func (b *Batch) readItems(r *reader, s Series, clock int64, shape byte) int64 {
	r.spend(int(unsafe.Sizeof(s)) + len(s.labels))
	at := b.mark()
	switch shape {
	case shapeSample:
		clock += r.varint()
		b.samples = append(b.samples, Sample{T: clock, V: r.double()})
	case shapeCounts, shapeStarts:
		clock = b.readCounted(r, clock, shape)
	default:
		r.failed = true
	}
	s.Samples = since(b.samples, at.samples)
	s.Histograms = since(b.histograms, at.histograms)
	s.Exemplars = since(b.exemplars, at.exemplars)
	b.Series = append(b.Series, s)
	return clock
}

// readCounted reads the three lists of a series.
func (b *Batch) readCounted(r *reader, clock int64, shape byte) int64 {
	samples, histograms, exemplars := r.count(minSample), r.count(minHistogram), r.count(minExemplar)
	r.spend(samples * int(unsafe.Sizeof(Sample{})))
	for range samples {
		if r.failed {
			break
		}
		clock += r.varint()
		s := Sample{T: clock}
		if shape == shapeStarts {
			s.ST = clock - r.varint()
		}
		s.V = r.double()
		b.samples = append(b.samples, s)
	}
	for range histograms {
		if r.failed {
			break
		}
		clock += r.varint()
		h := readHistogram(r, clock)
		if r.failed {
			break
		}
		r.spend(int(unsafe.Sizeof(h)) + histogramSize + h.memory())
		b.histograms = append(b.histograms, h)
	}
	for range exemplars {
		if r.failed {
			break
		}
		r.spend(int(unsafe.Sizeof(Exemplar{})))
		clock += r.varint()
		e := Exemplar{T: clock, V: r.double()}
		labels := r.bytes()
		if len(labels) > 0 {
			if !isCanonical(labels) {
				r.failed = true
				break
			}
			from := len(b.canonical)
			b.canonical = append(b.canonical, labels...)
			e.Labels = since(b.canonical, from)
		}
		b.exemplars = append(b.exemplars, e)
	}
	return clock
}

// isCanonical reports whether labels are well-formed: one or more of name Sep value Sep, neither empty, names
// ascending, all of it UTF-8.
func isCanonical(labels []byte) bool {
	return isASCIICanonical(labels) || isGeneralCanonical(labels)
}

func isGeneralCanonical(labels []byte) bool {
	rest := labels
	var last []byte
	for len(rest) > 0 {
		i := bytes.IndexByte(rest, Sep)
		if i <= 0 || i > MaxLabelLength {
			return false
		}
		name := rest[:i]
		rest = rest[i+1:]
		j := bytes.IndexByte(rest, Sep)
		if j <= 0 || j > MaxLabelLength || bytes.Compare(last, name) >= 0 {
			return false
		}
		last, rest = name, rest[j+1:]
	}
	return len(labels) > 0 && isText(labels)
}

// isText reports whether all labels of well-formed canonical bytes are UTF-8.
func isText(labels []byte) bool {
	for len(labels) > 0 {
		i := bytes.IndexByte(labels, Sep)
		if !utf8.Valid(labels[:i]) {
			return false
		}
		labels = labels[i+1:]
	}
	return true
}
