package indexheader

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sort"
	"strings"
	"unsafe"

	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// sampling is how many entries of the postings offset table are read for each one that is kept in memory.
const sampling = 32

// maxIndexSize is 64 GiB: references to series have 32 bits and count 16 bytes.
const maxIndexSize = 64 << 30

// Reader answers from one block's index-header. It is safe for concurrent use, until Close.
type Reader struct {
	file    *fileutil.MmapFile
	symbols symbols
	names   map[string]*name
	sorted  []string
	// nameSymbols are the label names by symbol: half of all lookups are of names, and no walk is faster than a map.
	nameSymbols map[uint32]string
	table       []byte // the postings offset table's content
	postingsEnd int64  // in the index
	size        int64  // of the index
	series      index.Range
}

// name is what is kept in memory of one label name: where in table its entries end, and one of sampling entries.
type name struct {
	end     int
	entries []entry
}

type entry struct {
	value string
	off   int // in table
}

// Open maps and verifies the index-header at path. A faulty file is of kind Invalid, a missing one NotFound.
func Open(path string) (*Reader, error) {
	f, err := fileutil.OpenMmapFile(path)
	if err != nil {
		return nil, errs.E(errs.NotFound, "index-header: %w", err)
	}
	r := &Reader{file: f, names: map[string]*name{}, nameSymbols: map[uint32]string{}}
	if err := r.load(f.Bytes()); err != nil {
		f.Close()
		return nil, errs.E(errs.Invalid, "index-header %s: %w", path, err)
	}
	return r, nil
}

func (r *Reader) load(b []byte) error {
	if len(b) < headerLen+indexTOCLen+tocLen {
		return errs.E(errs.Invalid, "%d bytes", len(b))
	}
	if m := binary.BigEndian.Uint32(b); m != magic || b[4] != version || !readable(b[5]) {
		return errs.E(errs.Invalid, "magic %x version %d of an index version %d", m, b[4], b[5])
	}
	tail := b[len(b)-tocLen:]
	if crc32.Checksum(tail[:16], block.Castagnoli) != binary.BigEndian.Uint32(tail[16:]) {
		return errs.E(errs.Invalid, "checksum of the table of contents")
	}
	symbols, table := binary.BigEndian.Uint64(tail), binary.BigEndian.Uint64(tail[8:])
	indexTOC := len(b) - tocLen - indexTOCLen
	if symbols < headerLen || table < symbols || table > uint64(indexTOC) {
		return errs.E(errs.Invalid, "symbols at %d, postings offset table at %d of %d bytes", symbols, table, len(b))
	}
	end := binary.BigEndian.Uint64(b[6:])
	if end > maxIndexSize {
		return errs.E(errs.Invalid, "postings end at %d", end)
	}
	r.postingsEnd = int64(end)
	r.size = r.postingsEnd + int64(len(b)-tocLen) - int64(table)
	toc, err := tocOf(b[indexTOC:indexTOC+indexTOCLen], r.size)
	if err != nil {
		return err
	}
	if toc.PostingsTable != end || toc.Series-toc.Symbols != table-symbols {
		return errs.E(errs.Invalid, "tables of contents %+v and %d, %d, %d differ", *toc, end, symbols, table)
	}
	if n := binary.BigEndian.Uint32(b[symbols+4:]); uint64(n) > table-symbols {
		return errs.E(errs.Invalid, "%d symbols in %d bytes", n, table-symbols)
	}
	r.series = index.Range{Start: int64(toc.Series), End: int64(toc.Postings)}
	if end := int64(toc.LabelIndices); end >= r.series.Start && end < r.series.End {
		r.series.End = end
	}
	if r.symbols, err = readSymbols(b, int(symbols)); err != nil {
		return err
	}
	return r.loadTable(b, int(table))
}

// loadTable verifies the postings offset table and samples it.
func (r *Reader) loadTable(b []byte, off int) error {
	r.table = b[off+4:] // cut to its length below: ReadPostingsOffsetTable checks that it fits
	var last *name
	lastName, lastValue, lastOffset, count := "", "", uint64(index.HeaderLen-1), 0
	err := index.ReadPostingsOffsetTable(block.Bytes(b), uint64(off), func(n, v []byte, postings uint64, at int) error {
		if postings <= lastOffset || postings >= uint64(r.postingsEnd) {
			return errs.E(errs.Invalid, "postings of %q=%q at %d after %d, end %d", n, v, postings, lastOffset, r.postingsEnd)
		}
		if last == nil || lastName != alias(n) {
			if last != nil && lastName >= alias(n) {
				return errs.E(errs.Invalid, "label name %q after %q", n, lastName)
			}
			if last != nil {
				last.end = at
			}
			last, lastName, count = &name{}, alias(n), 0
			r.names[lastName] = last
			r.sorted = append(r.sorted, lastName)
		} else if lastValue >= alias(v) {
			return errs.E(errs.Invalid, "label value %q=%q after %q", n, v, lastValue)
		}
		if count%sampling == 0 {
			last.entries = append(last.entries, entry{alias(v), at})
		}
		lastValue, lastOffset = alias(v), postings
		count++
		return nil
	})
	if err != nil {
		return err
	}
	r.table = r.table[:binary.BigEndian.Uint32(b[off:])]
	if last != nil {
		last.end = len(r.table)
	}
	r.sorted = slices.DeleteFunc(r.sorted, func(n string) bool { return n == "" })
	for _, n := range r.sorted {
		ref, found := r.symbols.find(n)
		if !found {
			return errs.E(errs.Invalid, "label name %q is no symbol", n)
		}
		r.nameSymbols[ref] = n
	}
	return nil
}

// Close unmaps the file. Strings that came from r must not be used afterwards.
func (r *Reader) Close() error { return r.file.Close() }

// Size is the size of the file in bytes.
func (r *Reader) Size() int { return len(r.file.Bytes()) }

// IndexSize is the size of the index in the bucket, in bytes.
func (r *Reader) IndexSize() int64 { return r.size }

// SeriesRange is where the series are in the index.
func (r *Reader) SeriesRange() index.Range { return r.series }

// LookupSymbol is the string that ref stands for. Its form is that of index.Decoder.LookupSymbol.
func (r *Reader) LookupSymbol(_ context.Context, ref uint32) (string, error) {
	if s, ok := r.nameSymbols[ref]; ok {
		return s, nil
	}
	return r.symbols.lookup(ref)
}

// LabelNames are all label names of the block, sorted. The caller must not change the slice.
func (r *Reader) LabelNames() []string { return r.sorted }

// Values calls f with the values of a label name that begin with prefix, in order, and where their postings are in the
// index, until f is false.
func (r *Reader) Values(_ context.Context, label, prefix string,
	f func(value string, postings index.Range) bool) error {
	n, ok := r.names[label]
	if !ok {
		return nil
	}
	at := sort.Search(len(n.entries), func(k int) bool { return n.entries[k].value > prefix })
	return r.walk(n, n.entries[max(at-1, 0)].off, func(value string, postings index.Range) bool {
		if strings.HasPrefix(value, prefix) {
			return f(value, postings)
		}
		return value < prefix
	})
}

// Ranges appends where the postings of the label's values are. values must be sorted; those that do not exist are left
// out.
func (r *Reader) Ranges(_ context.Context, dst []index.Range, label string,
	values ...string) ([]index.Range, error) {
	n, ok := r.names[label]
	if !ok {
		return dst, nil
	}
	for i := 0; i < len(values); {
		at := sort.Search(len(n.entries), func(k int) bool { return n.entries[k].value > values[i] }) - 1
		if at < 0 {
			i++ // before the first
			continue
		}
		next, hasNext := "", at+1 < len(n.entries)
		if hasNext {
			next = n.entries[at+1].value
		}
		err := r.walk(n, n.entries[at].off, func(value string, postings index.Range) bool {
			for i < len(values) && values[i] < value {
				i++
			}
			if i < len(values) && values[i] == value {
				dst = append(dst, postings)
				i++
			}
			return i < len(values) && !(hasNext && values[i] >= next)
		})
		if err != nil {
			return dst, err
		}
		if !hasNext {
			return dst, nil // the remaining values are behind the last one
		}
		for i < len(values) && values[i] < next {
			i++
		}
	}
	return dst, nil
}

// walk calls f with the entries of n from the one at off, until f is false.
func (r *Reader) walk(n *name, off int, f func(value string, postings index.Range) bool) error {
	d := encoding.Decbuf{B: r.table[off:]}
	value, start := decodeEntry(&d)
	for d.Err() == nil {
		end, nextValue, more := r.postingsEnd, "", len(r.table)-d.Len() < n.end
		if d.Len() > 0 {
			var next uint64
			nextValue, next = decodeEntry(&d)
			end = int64(next)
		}
		if d.Err() != nil {
			break
		}
		if !f(value, index.Range{Start: int64(start), End: end}) || !more {
			return nil
		}
		value, start = nextValue, uint64(end)
	}
	return errs.E(errs.Invalid, "index-header: postings offset table at %d: %w", off, d.Err())
}

func decodeEntry(d *encoding.Decbuf) (value string, postings uint64) {
	d.Uvarint()      // number of strings: 2
	d.UvarintBytes() // name
	value = alias(d.UvarintBytes())
	return value, d.Uvarint64()
}

func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
