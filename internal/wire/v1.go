package wire

import (
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// DecodeV1 decodes msg, the bytes of an uncompressed prometheus.WriteRequest (remote write 1.0) of tenant id. The Batch
// has one reference and shares nothing with msg. Series with unusable labels and invalid histograms or exemplars are in
// Rejected, and the rest stands. A message that is not a WriteRequest is an error of kind Invalid, one that would take
// many times its size in memory of kind TooLarge.
//
// Labels are read by one of two paths with the same result. The fast one (ASCII, sorted, no empty value, each label a
// name and a value: what senders send) writes canonical bytes as it reads. The general one collects, sorts and checks.
func DecodeV1(id tenant.ID, msg []byte) (*Batch, error) {
	b, err := (*SeriesCache)(nil).DecodeV1(id, msg, nil)
	if err == nil {
		b.msg = nil
	}
	return b, err
}

// DecodeV1 is the function DecodeV1 with a budget for the memory of the Batch, and faster for series that k knows. The
// batch refers to msg, which must not change before the last Release. Batch.Own makes sure of that.
func (k *SeriesCache) DecodeV1(id tenant.ID, msg []byte, budget Budget) (*Batch, error) {
	if err := checkSize(msg); err != nil {
		return nil, err
	}
	b := newPooled(id)
	b.msg, b.limit = msg[:len(msg):len(msg)], maxExpansion(len(msg))
	b.look = k.lookup(id)
	b.within(budget)
	pos := b.requestV1(b.msg)
	if pos < 0 {
		err := b.fail("1.0", pos)
		b.Release()
		return nil, err
	}
	return b.merged()
}

// requestV1 reads a WriteRequest: field 1 is series, 3 metadata.
func (b *Batch) requestV1(msg []byte) int {
	pos := 0
	for pos < len(msg) {
		if b.look.known != nil && b.behind == len(b.ahead) {
			b.lookAheadV1(msg, pos)
		}
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
		next, end := bytesField(msg, next, typ)
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
	if len(b.Series) >= b.allowed[arenaSeries] && !b.allowMore(arenaSeries, len(b.Series)) {
		return faultExpand
	}
	at := b.mark()
	b.pairs = b.pairs[:0]
	if b.look.known == nil {
		return b.newSeriesV1(m, pos, at)
	}
	spelled, id := b.rawLabelsV1(m, pos)
	if slot := b.look.get(id); slot != nil {
		end := b.fieldsV1(m, pos+len(spelled), true)
		if end != faultAgain {
			if end >= 0 && !b.keepCached(at, slot, spelled) {
				return faultExpand
			}
			return end
		}
		b.undo(at)
	}
	n := len(b.Series)
	end := b.newSeriesV1(m, pos, at)
	if len(b.Series) > n && end >= 0 && b.isAllOf(spelled) {
		b.remember(&b.Series[n], id, 0)
	}
	return end
}

// rawSeries is how a TimeSeries names its labels: by the bytes up to end. id is their hash.
type rawSeries struct {
	id        Key
	from, end int
}

// maxAhead is how many series are looked at ahead at a time, which bounds the memory that it takes.
const maxAhead = 4096

// lookAheadV1 hashes the bytes that name the next series of msg, and prefetches what the cache has of them. That memory
// is far away, and comes for many series at a time (BenchmarkKnownMany: a fifth). It goes as far as the message is as
// most are.
func (b *Batch) lookAheadV1(msg []byte, pos int) {
	ahead := b.ahead[:0]
	for len(ahead) < maxAhead && pos < len(msg) && msg[pos] == 1<<3|typeBytes {
		from, end := bytesField(msg, pos+1, typeBytes)
		if from < 0 {
			break
		}
		to := rawLabelsEnd(msg[:end], from)
		ahead = append(ahead, rawSeries{b.look.spelled(msg[from:to]), from, to})
		pos = end
	}
	b.ahead, b.behind = ahead, 0
	b.look.prefetch(ahead)
}

// rawLabelsV1 is the bytes that name the TimeSeries m[pos:], and their hash.
func (b *Batch) rawLabelsV1(m []byte, pos int) ([]byte, Key) {
	if b.behind < len(b.ahead) {
		if n := &b.ahead[b.behind]; n.from == pos {
			b.behind++
			return m[pos:n.end], n.id
		}
	}
	spelled := m[pos:rawLabelsEnd(m, pos)]
	return spelled, b.look.spelled(spelled)
}

// newSeriesV1 reads a TimeSeries, m[pos:], with its labels.
func (b *Batch) newSeriesV1(m []byte, pos int, at mark) int {
	if !b.mayAppend(len(b.Tenant) + 1 + len(m) - pos) {
		return faultExpand
	}
	b.canonical = AppendTenant(b.canonical, b.Tenant)
	if next, ok := b.asciiLabels(m, pos); ok {
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

// rawLabelsEnd is where the labels end with which a TimeSeries, m[pos:], begins. It is a guess, which need not be
// right: what the cache knows of the bytes up to there was learned of labels.
func rawLabelsEnd(m []byte, pos int) int {
	const size = 18 // of the one sample that nearly all have, with a time between 2004 and 2109
	if n := len(m) - size; n > pos {
		t := m[n:]
		if t[0] == 2<<3|typeBytes && t[1] == size-2 && t[2] == 1<<3|typeFixed64 && t[11] == 2<<3|typeVarint {
			return n
		}
	}
	for pos < len(m) && m[pos] == labelTag {
		_, end := bytesField(m, pos+1, typeBytes)
		if end < 0 {
			break
		}
		pos = end
	}
	return pos
}

// isAllOf reports whether the last series has its labels from spelled, all of it and nothing else.
func (b *Batch) isAllOf(spelled []byte) bool {
	at, labels := 0, 0
	for at < len(spelled) && spelled[at] == labelTag {
		_, end := bytesField(spelled, at+1, typeBytes)
		if end < 0 {
			return false
		}
		at = end
		labels++
	}
	return at == len(spelled) && labels > 0 && (len(b.pairs) == labels || len(b.pairs) == 0)
}

// asciiLabels appends the labels that m has from pos on to the canonical arena and says where they end. It is not ok,
// and the arena cannot be used, when they are not ASCII and sorted.
func (b *Batch) asciiLabels(m []byte, pos int) (next int, ok bool) {
	if len(m)-pos > MaxLabelLength {
		return pos, false
	}
	w := newASCIIWriter(b.canonical, len(m)-pos)
	for {
		pos = w.shortLabels(m, pos)
		if pos == len(m) || m[pos] != labelTag {
			break
		}
		nameAt, nameEnd, valueAt, end := splitLabel(m, pos)
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
	return pos, w.hasName && w.high == 0
}

// The first bytes of fields: Label in TimeSeries, name and value in Label.
const (
	labelTag = 1<<3 | typeBytes
	nameTag  = 1<<3 | typeBytes
	valueTag = 2<<3 | typeBytes
)

// splitLabel takes apart the label field at pos that is exactly one name and one value, neither empty. For any other
// field all it returns is 0.
func splitLabel(m []byte, pos int) (nameAt, nameEnd, valueAt, end int) {
	at, end := bytesField(m, pos+1, typeBytes)
	if at < 0 || at >= end || m[at] != nameTag {
		return 0, 0, 0, 0
	}
	m = m[:end]
	nameAt, nameEnd = bytesField(m, at+1, typeBytes)
	if nameAt < 0 || nameAt == nameEnd || nameEnd == end || m[nameEnd] != valueTag {
		return 0, 0, 0, 0
	}
	valueAt, valueEnd := bytesField(m, nameEnd+1, typeBytes)
	if valueAt < 0 || valueAt == valueEnd || valueEnd != end {
		return 0, 0, 0, 0
	}
	return nameAt, nameEnd, valueAt, end
}

// fieldsV1 reads the fields of a TimeSeries. Labels go to pairs, unless they were read by asciiLabels (plain): then a
// further label is faultAgain.
func (b *Batch) fieldsV1(m []byte, pos int, plain bool) int {
	for pos < len(m) {
		num, at, end := nextField(m, pos, 1<<1|1<<2|1<<3|1<<4)
		switch num {
		case 0:
			return at
		case 1:
			if plain {
				return faultAgain
			}
			pos = b.labelV1(m[:end], at)
		case 2:
			pos = b.sample(m[:end], at, false)
		case 3:
			pos = b.exemplarV1(m[:end], at)
		case 4:
			pos = b.histogram(m[:end], at, false)
		}
		if pos < 0 {
			return pos
		}
	}
	return pos
}

// labelV1 reads a Label message into pairs.
func (b *Batch) labelV1(m []byte, pos int) int {
	if len(b.pairs) >= b.allowed[arenaPairs] && !b.allowMore(arenaPairs, len(b.pairs)) {
		return faultExpand
	}
	var p pair
	for pos < len(m) {
		num, at, end := nextField(m, pos, 1<<1|1<<2)
		switch num {
		case 0:
			if at < 0 {
				return at
			}
			end = at
		case 1:
			p.nameAt, p.nameLen = uint32(at), uint32(end-at)
		default:
			p.valueAt, p.valueLen = uint32(at), uint32(end-at)
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
			if next, end = bytesField(m, next, typ); next >= 0 {
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
