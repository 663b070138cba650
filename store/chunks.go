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
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

const (
	// chunkGap is how many unwanted bytes of chunks are read rather than making another range read.
	chunkGap = 128 << 10
	// maxChunkRange bounds one read of adjacent chunks, in bytes.
	maxChunkRange = 4 << 20
	// chunkGuess is the size of a chunk when meta.json does not bound it.
	chunkGuess = 4 << 10
	// chunkReads is how many ranges of one block a request reads at once.
	chunkReads = 4
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

// guess bounds the size of most chunks with what is around their data.
func (r *chunkReader) guess() int64 {
	return clampGuess(r.b.meta.Thanos.IndexStats.ChunkMaxSize, chunkGuess) + chunkLead + crc32.Size
}

// fill reads all wanted chunks, neighbours by one range read. It may reorder list. What is faulty or missing stays
// empty, and is among the faults.
func (r *chunkReader) fill(ctx context.Context, list []wanted) error {
	slices.SortFunc(list, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.offset, b.offset))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(chunkReads)
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && list[j].segment == list[i].segment && list[j].offset-list[j-1].offset <= chunkGap &&
			list[j].offset-list[i].offset <= maxChunkRange {
			j++
		}
		run := list[i:j]
		g.Go(func() error {
			if err := r.fillRun(ctx, run); err != nil && !r.skip(err) {
				return err
			}
			return nil
		})
		i = j
	}
	return g.Wait()
}

// fillRun reads chunks that lie together in one segment.
func (r *chunkReader) fillRun(ctx context.Context, run []wanted) error {
	seg := r.b.segment(run[0].segment)
	begin, last := int64(run[0].offset), int64(run[len(run)-1].offset)
	end := last + r.guess()
	if seg.size > last { // else meta.json is wrong about the file
		end = min(end, seg.size)
	}
	b, err := r.read(ctx, seg, begin, end-begin, true)
	if err != nil {
		return err
	}
	for _, w := range run {
		from := int64(w.offset) - begin
		if from > int64(len(b)) {
			err = errs.E(errs.Invalid, "%s: ends at %d, before the chunk at %d", seg.object, begin+int64(len(b)), w.offset)
		} else {
			err = r.decode(ctx, seg, b[from:], w)
		}
		if err != nil && !r.skip(err) {
			return err
		}
	}
	return nil
}

func (r *chunkReader) read(ctx context.Context, seg segment, off, n int64, short bool) ([]byte, error) {
	if err := r.lease.take(ctx, n); err != nil {
		return nil, err
	}
	return r.objects.read(ctx, ofChunks, seg.object, off, n, short)
}

// decode checks the chunk that b begins with and stores it. A chunk that b cuts off is read anew, whole.
func (r *chunkReader) decode(ctx context.Context, seg segment, b []byte, w wanted) error {
	n, lead := binary.Uvarint(b)
	if lead <= 0 || lead > chunks.MaxChunkLengthFieldSize || n > mostEntry {
		return errs.E(errs.Invalid, "%s: length of the chunk at %d", seg.object, w.offset)
	}
	whole := int64(lead) + chunks.ChunkEncodingSize + int64(n) + crc32.Size
	if whole > int64(len(b)) {
		var err error
		if b, err = r.read(ctx, seg, int64(w.offset), whole, false); err != nil {
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
