package wire

// Own hands over the buffer that the message of b is in. The buffer goes back to its pool with b; the body as it came
// goes back at once.
func (b *Batch) Own(buf *Buffer) {
	buf.shed()
	b.body = buf
}

// remember puts s, the last series of b, into the cache under id.
func (b *Batch) remember(s *Series, id Key, name int) {
	if slot := b.look.put(id, s, name); slot != nil {
		s.Hint = &slot.hint
	}
}

// keepCached is keep for a series that the cache knows, named by the bytes spelled. It is false when the message asks
// for too much.
func (b *Batch) keepCached(at mark, slot *cacheSlot, spelled []byte) bool {
	if b.v2 && !b.charge(int(slot.size)) { // what the labels take when they are asked for; in 1.0 they are in the message
		return false
	}
	if b.part(at, func() string { return textOf(b.decodeRaw(nil, spelled)) }) {
		return true
	}
	b.Series = append(b.Series, Series{
		labels:     spelled,
		from:       b,
		size:       int(slot.size),
		Key:        slot.key,
		Hash:       slot.hash,
		Hint:       &slot.hint,
		Samples:    since(b.samples, at.samples),
		Histograms: since(b.histograms, at.histograms),
		Exemplars:  since(b.exemplars, at.exemplars),
	})
	return true
}

// decodeRaw appends the canonical labels of a known series of b to dst. It changes nothing of b, which several
// goroutines may read. It appends nothing when spelled cannot be read: then the hash of spelled is by chance that of
// other bytes. Whoever stores the series, or reads it from a frame, refuses a series without labels.
func (b *Batch) decodeRaw(dst, spelled []byte) []byte {
	t := newPooled(b.Tenant)
	defer t.Release()
	t.limit = 1 << 62
	var full []byte
	if b.v2 {
		t.msg, t.symbols, t.tableRead, t.tableUsable = b.msg, b.symbols, true, true // those of a known series are
		defer func() { t.symbols = nil }()                                          // they are b's
		if t.refsV2(spelled, 0, typeBytes) >= 0 {
			if full, _ = t.sortedRefs(); full == nil && t.resolve(0) == "" {
				full, _ = t.finish(t.mark())
			}
		}
		if full != nil && !isCanonical(full[len(t.Tenant)+1:]) { // the symbols were not checked
			full = nil
		}
	} else {
		t.msg = spelled
		t.canonical = AppendTenant(t.canonical, t.Tenant)
		if next, ok := t.asciiLabels(spelled, 0); ok && next == len(spelled) {
			full = t.canonical
		} else {
			t.canonical = t.canonical[:0]
			if t.fieldsV1(spelled, 0, false) >= 0 {
				full, _ = t.finish(t.mark())
			}
		}
	}
	if full == nil {
		return dst
	}
	return append(dst, full[len(t.Tenant)+1:]...)
}
