package store

import (
	"context"
	"encoding/binary"
	"hash/crc32"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/store/cache"
)

// blockIndex reads a block's index for one request: names and values from the local header, postings and series by
// range reads through the page cache.
type blockIndex struct {
	b       *bucketBlock
	header  header        // nil until open
	every   []index.Range // the list of all series
	objects *objects
	lease   *lease
	symbols symbols
}

// newBlockIndex makes an index of b. Before anything is asked of it, open is called.
func newBlockIndex(b *bucketBlock, o *objects, l *lease) *blockIndex {
	return &blockIndex{b: b, objects: o, lease: l}
}

// open waits for the index-header.
func (ix *blockIndex) open(ctx context.Context) (err error) {
	if ix.header, err = ix.b.Header(ctx); err != nil {
		return err
	}
	ix.symbols.header = ix.header
	ix.every, err = ix.header.Ranges(ctx, nil, "", "")
	return err
}

// file is the index as it is read from off on.
func (ix *blockIndex) file(off int64) file {
	f := indexFile(ix.b.meta, ix.header.IndexSize())
	if off < ix.header.SeriesRange().End {
		f.kind = cache.Series
	}
	return f
}

// indexFile is the index of a block, of which postings are read.
func indexFile(m *block.Meta, size int64) file {
	return file{cache.File{Block: m.ULID, Size: size}, m.Object(block.IndexName), cache.Postings}
}

// read returns parts of one section of the index, in order of their starts. They count until the request ends.
func (ix *blockIndex) read(ctx context.Context, parts ...index.Range) (*cache.View, error) {
	object, size := ix.b.indexObject(), ix.header.IndexSize()
	for _, p := range parts {
		if n := p.End - p.Start; p.Start < 0 || n < 0 || p.End > size {
			return nil, errs.E(errs.Invalid, "%s: %d bytes at %d of %d", object, n, p.Start, size)
		}
	}
	if len(parts) == 0 {
		return &cache.View{}, nil
	}
	bytes := memoryOf(parts)
	if err := ix.lease.take(ctx, bytes); err != nil {
		return nil, err
	}
	f := ix.file(parts[0].Start)
	tallyOf(ctx).touched[dataType(f.kind)].add(len(parts), bytes)
	return ix.objects.read(ctx, f, parts...)
}

// fault adds to an error of decoding which index it is about.
func (ix *blockIndex) fault(what string, at int64, err error) error {
	return errs.E(errs.Invalid, "%s: %s at %d: %w", ix.b.indexObject(), what, at, err)
}

// lists reads the lists at ranges, which are in order.
func (ix *blockIndex) lists(ctx context.Context, ranges []index.Range) ([]index.Postings, error) {
	read, err := ix.read(ctx, ranges...)
	if err != nil {
		return nil, err
	}
	lists := make([]index.Postings, len(ranges))
	for i, r := range ranges {
		b, err := ix.file(r.Start).whole(read, r)
		if err != nil {
			return nil, err
		}
		d := encoding.NewDecbufAt(block.Bytes(b), 0, block.Castagnoli)
		if _, lists[i], err = index.DecodePostingsRaw(d); err != nil {
			return nil, ix.fault("postings", r.Start, err)
		}
	}
	return lists, nil
}

// series calls f with the entries of the first refs, which are in order, and returns how many: as many as take
// maxRange. What f gets is valid until it returns. An entry that is faulty is skipped, and the rest of the index is
// read.
func (ix *blockIndex) series(ctx context.Context, refs []storage.SeriesRef, f func(*indexEntry) error,
	skip func(error)) (n int, err error) {
	within := ix.header.SeriesRange()
	parts := make([]index.Range, 0, len(refs))
	var memory cache.Extent
	for _, r := range refs {
		if at(r) < within.Start || at(r) >= within.End {
			return 0, errs.E(errs.Invalid, "%s: a series at %d, outside [%d, %d)", ix.b.indexObject(), at(r), within.Start,
				within.End)
		}
		p := index.Range{Start: at(r), End: min(at(r)+ix.b.entrySize.size(), within.End)}
		if memory.Add(p); len(parts) > 0 && memory.Bytes > maxRange {
			break
		}
		parts = append(parts, p)
	}
	read, err := ix.read(ctx, parts...)
	if err != nil {
		return 0, err
	}
	defer func() { ix.lease.bytes.Give(memoryOf(parts)) }() // what f kept of them is counted by itself
	ix.symbols.expect(len(parts))
	var entry indexEntry
	for _, p := range parts {
		err := ix.decode(ctx, read, p.Start, &entry)
		if err == nil {
			err = f(&entry)
		}
		if ofOneEntry(err) {
			skip(err)
		} else if err != nil {
			return 0, err
		}
	}
	return len(parts), nil
}

// decode reads the entry at off in the index into e.
func (ix *blockIndex) decode(ctx context.Context, read *cache.View, off int64, e *indexEntry) error {
	content, err := ix.content(ctx, read, off)
	if err != nil {
		return err
	}
	if err := e.decode(content); err != nil {
		return ix.fault("series", off, err)
	}
	return nil
}

// ofOneEntry reports whether err is a fault of the bytes that were read. Then the bucket answers, and no limit is met.
func ofOneEntry(err error) bool { return errs.KindOf(err) == errs.Invalid }

// mostEntry is more bytes than any series entry or chunk has. A length beyond it is wrong, and reading so much would
// take the memory of all requests, or fail this one for what is a fault of one entry.
const mostEntry = 64 << 20

func at(ref storage.SeriesRef) int64 { return int64(ref) * block.SeriesAlign }

// content returns the content of the series entry at off. An entry that was not read to its end is read anew, whole.
func (ix *blockIndex) content(ctx context.Context, read *cache.View, off int64) ([]byte, error) {
	n, lead := binary.Uvarint(read.At(off, binary.MaxVarintLen32))
	if lead <= 0 || n > mostEntry {
		return nil, errs.E(errs.Invalid, "%s: length of the series at %d", ix.b.indexObject(), off)
	}
	whole := int64(lead) + int64(n) + crc32.Size
	b := read.At(off, whole)
	if int64(len(b)) < whole {
		ix.b.entrySize.saw(whole)
		again, err := ix.read(ctx, index.Range{Start: off, End: off + whole})
		if err != nil {
			return nil, err
		}
		if b = again.At(off, whole); int64(len(b)) < whole {
			return nil, errs.E(errs.Invalid, "%s: the series at %d is cut off", ix.b.indexObject(), off)
		}
	}
	content := b[lead : uint64(lead)+n]
	if sum := binary.BigEndian.Uint32(b[uint64(lead)+n:]); crc32.Checksum(content, block.Castagnoli) != sum {
		return nil, errs.E(errs.Invalid, "%s: checksum of the series at %d", ix.b.indexObject(), off)
	}
	return content, nil
}
