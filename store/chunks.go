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

const (
	// chunkLead is the most bytes that stand before a chunk's data: its length and encoding.
	chunkLead = chunks.MaxChunkLengthFieldSize + chunks.ChunkEncodingSize
)

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

// fill reads all wanted chunks, neighbours by one range read. It may reorder list. What is faulty or missing stays
// empty, and is among the faults.
func (r *chunkReader) fill(ctx context.Context, list []wanted) error {
	tallyOf(ctx).touched[dataType(cache.Chunks)].items.Add(int64(len(list)))
	slices.SortFunc(list, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.offset, b.offset))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(blockReads)
	for first := 0; first < len(list); {
		last := first + 1
		for last < len(list) && list[last].segment == list[first].segment {
			last++
		}
		file := list[first:last]
		seg := r.b.segment(file[0].segment)
		for _, one := range runs(len(file), func(i int) index.Range { return r.place(seg, file[i]) }) {
			g.Go(func() error {
				if err := r.fillRun(ctx, seg, one, file[one.first:one.last]); err != nil && !r.skip(err) {
					return err
				}
				return nil
			})
		}
		first = last
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

// fillRun reads chunks that lie together in one file.
func (r *chunkReader) fillRun(ctx context.Context, seg segment, one run, list []wanted) error {
	b, err := r.readChunks(ctx, seg, one.Range, true)
	if err != nil {
		return err
	}
	for _, w := range list {
		from := int64(w.offset) - one.Start
		if from > int64(len(b)) {
			err = errs.E(errs.Invalid, "%s: ends at %d, before the chunk at %d", seg.object, one.Start+int64(len(b)), w.offset)
		} else {
			err = r.decode(ctx, seg, b[from:], w)
		}
		if err != nil && !r.skip(err) {
			return err
		}
	}
	return nil
}

// readChunks returns the bytes of a range of a file of chunks; fewer if short is set and the file ends.
func (r *chunkReader) readChunks(ctx context.Context, seg segment, at index.Range, short bool) ([]byte, error) {
	if err := r.lease.take(ctx, at.End-at.Start); err != nil {
		return nil, err
	}
	f := file{cache.File{Block: r.b.meta.ULID, Number: seg.number, Size: seg.size}, seg.object, cache.Chunks}
	return r.objects.read(ctx, f, at.Start, at.End-at.Start, short)
}

// decode checks the chunk that b begins with and stores it. A chunk that b cuts off is read anew, whole.
func (r *chunkReader) decode(ctx context.Context, seg segment, b []byte, w wanted) error {
	n, lead := binary.Uvarint(b)
	if lead <= 0 || lead > chunks.MaxChunkLengthFieldSize || n > mostEntry {
		return errs.E(errs.Invalid, "%s: length of the chunk at %d", seg.object, w.offset)
	}
	whole := int64(lead) + chunks.ChunkEncodingSize + int64(n) + crc32.Size
	if whole > int64(len(b)) {
		r.b.chunkSize.saw(whole)
		var err error
		at := index.Range{Start: int64(w.offset), End: int64(w.offset) + whole}
		if b, err = r.readChunks(ctx, seg, at, false); err != nil {
			return err
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
