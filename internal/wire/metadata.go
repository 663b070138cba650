package wire

import (
	"bytes"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// metricTypes are the words of a protobuf MetricType, in both versions of remote write.
var metricTypes = [...]string{
	"unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset",
}

// Numbers in metricTypes.
const (
	typeHistogram      = 3
	typeGaugeHistogram = 4
	typeSummary        = 5
)

func metricType(n int32) string {
	if n < 0 || int(n) >= len(metricTypes) {
		return metricTypes[0]
	}
	return metricTypes[n]
}

// familyOf is the metric family of a series called name: classic histograms and summaries have suffixes.
func familyOf(name []byte, typ int32) []byte {
	var suffixes []string
	switch typ {
	case typeHistogram:
		suffixes = []string{"_bucket", "_sum", "_count"}
	case typeGaugeHistogram:
		suffixes = []string{"_bucket", "_gsum", "_gcount"}
	case typeSummary:
		suffixes = []string{"_sum", "_count"}
	}
	for _, s := range suffixes {
		if len(name) > len(s) && string(name[len(name)-len(s):]) == s {
			return name[:len(name)-len(s)]
		}
	}
	return name
}

// familySet is the set of metric families of which a batch has metadata.
type familySet struct {
	names map[string]struct{}
	seen  []uint64 // a bit per symbol: the metadata of the metric of this name is known (remote write 2.0)
}

// maxFamilies is how many families a pooled set may have held to be kept.
const maxFamilies = 10000

func (s *familySet) reset() {
	if len(s.names) > maxFamilies {
		s.names = nil
	}
	clear(s.names)
	s.seen = reuse(s.seen)
}

// grow makes space for n symbols, none of them seen.
func (s *familySet) grow(n int) {
	words := (n + 63) / 64
	if cap(s.seen) < words {
		s.seen = make([]uint64, words)
		return
	}
	s.seen = s.seen[:words]
	clear(s.seen)
}

// see marks symbol n and reports whether it was marked before. Symbol -1 never is.
func (s *familySet) see(n int) bool {
	if n < 0 {
		return false
	}
	word, bit := &s.seen[n/64], uint64(1)<<(n%64)
	was := *word&bit != 0
	*word |= bit
	return was
}

// addMetadata adds what is known of a family, unless the family has metadata already or its name is unusable. The
// strings of one family share one allocation.
func (b *Batch) addMetadata(family, help, unit []byte, typ int32) {
	if len(family) == 0 || !utf8.Valid(family) {
		return
	}
	if _, ok := b.families.names[string(family)]; ok {
		return
	}
	help, unit = readable(help), readable(unit)
	var text strings.Builder
	text.Grow(len(family) + len(help) + len(unit))
	text.Write(family)
	text.Write(help)
	text.Write(unit)
	all := text.String()
	meta := Metadata{
		Family: all[:len(family)],
		Help:   all[len(family) : len(family)+len(help)],
		Unit:   all[len(family)+len(help):],
		Type:   metricType(typ),
	}
	if b.families.names == nil {
		b.families.names = make(map[string]struct{})
	}
	b.families.names[meta.Family] = struct{}{}
	b.Metadata = append(b.Metadata, meta)
}

// metadataV1 reads a MetricMetadata message of remote write 1.0, m[pos:].
func (b *Batch) metadataV1(m []byte, pos int) int {
	if len(b.Metadata) >= b.allowed[arenaMetadata] && !b.allowMore(arenaMetadata, len(b.Metadata)) {
		return faultExpand
	}
	var typ int32
	var texts [6][]byte // by field number: 2 family, 4 help, 5 unit
	for pos < len(m) {
		num, kind, next := tag(m, pos)
		if next < 0 {
			return next
		}
		switch num {
		case 1:
			var v uint64
			v, next = number(m, next, kind)
			typ = int32(v)
		case 2, 4, 5:
			var end int
			if next, end = bytesField(m, next, kind); next >= 0 {
				texts[num] = m[next:end]
				next = end
			}
		default:
			next = skip(m, next, kind)
		}
		if pos = next; pos < 0 {
			return pos
		}
	}
	b.addMetadata(texts[2], texts[4], texts[5], typ)
	return pos
}

// metadataV2 is what a series of remote write 2.0 says of its family.
type metadataV2 struct {
	typ        int32
	help, unit uint32
	name       int // symbol of the metric name, -1 = not looked up
}

// read reads a Metadata message, m[pos:], over what meta holds.
func (meta *metadataV2) read(m []byte, pos int) int {
	for pos < len(m) {
		num, kind, next := tag(m, pos)
		if next < 0 {
			return next
		}
		if num == 1 || num == 3 || num == 4 {
			var v uint64
			if v, next = number(m, next, kind); next < 0 {
				return next
			}
			switch num {
			case 1:
				meta.typ = int32(v)
			case 3:
				meta.help = uint32(v)
			case 4:
				meta.unit = uint32(v)
			}
			pos = next
			continue
		}
		if pos = skip(m, next, kind); pos < 0 {
			return pos
		}
	}
	return pos
}

// markV2 is a number that is another one for other metadata than meta, and for the same a minute later. The same
// metadata comes with every sample. A series that the cache knows brings it once a minute, which is as often as senders
// of 1.0 do.
func (b *Batch) markV2(meta *metadataV2) uint32 {
	help, unit := b.hashes[meta.help], b.hashes[meta.unit]
	return uint32(avalanche(help.Hi+bits.RotateLeft64(unit.Lo, 21)+uint64(meta.typ)<<32+uint64(b.look.now))) | 1
}

// metadataV2 adds the metadata of a series with these canonical labels, once per family. It is false when metadata
// takes more memory than the message may ask for.
func (b *Batch) metadataV2(meta *metadataV2, labels []byte) bool {
	help, unit := b.symbols[meta.help].bytes(b.msg), b.symbols[meta.unit].bytes(b.msg)
	if meta.typ == 0 && len(help) == 0 && len(unit) == 0 || b.families.see(meta.name) {
		return true
	}
	metric := valueOf(labels, nameLabel)
	if meta.name >= 0 {
		metric = b.symbols[meta.name].bytes(b.msg)
	}
	family := familyOf(metric, meta.typ)
	if _, ok := b.families.names[string(family)]; ok {
		return true
	}
	if !b.charge(len(family) + len(help) + len(unit) + metadataSize) {
		return false
	}
	b.addMetadata(family, help, unit, meta.typ)
	return true
}

// readable is s with whatever is not UTF-8 replaced.
func readable(s []byte) []byte {
	if utf8.Valid(s) {
		return s
	}
	return bytes.ToValidUTF8(s, []byte("\uFFFD"))
}
