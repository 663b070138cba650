package frontend

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/klauspost/compress/zstd"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// entry is what the cache keeps: the steps of an interval that were answered, as far as they are final.
type entry struct {
	// asked is the time, in Unix ms, since which no change of the samples is known to be in the answer.
	asked int64
	matrix
}

// maxEntryBytes is how large the bytes of an entry may be before they are compressed.
const maxEntryBytes = 64 << 20

var (
	compressor, _   = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	decompressor, _ = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxEntryBytes), zstd.WithDecoderConcurrency(2))
)

// encode writes an entry: numbers as varints, texts with their lengths, the steps of each series as runs, and its
// values as differences in bits. It returns nil for an entry that is too large.
func (e *entry) encode() []byte {
	b := []byte{formatVersion}
	for _, n := range []int64{e.asked, e.from, e.to, e.step} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(e.infos)))
	for _, s := range e.infos {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(e.series)))
	for _, c := range e.series {
		b = appendText(b, c.metric)
		b = appendRuns(b, c.at)
		var last uint64
		for _, v := range c.values {
			u := math.Float64bits(v)
			b = binary.AppendUvarint(b, bits.Reverse64(u^last))
			last = u
		}
		b = appendRuns(b, c.histAt)
		for _, h := range c.hists {
			b = appendText(b, h)
		}
		if len(b) > maxEntryBytes {
			return nil
		}
	}
	return compressor.EncodeAll(b, nil)
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendRuns writes which steps a series has, as pairs: how many it lacks, and how many it has after that.
func appendRuns(b []byte, at []int32) []byte {
	b = binary.AppendUvarint(b, uint64(len(at)))
	next := int32(0)
	for i := 0; i < len(at); {
		j := i + 1
		for j < len(at) && at[j] == at[j-1]+1 {
			j++
		}
		b = binary.AppendUvarint(b, uint64(at[i]-next))
		b = binary.AppendUvarint(b, uint64(j-i))
		next, i = at[j-1]+1, j
	}
	return b
}

// decode reads what encode wrote. Bytes come from a server that others may write to: whatever they are, the error is
// of kind Invalid, or the entry is one that could have been written.
func decode(data []byte) (e *entry, err error) {
	raw, err := decompressor.DecodeAll(data, nil)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	r := &entryReader{b: raw}
	e = &entry{}
	if r.take(1)[0] != formatVersion {
		return nil, errs.E(errs.Invalid, "a cache entry of another version")
	}
	for _, n := range []*int64{&e.asked, &e.from, &e.to, &e.step} {
		*n = r.varint()
	}
	if r.bad || e.from < 0 || e.to < e.from || e.step <= 0 || (e.to-e.from)%e.step != 0 ||
		(e.to-e.from)/e.step > maxSteps {
		return nil, errs.E(errs.Invalid, "a cache entry with steps from %d to %d by %d", e.from, e.to, e.step)
	}
	steps := e.piece.steps(e.step)
	for n := r.count(1); n > 0; n-- {
		e.infos = append(e.infos, string(r.text()))
	}
	n := r.count(3)
	e.series = make([]column, 0, n)
	for range n {
		c := column{metric: string(r.text())}
		c.at = r.runs(steps)
		c.values = make([]float64, len(c.at))
		var last uint64
		for i := range c.values {
			last ^= bits.Reverse64(r.uvarint())
			c.values[i] = math.Float64frombits(last)
		}
		c.histAt = r.runs(steps)
		c.hists = make([][]byte, len(c.histAt))
		for i := range c.hists {
			c.hists[i] = r.text()
		}
		if r.bad {
			break
		}
		e.series = append(e.series, c)
	}
	if r.bad || len(r.b) > 0 {
		return nil, errs.E(errs.Invalid, "a cache entry that is cut short or has more than it says")
	}
	return e, nil
}

// entryReader reads the bytes of an entry. After a fault it is bad, and yields zeros.
type entryReader struct {
	b   []byte
	bad bool
}

func (r *entryReader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, min(n, 1))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *entryReader) uvarint() uint64 {
	u, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return u
}

func (r *entryReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many things follow, of which each has at least size bytes.
func (r *entryReader) count(size int) int {
	u := r.uvarint()
	if r.bad || u > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(u)
}

func (r *entryReader) text() []byte { return r.take(r.count(1)) }

// runs reads the steps of a series, of which there are at most steps.
func (r *entryReader) runs(steps int) []int32 {
	u := r.uvarint()
	if r.bad || u > uint64(steps) {
		r.bad = true
		return nil
	}
	if u == 0 {
		return nil
	}
	at := make([]int32, 0, u)
	next := uint64(0)
	for uint64(len(at)) < u {
		gap, n := r.uvarint(), r.uvarint()
		if r.bad || n == 0 || gap > uint64(steps) || n > u-uint64(len(at)) || next+gap+n > uint64(steps) {
			r.bad = true
			return nil
		}
		for i := range n {
			at = append(at, int32(next+gap+i))
		}
		next += gap + n
	}
	return at
}
