package store

import (
	"context"
	"encoding/binary"
	"hash/crc32"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/errgroup"

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

// read returns bytes of the index, counted against the lease.
func (ix *blockIndex) read(ctx context.Context, off, n int64) ([]byte, error) {
	object, size := ix.b.indexObject(), ix.header.IndexSize()
	if off < 0 || n < 0 || off > size-n {
		return nil, errs.E(errs.Invalid, "%s: %d bytes at %d of %d", object, n, off, size)
	}
	if err := ix.lease.take(ctx, n); err != nil {
		return nil, err
	}
	f := file{cache.File{Block: ix.b.meta.ULID, Size: size}, object, cache.Postings}
	if off < ix.header.SeriesRange().End {
		f.kind = cache.Series
	}
	return ix.objects.read(ctx, f, off, n, false)
}

// fault adds to an error of decoding which index it is about.
func (ix *blockIndex) fault(what string, at int64, err error) error {
	return errs.E(errs.Invalid, "%s: %s at %d: %w", ix.b.indexObject(), what, at, err)
}

// lists reads the lists at ranges, which are in order.
func (ix *blockIndex) lists(ctx context.Context, ranges []index.Range) ([]index.Postings, error) {
	raw, err := ix.readPostings(ctx, ranges)
	if err != nil {
		return nil, err
	}
	lists := make([]index.Postings, len(raw))
	for i, b := range raw {
		d := encoding.NewDecbufAt(block.Bytes(b), 0, block.Castagnoli)
		if _, lists[i], err = index.DecodePostingsRaw(d); err != nil {
			return nil, ix.fault("postings", ranges[i].Start, err)
		}
	}
	return lists, nil
}

// readPostings returns the bytes of the lists at ranges, which are in order. They count until the request ends.
func (ix *blockIndex) readPostings(ctx context.Context, ranges []index.Range) ([][]byte, error) {
	tallyOf(ctx).touched[dataType(cache.Postings)].items.Add(int64(len(ranges)))
	out := make([][]byte, len(ranges))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(blockReads)
	for _, r := range runs(len(ranges), func(i int) index.Range { return ranges[i] }) {
		eg.Go(func() error {
			b, err := ix.read(ctx, r.Start, r.size())
			if err != nil {
				return err
			}
			for i := r.first; i < r.last; i++ {
				out[i] = b[ranges[i].Start-r.Start : ranges[i].End-r.Start]
			}
			return nil
		})
	}
	return out, eg.Wait()
}

// series calls f with the entries of the first refs, which are in order, and returns how many: as many as a few reads
// have. What f gets is valid until it returns. An entry that is faulty is skipped, and the rest of the index is read.
func (ix *blockIndex) series(ctx context.Context, refs []storage.SeriesRef, f func(*indexEntry) error,
	skip func(error)) (n int, err error) {
	within := ix.header.SeriesRange()
	for _, r := range refs {
		if at(r) < within.Start || at(r) >= within.End {
			return 0, errs.E(errs.Invalid, "%s: a series at %d, outside [%d, %d)", ix.b.indexObject(), at(r), within.Start,
				within.End)
		}
	}
	all := runs(len(refs), func(i int) index.Range {
		return index.Range{Start: at(refs[i]), End: min(at(refs[i])+ix.b.entrySize.size(), within.End)}
	})
	bytes := int64(0)
	for i, r := range all {
		if bytes += r.size(); i > 0 && bytes > maxRange {
			all = all[:i]
			break
		}
	}
	read, err := ix.readSeries(ctx, all)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, r := range all {
			ix.lease.bytes.Give(r.size()) // what f kept of them is counted by itself
		}
	}()
	ix.symbols.expect(len(refs))
	var entry indexEntry
	for k, r := range all {
		for _, ref := range refs[r.first:r.last] {
			err := ix.decode(ctx, read[k][at(ref)-r.Start:], at(ref), &entry)
			if err == nil {
				err = f(&entry)
			}
			if ofOneEntry(err) {
				skip(err)
			} else if err != nil {
				return 0, err
			}
		}
	}
	return all[len(all)-1].last, nil
}

// readSeries returns the bytes of ranges of series entries.
func (ix *blockIndex) readSeries(ctx context.Context, all []run) ([][]byte, error) {
	tallyOf(ctx).touched[dataType(cache.Series)].items.Add(int64(all[len(all)-1].last))
	out := make([][]byte, len(all))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(blockReads)
	for i, r := range all {
		eg.Go(func() (err error) {
			out[i], err = ix.read(ctx, r.Start, r.size())
			return err
		})
	}
	return out, eg.Wait()
}

// decode reads the entry that b begins with, which is at off in the index, into e.
func (ix *blockIndex) decode(ctx context.Context, b []byte, off int64, e *indexEntry) error {
	content, err := ix.content(ctx, b, off)
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

// content returns the content of the series entry that b begins with. An entry that b cuts off is read anew, whole.
func (ix *blockIndex) content(ctx context.Context, b []byte, off int64) ([]byte, error) {
	n, lead := binary.Uvarint(b)
	if lead <= 0 || lead > binary.MaxVarintLen32 || n > mostEntry {
		return nil, errs.E(errs.Invalid, "%s: length of the series at %d", ix.b.indexObject(), off)
	}
	if whole := int64(lead) + int64(n) + crc32.Size; whole > int64(len(b)) {
		ix.b.entrySize.saw(whole)
		var err error
		if b, err = ix.read(ctx, off, whole); err != nil {
			return nil, err
		}
	}
	content := b[lead : uint64(lead)+n]
	if sum := binary.BigEndian.Uint32(b[uint64(lead)+n:]); crc32.Checksum(content, block.Castagnoli) != sum {
		return nil, errs.E(errs.Invalid, "%s: checksum of the series at %d", ix.b.indexObject(), off)
	}
	return content, nil
}
