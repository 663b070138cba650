package store

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/store/cache"
)

const (
	// indexGap is how many unwanted bytes of an index are read rather than making another range read.
	indexGap = 2 * cache.PageSize
	// maxIndexRange bounds one read of adjacent postings or series, in bytes.
	maxIndexRange = 8 << 20
	// seriesGuess is the assumed size of a series entry when meta.json does not bound it, in bytes.
	seriesGuess = 2 << 10
)

// blockIndex reads a block's index for one request: names and values from the local header, postings and series by
// range reads through the page cache. It is a tsdb.IndexReader as far as tsdb.PostingsForMatchers needs one.
type blockIndex struct {
	b       *bucketBlock
	header  header // nil until open
	objects *objects
	pages   *cache.Pages
	lease   *lease
	decoder index.Decoder
}

// newBlockIndex makes an index of b. Before anything is asked of it, open is called.
func newBlockIndex(b *bucketBlock, o *objects, pages *cache.Pages, l *lease) *blockIndex {
	ix := &blockIndex{b: b, objects: o, pages: pages, lease: l}
	ix.decoder = index.Decoder{LookupSymbol: func(ctx context.Context, ref uint32) (string, error) {
		text, err := ix.header.LookupSymbol(ctx, ref)
		if len(text) >= series.MaxLabelBytes {
			return "", errs.E(errs.Invalid, "a label of %d bytes", len(text))
		}
		return text, err
	}}
	return ix
}

// open waits for the index-header.
func (ix *blockIndex) open(ctx context.Context) (err error) {
	ix.header, err = ix.b.Header(ctx)
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
	return ix.pages.Read(ctx, object, size, off, n, func(ctx context.Context, off, n int64) ([]byte, error) {
		return ix.objects.read(ctx, ofIndex, object, off, n, false)
	})
}

// fault adds to an error of decoding which index it is about.
func (ix *blockIndex) fault(what string, at int64, err error) error {
	return errs.E(errs.Invalid, "%s: %s at %d: %w", ix.b.indexObject(), what, at, err)
}

// matching returns the references of the series that ms select, in label order. ms may be reordered.
func (ix *blockIndex) matching(ctx context.Context, ms []*labels.Matcher) ([]storage.SeriesRef, error) {
	var p index.Postings
	var err error
	if len(ms) == 0 {
		name, value := index.AllPostingsKey()
		p, err = ix.Postings(ctx, name, value)
	} else {
		p, err = tsdb.PostingsForMatchers(ctx, ix, ms...)
	}
	if err != nil {
		return nil, err
	}
	var refs []storage.SeriesRef
	for p.Next() {
		if err := ix.lease.listed(ctx, len(refs), refBytes); err != nil {
			return nil, err
		}
		refs = append(refs, p.At())
	}
	return refs, p.Err()
}

// Postings implements tsdb.IndexReader.
func (ix *blockIndex) Postings(ctx context.Context, name string, values ...string) (index.Postings, error) {
	slices.Sort(values)
	ranges, err := ix.header.Ranges(ctx, nil, name, slices.Compact(values)...)
	if err != nil {
		return nil, err
	}
	return ix.postings(ctx, ranges)
}

// What an entry of a list takes, in bytes: a reference of a series; a label value with the place of its postings, whose
// text is the index-header's.
const (
	refBytes   = int64(unsafe.Sizeof(storage.SeriesRef(0)))
	valueBytes = int64(unsafe.Sizeof("") + unsafe.Sizeof(index.Range{}))
)

// values lists the values of a label that match, in order, and where their postings are: the first limit of them, or
// all for 0. The lists are counted against the lease.
func (ix *blockIndex) values(ctx context.Context, name string, limit int,
	match func(string) bool) (values []string, ranges []index.Range, err error) {
	var fault error
	err = ix.header.Values(ctx, name, func(value string, at index.Range) bool {
		if fault = ctx.Err(); fault == nil && match(value) {
			if fault = ix.lease.listed(ctx, len(values), valueBytes); fault == nil {
				values, ranges = append(values, value), append(ranges, at)
			}
		}
		return fault == nil && (limit <= 0 || len(values) < limit)
	})
	if fault != nil {
		err = fault
	}
	return values, ranges, err
}

// anyValue and notEmpty are what values may match.
func anyValue(string) bool   { return true }
func notEmpty(v string) bool { return v != "" }

// PostingsForLabelMatching implements tsdb.IndexReader.
func (ix *blockIndex) PostingsForLabelMatching(ctx context.Context, name string,
	match func(string) bool) index.Postings {
	_, ranges, err := ix.values(ctx, name, 0, match)
	if err != nil {
		return index.ErrPostings(err)
	}
	p, err := ix.postings(ctx, ranges)
	if err != nil {
		return index.ErrPostings(err)
	}
	return p
}

// PostingsForAllLabelValues implements tsdb.IndexReader.
func (ix *blockIndex) PostingsForAllLabelValues(ctx context.Context, name string) index.Postings {
	return ix.PostingsForLabelMatching(ctx, name, anyValue)
}

// postings reads the lists at ranges, which are in order, and unites them.
func (ix *blockIndex) postings(ctx context.Context, ranges []index.Range) (index.Postings, error) {
	lists, err := ix.lists(ctx, ranges)
	return index.Merge(ctx, lists...), err
}

// lists reads the lists at ranges, which are in order.
func (ix *blockIndex) lists(ctx context.Context, ranges []index.Range) ([]index.Postings, error) {
	lists := make([]index.Postings, 0, len(ranges))
	for i := 0; i < len(ranges); {
		begin, end, j := ranges[i].Start, ranges[i].End, i+1
		for j < len(ranges) && ranges[j].Start-end <= indexGap && ranges[j].End-begin <= maxIndexRange {
			end = ranges[j].End
			j++
		}
		b, err := ix.read(ctx, begin, end-begin)
		if err != nil {
			return nil, err
		}
		for ; i < j; i++ {
			d := encoding.NewDecbufAt(block.Bytes(b), int(ranges[i].Start-begin), block.Castagnoli)
			_, p, err := index.DecodePostingsRaw(d)
			if err != nil {
				return nil, ix.fault("postings", ranges[i].Start, err)
			}
			lists = append(lists, p)
		}
	}
	return lists, nil
}

// series calls f with the entries of refs, which are in order. The labels are f's, the chunks only until it returns.
// An entry that is faulty is skipped, and the rest of the index is read.
func (ix *blockIndex) series(ctx context.Context, refs []storage.SeriesRef, f func(labels.Labels, []chunks.Meta) error,
	skip func(error)) error {
	guess := clampGuess(ix.b.meta.Thanos.IndexStats.SeriesMaxSize, seriesGuess) + binary.MaxVarintLen32 + crc32.Size
	within := ix.header.SeriesRange()
	var builder labels.ScratchBuilder
	var metas []chunks.Meta
	for i := 0; i < len(refs); {
		begin, j := at(refs[i]), i+1
		for j < len(refs) && at(refs[j])-at(refs[j-1]) <= indexGap && at(refs[j])-begin <= maxIndexRange {
			j++
		}
		if begin < within.Start || at(refs[j-1]) >= within.End {
			return errs.E(errs.Invalid, "%s: a series at %d, outside [%d, %d)", ix.b.indexObject(), at(refs[j-1]),
				within.Start, within.End)
		}
		end := min(at(refs[j-1])+guess, within.End)
		b, err := ix.read(ctx, begin, end-begin)
		if err != nil {
			return err
		}
		for ; i < j; i++ {
			err := ix.decode(ctx, b[at(refs[i])-begin:], at(refs[i]), &builder, &metas)
			if ofOneEntry(err) {
				skip(err)
				continue
			}
			if err != nil {
				return err
			}
			if err := f(builder.Labels(), metas); err != nil {
				return err
			}
		}
	}
	return nil
}

// decode reads the entry that b begins with, which is at off in the index.
func (ix *blockIndex) decode(ctx context.Context, b []byte, off int64, builder *labels.ScratchBuilder,
	metas *[]chunks.Meta) error {
	entry, err := ix.entry(ctx, b, off)
	if err != nil {
		return err
	}
	if err := ix.decoder.Series(entry, builder, metas); err != nil {
		return ix.fault("series", off, err)
	}
	return nil
}

// ofOneEntry reports whether err is a fault of the bytes that were read. Then the bucket answers, and no limit is met.
func ofOneEntry(err error) bool { return errs.KindOf(err) == errs.Invalid }

// maxGuess bounds what meta.json makes us read ahead, in bytes: what it says of sizes may be wrong, and what is
// larger than guessed is read anew.
const maxGuess = 1 << 20

// mostEntry is more bytes than any series entry or chunk has. A length beyond it is wrong, and reading so much would
// take the memory of all requests, or fail this one for what is a fault of one entry.
const mostEntry = 64 << 20

// clampGuess is the size of most entries: the one that meta.json says, within bounds.
func clampGuess(said, least int64) int64 { return min(max(said, least), maxGuess) }

func at(ref storage.SeriesRef) int64 { return int64(ref) * block.SeriesAlign }

// entry returns the content of the series entry that b begins with. An entry that b cuts off is read anew, whole.
func (ix *blockIndex) entry(ctx context.Context, b []byte, off int64) ([]byte, error) {
	n, lead := binary.Uvarint(b)
	if lead <= 0 || lead > binary.MaxVarintLen32 || n > mostEntry {
		return nil, errs.E(errs.Invalid, "%s: length of the series at %d", ix.b.indexObject(), off)
	}
	if whole := int64(lead) + int64(n) + crc32.Size; whole > int64(len(b)) {
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

// LabelValues implements tsdb.IndexReader. Matchers are not supported.
func (ix *blockIndex) LabelValues(ctx context.Context, name string, hints *storage.LabelHints,
	ms ...*labels.Matcher) ([]string, error) {
	if len(ms) > 0 {
		return nil, errs.E(errs.Unsupported, "label values with matchers")
	}
	limit := 0
	if hints != nil {
		limit = hints.Limit
	}
	values, _, err := ix.values(ctx, name, limit, anyValue)
	return values, err
}

// SortedLabelValues implements tsdb.IndexReader: the header's values are sorted.
func (ix *blockIndex) SortedLabelValues(ctx context.Context, name string, hints *storage.LabelHints,
	ms ...*labels.Matcher) ([]string, error) {
	return ix.LabelValues(ctx, name, hints, ms...)
}

// LabelNames implements tsdb.IndexReader. Matchers are not supported.
func (ix *blockIndex) LabelNames(_ context.Context, ms ...*labels.Matcher) ([]string, error) {
	if len(ms) > 0 {
		return nil, errs.E(errs.Unsupported, "label names with matchers")
	}
	return slices.Clone(ix.header.LabelNames()), nil
}

// SortedPostings implements tsdb.IndexReader: references are in label order.
func (ix *blockIndex) SortedPostings(p index.Postings) index.Postings { return p }

// Close implements tsdb.IndexReader. It does nothing: whoever holds the block releases it.
func (ix *blockIndex) Close() error { return nil }

var errNotNeeded = errs.E(errs.Unsupported, "reading a block from the bucket does not need this")

// Symbols implements tsdb.IndexReader only in form.
func (ix *blockIndex) Symbols() index.StringIter { return index.NewStringListIter(nil) }

// ShardedPostings implements tsdb.IndexReader only in form: shards are cut where labels are known.
func (ix *blockIndex) ShardedPostings(index.Postings, uint64, uint64) index.Postings {
	return index.ErrPostings(errNotNeeded)
}

// Series implements tsdb.IndexReader only in form: series are read in batches, see series.
func (ix *blockIndex) Series(storage.SeriesRef, *labels.ScratchBuilder, *[]chunks.Meta) error {
	return errNotNeeded
}

// LabelNamesFor implements tsdb.IndexReader only in form.
func (ix *blockIndex) LabelNamesFor(context.Context, index.Postings) ([]string, error) {
	return nil, errNotNeeded
}
