package wire

import (
	"encoding/binary"
	"math"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Both versions of remote write share limits, the end of a series, samples and exemplars.

// maxMessage is the largest message whose positions fit a pair.
const maxMessage = 1<<32 - 1

// maxExpansion bounds what a message of n bytes may ask for beyond its own size: bytes of labels and metadata by
// referring to symbols many times, and histograms and exemplars of next to no bytes. Real requests stay far below.
func maxExpansion(n int) int { return 64<<20 + 16*n }

// charge takes n bytes off what the message may still ask for, and reports whether it may have them.
func (b *Batch) charge(n int) bool {
	b.limit -= n
	return b.mayAppend(0)
}

func checkSize(msg []byte) error {
	if len(msg) > maxMessage {
		return errs.E(errs.TooLarge, "message of %d bytes is larger than %d", len(msg), maxMessage)
	}
	return nil
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
	f.Whole = 1
	f.Samples += len(b.samples) - at.samples
	f.Histograms += len(b.histograms) - at.histograms
	f.Exemplars += len(b.exemplars) - at.exemplars
	b.reject(f, reason)
	b.undo(at)
}

// keep adds the series that began at at. full are its canonical bytes with the tenant. A series that brought nothing is
// not kept.
func (b *Batch) keep(at mark, full []byte) {
	if b.part(at, func() string { return textOf(full[len(b.Tenant)+1:]) }) {
		return
	}
	key, hash := Identify(full)
	labels := full[len(b.Tenant)+1 : len(full) : len(full)]
	b.Series = append(b.Series, Series{
		labels:     labels,
		size:       len(labels),
		Key:        key,
		Hash:       hash,
		Samples:    since(b.samples, at.samples),
		Histograms: since(b.histograms, at.histograms),
		Exemplars:  since(b.exemplars, at.exemplars),
	})
}

// part rejects what the series that began at at loses although it is kept, and reports whether nothing is left of it.
// Exemplars alone are something: senders put them into another series message than the samples of the same series.
func (b *Batch) part(at mark, text func() string) (nothing bool) {
	nothing = len(b.samples) == at.samples && len(b.histograms) == at.histograms && len(b.exemplars) == at.exemplars
	if lost := b.lost; lost.Histograms+lost.Exemplars > 0 {
		if nothing && lost.Histograms > 0 {
			lost.Whole = 1
		}
		b.lost = Failure{}
		b.reject(lost, func() string { return lost.Reason + " in " + text() })
	}
	if nothing {
		b.undo(at)
	}
	return nothing
}

// since is what was added to an arena from n on, nil if nothing. Its capacity ends there, so that an append cannot
// overwrite what follows.
func since[T any](arena []T, n int) []T {
	if len(arena) == n {
		return nil
	}
	return arena[n:len(arena):len(arena)]
}

// exemplar adds e with the labels of pairs[first:], or counts it as lost. It is false when the message asks for too
// much.
func (b *Batch) exemplar(e Exemplar, first int) bool {
	if !b.charge(exemplarSize) || !b.mayAppend(canonicalBytes(b.pairs[first:])) {
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

// sample reads a Sample message. The start timestamp is a field of remote write 2.0 only.
func (b *Batch) sample(m []byte, pos int, v2 bool) int {
	if len(b.samples) >= b.allowed[arenaSamples] && !b.allowMore(arenaSamples, len(b.samples)) {
		return faultExpand
	}
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
			b.starts = b.starts || v != 0
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
