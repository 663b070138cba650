package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/store/cache"
)

// fileReads is how many files of chunks of one block a request reads at once.
const fileReads = 8

// wanted is one chunk to read, into dst.
type wanted struct {
	segment, offset int
	dst             *series.Chunk
}

// chunkReader reads chunks of a block for one request.
type chunkReader struct {
	b       *bucketBlock
	objects *objects
	lease   *lease
	// keep are the aggregates of downsampled chunks that are wanted.
	keep [series.NumAggregates]bool

	mu     sync.Mutex // guards faults
	faults []error    // of single chunks and files since the last takeFaults
}

// skip reports whether err is a fault of one chunk or of one file of chunks, and notes it: the other chunks are good.
func (r *chunkReader) skip(err error) bool {
	switch errs.KindOf(err) {
	case errs.Invalid, errs.NotFound:
	default:
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err)
	return true
}

func (r *chunkReader) takeFaults() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.faults
	r.faults = nil
	return all
}

func newChunkReader(b *bucketBlock, o *objects, l *lease, aggregates []series.Aggregate) *chunkReader {
	r := &chunkReader{b: b, objects: o, lease: l}
	for a := range series.NumAggregates {
		r.keep[a] = len(aggregates) == 0 || slices.Contains(aggregates, a)
	}
	return r
}

// fill reads all wanted chunks. It may reorder list. What is faulty or missing stays empty, and is among the faults.
func (r *chunkReader) fill(ctx context.Context, list []wanted) error {
	slices.SortFunc(list, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.offset, b.offset))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fileReads)
	for len(list) > 0 {
		last := 1
		for last < len(list) && list[last].segment == list[0].segment {
			last++
		}
		own := list[:last]
		list = list[last:]
		g.Go(func() error {
			if err := r.fillFile(ctx, r.b.segment(own[0].segment), own); err != nil && !r.skip(err) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// place is where a chunk is expected in its file.
func (r *chunkReader) place(seg segment, w wanted) index.Range {
	at := index.Range{Start: int64(w.offset), End: int64(w.offset) + r.b.chunkSize.size()}
	if seg.size > at.Start { // else meta.json is wrong about the file
		at.End = min(at.End, seg.size)
	}
	return at
}

// fillFile reads chunks of one file.
func (r *chunkReader) fillFile(ctx context.Context, seg segment, list []wanted) error {
	parts := make([]index.Range, len(list))
	for i, w := range list {
		parts[i] = r.place(seg, w)
	}
	read, err := r.read(ctx, seg, parts...)
	if err != nil {
		return err
	}
	for _, w := range list {
		if err := r.decode(ctx, seg, read, w); err != nil && !r.skip(err) {
			return err
		}
	}
	return nil
}

// read returns parts of a file of chunks, less where the file ends before.
func (r *chunkReader) read(ctx context.Context, seg segment, parts ...index.Range) (*cache.View, error) {
	bytes := memoryOf(parts)
	if err := r.lease.take(ctx, bytes); err != nil {
		return nil, err
	}
	tallyOf(ctx).touched[dataType(cache.Chunks)].add(len(parts), bytes)
	f := file{cache.File{Block: r.b.meta.ULID, Number: seg.number, Size: seg.size}, seg.object, cache.Chunks}
	return r.objects.read(ctx, f, parts...)
}

// decode checks a chunk and stores it. One that was not read to its end is read anew, whole.
func (r *chunkReader) decode(ctx context.Context, seg segment, read *cache.View, w wanted) error {
	start := read.At(int64(w.offset), chunks.MaxChunkLengthFieldSize)
	if len(start) == 0 {
		return errs.E(errs.Invalid, "%s: ends before the chunk at %d", seg.object, w.offset)
	}
	n, lead := binary.Uvarint(start)
	if lead <= 0 || n > mostEntry {
		return errs.E(errs.Invalid, "%s: length of the chunk at %d", seg.object, w.offset)
	}
	whole := int64(lead) + chunks.ChunkEncodingSize + int64(n) + crc32.Size
	b := read.At(int64(w.offset), whole)
	if int64(len(b)) < whole {
		r.b.chunkSize.saw(whole)
		again, err := r.read(ctx, seg, index.Range{Start: int64(w.offset), End: int64(w.offset) + whole})
		if err != nil {
			return err
		}
		if b = again.At(int64(w.offset), whole); int64(len(b)) < whole {
			return errs.E(errs.Invalid, "%s: the chunk at %d is cut off", seg.object, w.offset)
		}
	}
	content := b[lead : whole-crc32.Size]
	if sum := binary.BigEndian.Uint32(b[whole-crc32.Size:]); crc32.Checksum(content, block.Castagnoli) != sum {
		return errs.E(errs.Invalid, "%s: checksum of the chunk at %d", seg.object, w.offset)
	}
	enc, data := chunkenc.Encoding(content[0]), content[1:len(content):len(content)]
	switch {
	case enc == series.EncAggregates:
		aggr, err := series.DecodeAggregates(data, r.keep)
		if err != nil {
			return errs.E(errs.Invalid, "%s: chunk at %d: %w", seg.object, w.offset, err)
		}
		w.dst.Aggr = aggr
	case chunkenc.IsValidEncoding(enc):
		w.dst.Raw = series.Encoded{Encoding: enc, Data: data}
	default:
		return errs.E(errs.Invalid, "%s: chunk at %d: encoding %d", seg.object, w.offset, enc)
	}
	return nil
}
