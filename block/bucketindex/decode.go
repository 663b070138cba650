package bucketindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Decode reads a content. each gets the blocks in order; the block and its slices are written over by the next one,
// while its strings, its labels and its Origin may be kept. A content of version 1 may have parts of split outputs
// without saying so; they are left out, so that whoever finds their directories reads meta.json. A faulty content
// is an error of kind Invalid; each may have got blocks before the fault is found, which are to be thrown away.
func Decode(content []byte, each func(*Block)) (Rest, error) {
	body, version, err := inflate(content)
	if err != nil {
		return Rest{}, errs.E(errs.Invalid, "index of the bucket: %w", err)
	}
	d := decoder{b: body, version: version}
	d.tables()
	d.blocks(each)
	rest := d.rest()
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes behind its end", len(d.b))
	}
	if d.err != nil {
		return Rest{}, errs.E(errs.Invalid, "index of the bucket: %w", d.err)
	}
	return rest, nil
}

// inflate returns the body of a content, and its version.
func inflate(content []byte) (body []byte, v byte, err error) {
	if len(content) > MaxSize {
		return nil, 0, fmt.Errorf("%d bytes, more than %d", len(content), MaxSize)
	}
	if len(content) <= len(magic) || string(content[:len(magic)]) != magic {
		return nil, 0, errors.New("it does not begin as one")
	}
	if v = content[len(magic)]; v != version && v != without {
		return nil, 0, fmt.Errorf("version %d, want %d", v, version)
	}
	content = content[len(magic)+1:]
	size, n := binary.Uvarint(content)
	if n <= 0 || size > maxBody {
		return nil, 0, fmt.Errorf("%d bytes when inflated, more than %d", size, maxBody)
	}
	// A frame may inflate to more than the content says; the decoder stops there. It needs a window for small ones, too.
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(max(size, 16<<20)),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, 0, err
	}
	defer z.Close()
	body, err = z.DecodeAll(content[n:], nil)
	if err == nil && uint64(len(body)) != size {
		err = fmt.Errorf("%d bytes when inflated, want %d", len(body), size)
	}
	return body, v, err
}

// decoder reads b from its beginning. After a fault err is set, and everything is read as zero.
type decoder struct {
	b       []byte
	version byte
	err     error
	memory  uint64 // what has been decoded, in bytes

	strings []string
	sets    []map[string]string
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("a number is cut short")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// varint is a number with a sign, which is the lowest bit, as binary.AppendVarint writes it.
func (d *decoder) varint() int64 {
	v := d.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// size is a number that is no less than 0.
func (d *decoder) size() int64 {
	v := d.uvarint()
	if v > math.MaxInt64 {
		d.fail("a size of %d", v)
		return 0
	}
	return int64(v)
}

// count is the number of entries that follow. Each takes at least smallest bytes here, and memory bytes when decoded.
func (d *decoder) count(smallest, memory uint64) int {
	n := d.uvarint()
	if n > uint64(len(d.b))/smallest {
		d.fail("%d entries in %d bytes", n, len(d.b))
		return 0
	}
	if d.memory += n * memory; d.memory > maxMemory {
		d.fail("it takes more than %d bytes of memory", maxMemory)
		return 0
	}
	return int(n)
}

func (d *decoder) id() (id ulid.ULID) {
	if len(d.b) < len(id) {
		d.fail("an id is cut short")
		return id
	}
	d.b = d.b[copy(id[:], d.b):]
	return id
}

// above is an id that is larger than last, unless it is the first.
func (d *decoder) above(last ulid.ULID, first bool) ulid.ULID {
	id := d.id()
	if !first && id.Compare(last) <= 0 {
		d.fail("%s after %s", id, last)
	}
	return id
}

func (d *decoder) str() string {
	n := d.uvarint()
	if n >= uint64(len(d.strings)) {
		d.fail("string %d of %d", n, len(d.strings))
		return ""
	}
	return d.strings[n]
}

// tables reads the strings and the sets of labels.
func (d *decoder) tables() {
	d.strings = make([]string, d.count(1, 16))
	for i := range d.strings {
		n := d.count(1, 1)
		if !utf8.Valid(d.b[:n]) {
			d.fail("string %d is not text in UTF-8", i)
			return
		}
		d.strings[i] = string(d.b[:n])
		d.b = d.b[n:]
	}
	d.sets = make([]map[string]string, d.count(1, 64))
	for i := range d.sets {
		n := d.count(2, 64)
		set := make(map[string]string, n)
		last := ""
		for j := range n {
			name, value := d.str(), d.str()
			if j > 0 && name <= last {
				d.fail("label %q after %q", name, last)
				return
			}
			set[name], last = value, name
		}
		d.sets[i] = set
	}
}

// smallestBlock is the number of bytes of the smallest block.
const smallestBlock = 16 + 17

func (d *decoder) blocks(each func(*Block)) {
	n := d.count(smallestBlock, uint64(unsafe.Sizeof(Block{})))
	var b Block
	last := int64(0)
	for i := range n {
		b = Block{
			BlockMeta: tsdb.BlockMeta{ULID: d.above(b.ULID, i == 0), Version: 1, Compaction: tsdb.BlockMetaCompaction{
				Sources: b.Compaction.Sources[:0], Hints: b.Compaction.Hints[:0]}},
			Files: b.Files[:0],
		}
		d.block(&b, last)
		if d.err != nil {
			return
		}
		last = b.MinTime
		if d.version == without && b.Compaction.Level > 1 && len(b.Compaction.Sources) == 1 &&
			b.Compaction.Sources[0] == b.ULID {
			continue // only parts of split outputs are made of others and name themselves as their source
		}
		each(&b)
	}
}

func (d *decoder) block(b *Block, lastMinTime int64) {
	c := &b.Compaction
	flags := d.uvarint()
	c.Deletable, c.Failed = flags&flagDeletable != 0, flags&flagFailed != 0
	b.MinTime = lastMinTime + d.varint()
	b.MaxTime = b.MinTime + int64(d.uvarint())
	if b.MinTime > b.MaxTime {
		d.fail("block %s: minTime %d after maxTime %d", b.ULID, b.MinTime, b.MaxTime)
	}
	if set := d.uvarint(); set < uint64(len(d.sets)) {
		b.Labels = d.sets[set]
	} else {
		d.fail("block %s: set of labels %d of %d", b.ULID, set, len(d.sets))
	}
	b.Resolution = d.size()
	level := d.size()
	if level > math.MaxInt32 {
		d.fail("block %s: level %d", b.ULID, level)
	}
	c.Level = int(level)
	b.Source = d.str()
	s := &b.Stats
	for _, to := range []*uint64{&s.NumSamples, &s.NumFloatSamples, &s.NumHistogramSamples, &s.NumSeries, &s.NumChunks,
		&s.NumTombstones} {
		*to = d.uvarint()
	}
	b.SeriesMaxSize, b.ChunkMaxSize = d.size(), d.size()
	if flags&flagNoUploaded == 0 {
		b.Uploaded = b.MaxTime + d.varint()
	}
	if flags&flagOwnSource != 0 {
		c.Sources = append(c.Sources, b.ULID)
	} else {
		for range d.count(16, 16) {
			c.Sources = append(c.Sources, d.id())
		}
	}
	for range d.count(1, 16) {
		c.Hints = append(c.Hints, d.str())
	}
	for range d.count(2, 32) {
		b.Files = append(b.Files, File{d.str(), d.size()})
	}
	if flags&flagOrigin != 0 && d.version != without {
		d.origin(b, flags&flagSameSources != 0)
	}
}

func (d *decoder) rest() (r Rest) {
	n := d.count(16+4, uint64(unsafe.Sizeof(Mark{})))
	r.Marks = make([]Mark, 0, n)
	for i := range n {
		m := Mark{ID: d.id()}
		kind := d.uvarint()
		m.Own, m.Kind = kind&1 != 0, Kind(min(kind>>1, math.MaxUint8))
		m.At, m.Reason, m.Details = d.varint(), d.str(), d.str()
		if m.Kind < Deletion || m.Kind > NoDownsample {
			d.fail("block %s: a mark of kind %d", m.ID, m.Kind)
		}
		if i > 0 && compareMarks(r.Marks[i-1], m) >= 0 {
			d.fail("marks of block %s: not in order", m.ID)
		}
		if d.err != nil {
			return Rest{}
		}
		r.Marks = append(r.Marks, m)
	}
	n = d.count(16+1, uint64(unsafe.Sizeof(Leftover{})))
	r.Leftovers = make([]Leftover, 0, n)
	var last ulid.ULID
	for i := range n {
		last = d.above(last, i == 0)
		l := Leftover{last, d.varint()}
		if d.err != nil {
			return Rest{}
		}
		r.Leftovers = append(r.Leftovers, l)
	}
	return r
}
