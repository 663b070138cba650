package wire

import (
	"unicode/utf8"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// DecodeV2 decodes msg, the bytes of an uncompressed io.prometheus.write.v2.Request of tenant id, like DecodeV1. Rejected
// are also series with label references that are odd in number or outside of the symbol table, and series without any
// sample.
func DecodeV2(id tenant.ID, msg []byte) (*Batch, error) { return DecodeV2Within(id, msg, nil) }

// DecodeV2Within is DecodeV2 for who has to ask for the memory of the Batch.
func DecodeV2Within(id tenant.ID, msg []byte, room Room) (*Batch, error) {
	if err := checkSize(msg); err != nil {
		return nil, err
	}
	b := newPooled(id)
	b.msg, b.limit = msg[:len(msg):len(msg)], maxExpansion(len(msg))
	b.within(room)
	pos := b.symbolsV2(b.msg)
	if pos >= 0 {
		pos = b.requestV2(b.msg)
	}
	if pos < 0 {
		err := b.fail("2.0", pos)
		b.Release()
		return nil, err
	}
	b.msg = nil
	return b, nil
}

// symbol is an entry of the symbol table by its place in the message; prefix are its first eight bytes, which decide most
// comparisons.
type symbol struct {
	at, size uint32
	prefix   uint64
}

func (s *symbol) bytes(msg []byte) []byte { return msg[s.at : s.at+s.size] }

// symbolsV2 reads the symbol table, which may stand anywhere in the message.
func (b *Batch) symbolsV2(msg []byte) int {
	b.symbols, b.plainTable = b.symbols[:0], true
	pos := 0
	for pos < len(msg) {
		if msg[pos] == 5<<3|typeBytes { // most fields are series
			if _, pos = span(msg, pos+1, typeBytes); pos < 0 {
				return pos
			}
			continue
		}
		num, typ, next := tag(msg, pos)
		if next < 0 {
			return next
		}
		if num != 4 {
			if pos = skip(msg, next, typ); pos < 0 {
				return pos
			}
			continue
		}
		next, end := span(msg, next, typ)
		if next < 0 {
			return next
		}
		if len(b.symbols) >= b.allowed[arenaSymbols] && !b.more(arenaSymbols, len(b.symbols)) {
			return faultExpand
		}
		b.symbols = append(b.symbols, symbol{uint32(next), uint32(end - next), prefixOf(msg[next:end])})
		b.plainTable = b.plainTable && end-next <= MaxLabelLength && utf8.Valid(msg[next:end])
		pos = end
	}
	if len(b.symbols) > 0 && b.symbols[0].size > 0 {
		return faultTable
	}
	b.families.grow(len(b.symbols))
	return pos
}

func (b *Batch) requestV2(msg []byte) int {
	pos := 0
	for pos < len(msg) {
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
		next, end := span(msg, next, typ)
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
	if len(b.Series) >= b.allowed[arenaSeries] && !b.more(arenaSeries, len(b.Series)) {
		return faultExpand
	}
	at := b.mark()
	b.pairs, b.refIdx = b.pairs[:0], b.refIdx[:0]
	var meta metadataV2
	for pos < len(m) {
		num, typ, next := tag(m, pos)
		if next < 0 {
			return next
		}
		switch {
		case num == 1:
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
	if fault := b.endV2(at, &meta); fault < 0 {
		return fault
	}
	return pos
}

// endV2 keeps the series that began at at, unless it is one that remote write 2.0 forbids. It returns 0 or a fault.
func (b *Batch) endV2(at mark, meta *metadataV2) int {
	full, name := b.plainRefs()
	if full == nil {
		if fault := b.resolve(0); fault != "" {
			b.drop(at, func() string { return "series with " + fault })
			return 0
		}
		if !b.roomFor(canonicalBytes(b.pairs)) {
			return faultExpand
		}
		var ok bool
		if full, ok = b.finish(at); !ok {
			return 0
		}
	}
	labels := full[len(b.Tenant)+1:]
	switch {
	case int(meta.help) >= len(b.symbols) || int(meta.unit) >= len(b.symbols):
		b.drop(at, func() string { return "a metadata reference outside of the symbol table in " + textOf(labels) })
		return 0
	case b.empty(at):
		b.drop(at, func() string { return "no sample in " + textOf(labels) })
		return 0
	}
	b.keep(at, full)
	meta.name = name
	if !b.metadataV2(meta, labels) {
		return faultExpand
	}
	return 0
}

// empty reports whether the series that began at at brought nothing. Exemplars alone are something: the specification wants a
// sample beside them, but Prometheus's own sender puts them into a series of their own.
func (b *Batch) empty(at mark) bool {
	return b.mark() == mark{len(b.canonical), at.samples, at.histograms, at.exemplars} && b.lost.Histograms == 0 && b.lost.Exemplars == 0
}

// plainRefs appends the labels that refIdx refers to to the canonical arena, and returns their bytes with the tenant and
// which symbol the metric name is. nil: the labels are not plain, and nothing has changed.
func (b *Batch) plainRefs() (full []byte, name int) {
	if !b.plainTable || len(b.refIdx)%2 != 0 {
		return nil, -1
	}
	from := len(b.canonical)
	w := newPlainWriter(AppendTenant(b.canonical, b.Tenant), 0)
	name = -1
	symbols, refs := b.symbols, b.refIdx
	for i := 0; i+1 < len(refs); i += 2 {
		nameRef, valueRef := int(refs[i]), int(refs[i+1])
		if nameRef >= len(symbols) || valueRef >= len(symbols) {
			return nil, -1
		}
		n, v := &symbols[nameRef], &symbols[valueRef]
		text := n.bytes(b.msg)
		room := int(n.size) + int(v.size) + 2
		if n.size == 0 || v.size == 0 || w.at+room > b.limit || !w.next(n.prefix, text) {
			return nil, -1
		}
		if w.named && name < 0 {
			name = valueRef
		}
		w.reserve(room)
		w.add(text, v.bytes(b.msg))
	}
	if !w.named {
		return nil, -1
	}
	b.canonical = w.dst[:w.at]
	return b.canonical[from:], name
}

// fieldV2 reads one of the fields of a TimeSeries that are messages.
func (b *Batch) fieldV2(m []byte, pos int, num int32, typ int, meta *metadataV2) int {
	pos, end := span(m, pos, typ)
	if pos < 0 {
		return pos
	}
	m = m[:end]
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
	pos, end := span(m, pos, typ)
	if n := len(b.refIdx) + end - pos; n >= b.allowed[arenaPairs] && !b.more(arenaPairs, n) { // 16 bytes for each suffice
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

// resolve turns the references refIdx[first:] into pairs. fault tells why it cannot ("" = it did).
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
