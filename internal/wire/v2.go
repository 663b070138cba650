package wire

import (
	"slices"
	"unicode/utf8"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// DecodeV2 decodes msg, the bytes of an uncompressed io.prometheus.write.v2.Request of tenant id, like DecodeV1. It
// also rejects series whose label references are odd in number or outside of the symbol table, and series without any
// sample.
func DecodeV2(id tenant.ID, msg []byte) (*Batch, error) {
	b, err := (*SeriesCache)(nil).DecodeV2(id, msg, nil)
	if err == nil {
		b.msg = nil
	}
	return b, err
}

// DecodeV2 is the function DecodeV2 with a budget for the memory of the Batch, and faster for series that k knows. The
// batch refers to msg, which must not change before the last Release. Batch.Own makes sure of that.
func (k *SeriesCache) DecodeV2(id tenant.ID, msg []byte, budget Budget) (*Batch, error) {
	if err := checkSize(msg); err != nil {
		return nil, err
	}
	b := newPooled(id)
	b.msg, b.limit = msg[:len(msg):len(msg)], maxExpansion(len(msg))
	b.look, b.v2 = k.lookup(id), true
	b.within(budget)
	pos := b.symbolsV2(b.msg)
	if pos >= 0 {
		pos = b.requestV2(b.msg)
	}
	if pos < 0 {
		err := b.fail("2.0", pos)
		b.Release()
		return nil, err
	}
	return b.merged()
}

// symbol is an entry of the symbol table by its place in the message.
type symbol struct{ at, size uint32 }

func (s *symbol) bytes(msg []byte) []byte { return msg[s.at : s.at+s.size] }

// symbolsV2 reads the symbol table, which may stand anywhere in the message.
func (b *Batch) symbolsV2(msg []byte) int {
	b.symbols, b.hashes, b.tableRead = b.symbols[:0], b.hashes[:0], false
	pos := 0
	for pos < len(msg) {
		if msg[pos] == 5<<3|typeBytes { // most fields are series
			if _, pos = bytesField(msg, pos+1, typeBytes); pos < 0 {
				return pos
			}
			continue
		}
		num, at, end := nextField(msg, pos, 1<<4)
		if num == 0 {
			pos = at
			break
		}
		if len(b.symbols) >= b.allowed[arenaSymbols] && !b.allowMore(arenaSymbols, len(b.symbols)) {
			return faultExpand
		}
		b.symbols = append(b.symbols, symbol{uint32(at), uint32(end - at)})
		if b.look.known != nil {
			b.hashes = append(b.hashes, hash128(msg[at:end]))
		}
		pos = end
	}
	if pos < 0 {
		return pos
	}
	if len(b.symbols) > 0 && b.symbols[0].size > 0 {
		return faultTable
	}
	b.families.grow(len(b.symbols))
	return pos
}

// usableSymbols reports whether every symbol may be used in a label as it is. A request of known series does not need
// to know.
func (b *Batch) usableSymbols() bool {
	if !b.tableRead {
		b.tableRead, b.tableUsable = true, !slices.ContainsFunc(b.symbols, func(s symbol) bool {
			return s.size > MaxLabelLength || !utf8.Valid(s.bytes(b.msg))
		})
	}
	return b.tableUsable
}

// requestV2 reads the series of a Request, field 5.
func (b *Batch) requestV2(msg []byte) int {
	pos := 0
	for pos < len(msg) {
		if b.look.known != nil && b.behind == len(b.ahead) {
			b.lookAheadV2(msg, pos)
		}
		num, typ, next := tag(msg, pos)
		if next < 0 {
			return next
		}
		if num != 5 {
			if pos = skip(msg, next, typ); pos < 0 {
				return pos
			}
			continue
		}
		next, end := bytesField(msg, next, typ)
		if next < 0 {
			return next
		}
		if pos = b.seriesV2(msg[:end], next); pos < 0 {
			return pos
		}
	}
	return pos
}

// seriesV2 reads one TimeSeries, m[pos:].
func (b *Batch) seriesV2(m []byte, pos int) int {
	if len(b.Series) >= b.allowed[arenaSeries] && !b.allowMore(arenaSeries, len(b.Series)) {
		return faultExpand
	}
	at := b.mark()
	b.pairs, b.refIdx = b.pairs[:0], b.refIdx[:0]
	n := b.nextAhead(pos)
	if n == nil {
		return b.newSeriesV2(m, pos, at, nil)
	}
	if slot := b.look.get(n.id); slot != nil {
		if end := b.cachedV2(m, n, at, slot); end != faultAgain {
			return end
		}
		b.undo(at)
		b.pairs, b.refIdx = b.pairs[:0], b.refIdx[:0]
	}
	return b.newSeriesV2(m, pos, at, n)
}

// lookAheadV2 is lookAheadV1 for remote write 2.0. It hashes what the references at the start of a series stand for.
func (b *Batch) lookAheadV2(msg []byte, pos int) {
	ahead := b.ahead[:0]
	for len(ahead) < maxAhead && pos < len(msg) && msg[pos] == 5<<3|typeBytes {
		from, end := bytesField(msg, pos+1, typeBytes)
		if from < 0 {
			break
		}
		n := rawSeries{from: from}
		if from < end && msg[from] == 1<<3|typeBytes {
			if at, to := bytesField(msg[:end], from+1, typeBytes); at >= 0 && at < to {
				var ok bool
				if n.id, ok = b.look.hashRefs(msg[at:to], b.hashes); ok {
					n.end = to
				}
			}
		}
		ahead = append(ahead, n)
		pos = end
	}
	b.ahead, b.behind = ahead, 0
	b.look.prefetch(ahead)
}

// nextAhead is how the TimeSeries at pos names its labels, nil if that was not looked at, or cannot be used.
func (b *Batch) nextAhead(pos int) *rawSeries {
	if b.behind >= len(b.ahead) || b.ahead[b.behind].from != pos {
		return nil
	}
	n := &b.ahead[b.behind]
	b.behind++
	if n.end == 0 {
		return nil
	}
	return n
}

// cachedV2 reads a TimeSeries of m whose labels are known to be those of slot. It is faultAgain when the series has
// more of them.
func (b *Batch) cachedV2(m []byte, n *rawSeries, at mark, slot *cacheSlot) int {
	spelled := m[n.from+1 : n.end]
	var meta metadataV2
	pos := n.end
	for pos < len(m) {
		if end := shortField(m, pos); end > 0 {
			pos = b.contentV2(m[:end], pos+2, m[pos]>>3, &meta)
		} else {
			num, typ, next := tag(m, pos)
			switch {
			case next < 0:
				return next
			case num == 1:
				return faultAgain
			case num > 5:
				pos = skip(m, next, typ)
			default:
				pos = b.fieldV2(m, next, num, typ, &meta)
			}
		}
		if pos < 0 {
			return pos
		}
	}
	if fault := b.faultV2(at, &meta); fault != "" {
		b.drop(at, func() string { return fault + " in " + textOf(b.decodeRaw(nil, spelled)) })
		return pos
	}
	if !b.keepCached(at, slot, spelled) {
		return faultExpand
	}
	told := b.markV2(&meta)
	if slot.told.Load() == told {
		return pos
	}
	meta.name = refAt(spelled, int(slot.name))
	if !b.metadataV2(&meta, nil) {
		return faultExpand
	}
	slot.told.Store(told)
	return pos
}

// refAt is reference i of a packed list with its length, cut to 32 bits like all of them; -1 if there is none.
func refAt(spelled []byte, i int) int {
	pos, _ := bytesField(spelled, 0, typeBytes)
	var v uint64
	for range i + 1 {
		if v, pos = uvarint(spelled, pos); pos < 0 {
			return -1
		}
	}
	return int(uint32(v))
}

// newSeriesV2 reads a TimeSeries, m[pos:], with its labels. The cache remembers them as n, unless that is nil.
func (b *Batch) newSeriesV2(m []byte, pos int, at mark, n *rawSeries) int {
	var meta metadataV2
	lists := 0
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		switch {
		case num == 1:
			lists++
			pos = b.refsV2(m, next, typ)
		case num > 5:
			pos = skip(m, next, typ)
		default:
			pos = b.fieldV2(m, next, num, typ, &meta)
		}
		if pos < 0 {
			return pos
		}
	}
	series, name := len(b.Series), 0
	if n != nil {
		name = b.metricRef()
	}
	if fault := b.endV2(at, &meta); fault < 0 {
		return fault
	}
	if n != nil && lists == 1 && len(b.Series) > series {
		b.remember(&b.Series[series], n.id, name)
	}
	return pos
}

// metricRef is where in refIdx the value of the metric name is, 0 if nowhere.
func (b *Batch) metricRef() int {
	for i := 0; i+1 < len(b.refIdx); i += 2 {
		if r := int(b.refIdx[i]); r < len(b.symbols) && string(b.symbols[r].bytes(b.msg)) == nameLabel {
			return i + 1
		}
	}
	return 0
}

// faultV2 is what is wrong with a series apart from its labels, "" = nothing.
func (b *Batch) faultV2(at mark, meta *metadataV2) string {
	switch {
	case int(meta.help) >= len(b.symbols) || int(meta.unit) >= len(b.symbols):
		return "a metadata reference outside of the symbol table"
	case b.empty(at):
		return "no sample"
	}
	return ""
}

// endV2 keeps the series that began at at, unless it is one that remote write 2.0 forbids. It returns 0 or a fault.
func (b *Batch) endV2(at mark, meta *metadataV2) int {
	full, name := b.sortedRefs()
	if full == nil {
		if fault := b.resolve(0); fault != "" {
			b.drop(at, func() string { return "series with " + fault })
			return 0
		}
		if !b.mayAppend(canonicalBytes(b.pairs)) {
			return faultExpand
		}
		var ok bool
		if full, ok = b.finish(at); !ok {
			return 0
		}
	}
	labels := full[len(b.Tenant)+1:]
	if fault := b.faultV2(at, meta); fault != "" {
		b.drop(at, func() string { return fault + " in " + textOf(labels) })
		return 0
	}
	b.keep(at, full)
	meta.name = name
	if !b.metadataV2(meta, labels) {
		return faultExpand
	}
	return 0
}

// empty reports whether the series that began at at brought nothing. Exemplars alone are something. The specification
// wants a sample beside them, but Prometheus's own sender puts them into a series message of their own.
func (b *Batch) empty(at mark) bool {
	return b.mark() == mark{len(b.canonical), at.samples, at.histograms, at.exemplars} &&
		b.lost.Histograms == 0 && b.lost.Exemplars == 0
}

// sortedRefs appends the labels that refIdx refers to to the canonical arena, and returns their bytes with the tenant
// and which symbol the metric name is. nil: the labels are not sorted or not usable as they are, and nothing has
// changed.
func (b *Batch) sortedRefs() (full []byte, name int) {
	if len(b.refIdx)%2 != 0 || !b.usableSymbols() {
		return nil, -1
	}
	from := len(b.canonical)
	w := newASCIIWriter(AppendTenant(b.canonical, b.Tenant), 0)
	name = -1
	symbols, refs := b.symbols, b.refIdx
	for i := 0; i+1 < len(refs); i += 2 {
		nameRef, valueRef := int(refs[i]), int(refs[i+1])
		if nameRef >= len(symbols) || valueRef >= len(symbols) {
			return nil, -1
		}
		n, v := &symbols[nameRef], &symbols[valueRef]
		text := n.bytes(b.msg)
		size := int(n.size) + int(v.size) + 2
		if n.size == 0 || v.size == 0 || w.at+size > b.limit || !w.next(prefixOf(text), text) {
			return nil, -1
		}
		if w.hasName && name < 0 {
			name = valueRef
		}
		w.reserve(size)
		w.add(text, v.bytes(b.msg))
	}
	if !w.hasName {
		return nil, -1
	}
	b.canonical = w.dst[:w.at]
	return b.canonical[from:], name
}

// fieldV2 reads one of the fields of a TimeSeries that are messages.
func (b *Batch) fieldV2(m []byte, pos int, num int32, typ int, meta *metadataV2) int {
	pos, end := bytesField(m, pos, typ)
	if pos < 0 {
		return pos
	}
	return b.contentV2(m[:end], pos, byte(num), meta)
}

// shortField is where the field of m at pos ends, if it is one of those and shorter than 128 bytes; else 0.
func shortField(m []byte, pos int) int {
	if pos+1 >= len(m) || m[pos] < 2<<3|typeBytes || m[pos] > 5<<3|typeBytes || m[pos]&7 != typeBytes || m[pos+1] >= 0x80 {
		return 0
	}
	if end := pos + 2 + int(m[pos+1]); end <= len(m) {
		return end
	}
	return 0
}

// contentV2 reads what is in field num of a TimeSeries.
func (b *Batch) contentV2(m []byte, pos int, num byte, meta *metadataV2) int {
	switch num {
	case 2:
		return b.sample(m, pos, true)
	case 3:
		return b.histogram(m, pos, true)
	case 4:
		return b.exemplarV2(m, pos)
	default:
		return meta.read(m, pos)
	}
}

// refsV2 reads label references, packed or one by one, into refIdx.
func (b *Batch) refsV2(m []byte, pos, typ int) int {
	if typ == typeVarint {
		v, next := uvarint(m, pos)
		b.refIdx = append(b.refIdx, uint32(v))
		return next
	}
	pos, end := bytesField(m, pos, typ)
	// 16 bytes for each reference, as for a pair, are enough.
	if n := len(b.refIdx) + end - pos; n >= b.allowed[arenaPairs] && !b.allowMore(arenaPairs, n) {
		return faultExpand
	}
	refs := b.refIdx
	for pos >= 0 && pos < end {
		c := m[pos]
		if c < 0x80 {
			refs = append(refs, uint32(c))
			pos++
			continue
		}
		if pos+1 < end && m[pos+1] < 0x80 {
			refs = append(refs, uint32(c&0x7f)|uint32(m[pos+1])<<7)
			pos += 2
			continue
		}
		var v uint64
		v, pos = longUvarint(m, pos)
		refs = append(refs, uint32(v))
	}
	b.refIdx = refs
	return pos
}

// resolve turns the references refIdx[first:] into pairs. fault says why it cannot ("" = it did).
func (b *Batch) resolve(first int) (fault string) {
	refs := b.refIdx[first:]
	b.refIdx = b.refIdx[:first]
	if len(refs)%2 != 0 {
		return "an odd number of label references"
	}
	for i := 0; i < len(refs); i += 2 {
		n, v := refs[i], refs[i+1]
		if int(n) >= len(b.symbols) || int(v) >= len(b.symbols) {
			return "a label reference outside of the symbol table"
		}
		name, value := b.symbols[n], b.symbols[v]
		b.pairs = append(b.pairs, pair{name.at, name.size, value.at, value.size})
	}
	return ""
}

// exemplarV2 reads an Exemplar message.
func (b *Batch) exemplarV2(m []byte, pos int) int {
	firstRef, firstPair := len(b.refIdx), len(b.pairs)
	var e Exemplar
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		switch num {
		case 1:
			next = b.refsV2(m, next, typ)
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
	if fault := b.resolve(firstRef); fault != "" {
		b.pairs = b.pairs[:firstPair]
		b.loseExemplar(fault)
		return pos
	}
	if !b.exemplar(e, firstPair) {
		return faultExpand
	}
	return pos
}
