package wire

import (
	"encoding/binary"
	"math"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// DecodeV1 decodes msg, the bytes of an uncompressed prometheus.WriteRequest (remote write 1.0) of tenant id. The Batch
// has one reference and nothing in common with msg. Series with unusable labels and invalid histograms or exemplars are
// in Rejected, the rest stands; a message that is not a WriteRequest is an error of kind Invalid, one that would take many
// times its size in memory of kind TooLarge.
//
// Labels are read by one of two paths with the same result: the plain one (ASCII, sorted, no empty value, each label a
// name and a value: what senders send) writes canonical bytes as it reads; the general one collects, sorts and checks.
func DecodeV1(id tenant.ID, msg []byte) (*Batch, error) {
	if err := checkSize(msg); err != nil {
		return nil, err
	}
	b := newPooled(id)
	b.msg, b.limit = msg[:len(msg):len(msg)], maxExpansion(len(msg))
	if pos := b.requestV1(b.msg); pos < 0 {
		b.Release()
		return nil, decodeError("1.0", pos)
	}
	b.msg = nil
	return b, nil
}

// maxMessage is the largest message whose places fit a pair.
const maxMessage = 1<<32 - 1

// maxExpansion bounds what a message of n bytes may ask for beyond what it says itself: bytes of labels and metadata by
// referring to symbols many times, and histograms and exemplars of next to no bytes. Real requests stay far below.
func maxExpansion(n int) int { return 64<<20 + 16*n }

// charge takes n bytes off what the message may still ask for, and reports whether there were so many.
func (b *Batch) charge(n int) bool {
	b.limit -= n
	return b.limit >= len(b.canonical)
}

func decodeError(version string, fault int) error {
	kind := errs.Invalid
	if fault == faultExpand {
		kind = errs.TooLarge
	}
	return errs.E(kind, "remote write %s message %s", version, faultText(fault))
}

func checkSize(msg []byte) error {
	if len(msg) > maxMessage {
		return errs.E(errs.TooLarge, "message of %d bytes is larger than %d", len(msg), maxMessage)
	}
	return nil
}

func (b *Batch) requestV1(msg []byte) int {
	pos := 0
	for pos < len(msg) {
		num, typ, next := tag(msg, pos)
		if next < 0 {
			return next
		}
		if num != 1 && num != 3 {
			if pos = skip(msg, next, typ); pos < 0 {
				return pos
			}
			continue
		}
		next, end := span(msg, next, typ)
		if next < 0 {
			return next
		}
		if num == 1 {
			pos = b.seriesV1(msg[:end], next)
		} else {
			pos = b.metadataV1(msg[:end], next)
		}
		if pos < 0 {
			return pos
		}
	}
	return pos
}

// seriesV1 reads one TimeSeries, m[pos:].
func (b *Batch) seriesV1(m []byte, pos int) int {
	at := b.mark()
	b.pairs = b.pairs[:0]
	b.canonical = AppendTenant(b.canonical, b.Tenant)
	if next, ok := b.plainLabels(m, pos); ok {
		labelsEnd := len(b.canonical)
		switch end := b.fieldsV1(m, next, true); {
		case end >= 0:
			b.keep(at, b.canonical[at.canonical:labelsEnd])
			return end
		case end != faultAgain:
			return end
		}
	}
	b.undo(at)
	end := b.fieldsV1(m, pos, false)
	if end < 0 {
		return end
	}
	if full, ok := b.finish(at); ok {
		b.keep(at, full)
	}
	return end
}

// finish makes the canonical bytes, with the tenant, of the collected pairs, or rejects the series that began at at.
func (b *Batch) finish(at mark) (canonical []byte, ok bool) {
	from := len(b.canonical)
	b.canonical = AppendTenant(b.canonical, b.Tenant)
	prefix := len(b.canonical)
	out, fault := canonicalize(b.canonical, b.msg, b.pairs)
	if fault == "" && valueOf(out[prefix:], nameLabel) == nil {
		fault = "no metric name"
	}
	if fault != "" {
		b.drop(at, func() string { return fault + " in " + textOfPairs(b.msg, b.pairs) })
		return nil, false
	}
	b.canonical = out
	return out[from:], true
}

// drop rejects the series that began at at, with all it brought.
func (b *Batch) drop(at mark, reason func() string) {
	f := b.lost
	f.Samples += len(b.samples) - at.samples
	f.Histograms += len(b.histograms) - at.histograms
	f.Exemplars += len(b.exemplars) - at.exemplars
	b.reject(f, reason)
	b.undo(at)
}

// keep adds the series that began at at; full are its canonical bytes with the tenant. A series that brought nothing is
// not kept.
func (b *Batch) keep(at mark, full []byte) {
	if b.lost.Histograms+b.lost.Exemplars > 0 {
		labels := full[len(b.Tenant)+1:]
		b.reject(b.lost, func() string { return b.lost.Reason + " in " + textOf(labels) })
		b.lost = Failure{}
	}
	if len(b.samples) == at.samples && len(b.histograms) == at.histograms && len(b.exemplars) == at.exemplars {
		b.undo(at)
		return
	}
	key, hash := Identify(full)
	b.Series = append(b.Series, Series{
		Labels:     full[len(b.Tenant)+1 : len(full) : len(full)],
		Key:        key,
		Hash:       hash,
		Samples:    since(b.samples, at.samples),
		Histograms: since(b.histograms, at.histograms),
		Exemplars:  since(b.exemplars, at.exemplars),
	})
}

// since is what was added to an arena from n on, nil if nothing, with no room to grow into what follows.
func since[T any](arena []T, n int) []T {
	if len(arena) == n {
		return nil
	}
	return arena[n:len(arena):len(arena)]
}

// plainLabels appends the labels that m has from pos on to the canonical arena and says where they end. It is not ok,
// and the arena of no use, when they are not plain.
func (b *Batch) plainLabels(m []byte, pos int) (next int, ok bool) {
	if len(m)-pos > MaxLabelLength {
		return pos, false
	}
	w := newPlainWriter(b.canonical, len(m)-pos)
	for pos < len(m) && m[pos] == 1<<3|typeBytes {
		nameAt, nameEnd, valueAt, end := shortLabel(m, pos)
		if end == 0 {
			nameAt, nameEnd, valueAt, end = longLabel(m, pos)
		}
		if end == 0 {
			return pos, false
		}
		name := m[nameAt:nameEnd]
		if !w.next(prefixOf(name), name) {
			return pos, false
		}
		w.add(name, m[valueAt:end])
		pos = end
	}
	b.canonical = w.dst[:w.at]
	return pos, w.named && w.high == 0
}

// shortLabel takes a label field of less than 128 bytes apart that is exactly one name and one value, neither empty; else
// all it returns is 0.
func shortLabel(m []byte, pos int) (nameAt, nameEnd, valueAt, end int) {
	if len(m)-pos < 8 {
		return 0, 0, 0, 0
	}
	size, nameSize := int(m[pos+1]), int(m[pos+3])
	nameEnd, end = pos+4+nameSize, pos+2+size
	if size >= 0x80 || m[pos+2] != 1<<3|typeBytes || nameSize == 0 || end > len(m) || nameEnd+2 >= end ||
		m[nameEnd] != 2<<3|typeBytes || nameEnd+2+int(m[nameEnd+1]) != end {
		return 0, 0, 0, 0
	}
	return pos + 4, nameEnd, nameEnd + 2, end
}

// longLabel is shortLabel for labels of any length.
func longLabel(m []byte, pos int) (nameAt, nameEnd, valueAt, end int) {
	at, end := span(m, pos+1, typeBytes)
	if at < 0 || at >= end || m[at] != 1<<3|typeBytes {
		return 0, 0, 0, 0
	}
	m = m[:end]
	nameAt, nameEnd = span(m, at+1, typeBytes)
	if nameAt < 0 || nameAt == nameEnd || nameEnd == end || m[nameEnd] != 2<<3|typeBytes {
		return 0, 0, 0, 0
	}
	valueAt, valueEnd := span(m, nameEnd+1, typeBytes)
	if valueAt < 0 || valueAt == valueEnd || valueEnd != end {
		return 0, 0, 0, 0
	}
	return nameAt, nameEnd, valueAt, end
}

// fieldsV1 reads the fields of a TimeSeries. Labels go to pairs, unless they are plain and done: then a further one is
// faultAgain.
func (b *Batch) fieldsV1(m []byte, pos int, plain bool) int {
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		if num > 4 {
			if pos = skip(m, next, typ); pos < 0 {
				return pos
			}
			continue
		}
		next, end := span(m, next, typ)
		if next < 0 {
			return next
		}
		switch num {
		case 1:
			if plain {
				return faultAgain
			}
			pos = b.labelV1(m[:end], next)
		case 2:
			pos = b.sample(m[:end], next, false)
		case 3:
			pos = b.exemplarV1(m[:end], next)
		case 4:
			pos = b.histogram(m[:end], next, false)
		}
		if pos < 0 {
			return pos
		}
	}
	return pos
}

// labelV1 reads a Label message into pairs.
func (b *Batch) labelV1(m []byte, pos int) int {
	var p pair
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		if num > 2 {
			if pos = skip(m, next, typ); pos < 0 {
				return pos
			}
			continue
		}
		next, end := span(m, next, typ)
		if next < 0 {
			return next
		}
		if num == 1 {
			p.nameAt, p.nameLen = uint32(next), uint32(end-next)
		} else {
			p.valueAt, p.valueLen = uint32(next), uint32(end-next)
		}
		pos = end
	}
	b.pairs = append(b.pairs, p)
	return pos
}

// exemplarV1 reads an Exemplar message.
func (b *Batch) exemplarV1(m []byte, pos int) int {
	first := len(b.pairs)
	var e Exemplar
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		switch num {
		case 1:
			var end int
			if next, end = span(m, next, typ); next >= 0 {
				next = b.labelV1(m[:end], next)
			}
		case 2:
			e.V, next = double(m, next, typ)
		case 3:
			var v uint64
			v, next = number(m, next, typ)
			e.T = int64(v)
		default:
			next = skip(m, next, typ)
		}
		if pos = next; pos < 0 {
			return pos
		}
	}
	if !b.exemplar(e, first) {
		return faultExpand
	}
	return pos
}

// exemplar adds e with the labels of pairs[first:], or counts it as lost. It is false when the message asks for too much.
func (b *Batch) exemplar(e Exemplar, first int) bool {
	if !b.charge(exemplarSize) || len(b.canonical)+canonicalBytes(b.pairs[first:]) > b.limit {
		return false
	}
	from := len(b.canonical)
	out, fault := canonicalize(b.canonical, b.msg, b.pairs[first:])
	b.pairs = b.pairs[:first]
	if fault != "" {
		b.loseExemplar(fault)
		return true
	}
	b.canonical = out
	e.Labels = since(b.canonical, from)
	b.exemplars = append(b.exemplars, e)
	return true
}

// What a histogram and an exemplar cost at least, in bytes, with the growth of arenas.
const (
	histogramSize = 256
	exemplarSize  = 64
)

func (b *Batch) loseExemplar(fault string) {
	b.lost.Exemplars++
	if b.lost.Reason == "" {
		b.lost.Reason = "exemplar: " + fault
	}
}

// sample reads a Sample message; the start timestamp is a field of remote write 2.0 only.
func (b *Batch) sample(m []byte, pos int, v2 bool) int {
	var s Sample
	if pos+11 <= len(m) && m[pos] == 1<<3|typeFixed64 && m[pos+9] == 2<<3|typeVarint { // what senders send
		s.V = math.Float64frombits(binary.LittleEndian.Uint64(m[pos+1:]))
		v, next := uvarint(m, pos+10)
		if next < 0 {
			return next
		}
		s.T, pos = int64(v), next
	}
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		var v uint64
		switch {
		case num == 1:
			s.V, next = double(m, next, typ)
		case num == 2:
			v, next = number(m, next, typ)
			s.T = int64(v)
		case num == 3 && v2:
			v, next = number(m, next, typ)
			s.ST = int64(v)
		default:
			next = skip(m, next, typ)
		}
		if pos = next; pos < 0 {
			return pos
		}
	}
	b.samples = append(b.samples, s)
	return pos
}
