package merge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// WriterOptions of a BlockWriter.
type WriterOptions struct {
	// SegmentSize is the size in bytes at which a new file of chunks begins; 0 = 512 MiB, as in Prometheus. It changes
	// the bytes of the block.
	SegmentSize int64
	// Memory bounds the bytes that the writer keeps; 0 = DefaultMemory. It does not change a byte of the block. With less,
	// more of the postings is sorted on disk.
	Memory int64
	// Segment, if it is not nil, is called with each finished file of chunks: its path inside the block, and its size. It
	// may send the file away and remove it. The writer waits for it, and its error ends the stream.
	Segment func(rel string, size int64) error
}

// Written is what a BlockWriter wrote.
type Written struct {
	// Stats are those of meta.json.
	Stats tsdb.BlockStats
	// IndexStats bound how much a reader must fetch at once.
	IndexStats block.IndexStats
	// Files are the files of chunks and the index, in the order in which they were finished, with their sizes.
	Files []block.File
	// MinTime and MaxTime are the times in ms of the first and last sample, both included. Without samples MinTime is
	// larger than MaxTime.
	MinTime, MaxTime int64
}

// BlockWriter is a Sink that writes a block into a directory: chunks and index, without meta.json. The index-header is
// made of the index while it is shipped (indexheader.Shipped).
type BlockWriter struct {
	dir     string
	opts    WriterOptions
	index   *indexWriter
	seg     *bufio.Writer
	file    *os.File
	number  int                                                             // of the segment from 0
	pos     int64                                                           // in the segment
	head    [chunks.MaxChunkLengthFieldSize + chunks.ChunkEncodingSize]byte // of a chunk
	refs    []uint64
	written Written
	ended   bool
}

// NewBlockWriter makes the writer of a block in dir, which Begin makes and which must have no chunks or index yet.
// Scratch files lie beside it. Close must be called.
func NewBlockWriter(dir string, opts WriterOptions) *BlockWriter {
	if opts.SegmentSize == 0 {
		opts.SegmentSize = chunks.DefaultChunkSegmentSize
	}
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	return &BlockWriter{dir: dir, opts: opts, number: -1}
}

// Begin implements Sink.
func (w *BlockWriter) Begin(symbols Symbols) (err error) {
	if w.opts.Memory < minMemory || w.opts.SegmentSize < chunks.SegmentHeaderSize {
		return errs.E(errs.Invalid, "block writer: memory of %d bytes, segments of %d", w.opts.Memory, w.opts.SegmentSize)
	}
	path := filepath.Join(w.dir, block.ChunksName)
	if err := os.MkdirAll(w.dir, 0o777); err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		return errs.E(errs.Conflict, "block writer: %w", err)
	}
	w.written.MinTime, w.written.MaxTime = 1, 0
	w.index, err = newIndexWriter(filepath.Dir(w.dir), symbols, w.opts.Memory)
	return err
}

// Add implements Sink. Chunks that overlap, or go back in time, are a fault of the caller and of kind Internal.
func (w *BlockWriter) Add(s *Series) error {
	if len(s.Chunks) == 0 {
		return nil
	}
	w.refs = w.refs[:0]
	for i := range s.Chunks {
		c := &s.Chunks[i]
		if c.MaxTime < c.MinTime || i > 0 && c.MinTime <= s.Chunks[i-1].MaxTime {
			return errs.E(errs.Internal, "block writer: chunk from %d to %d is out of order", c.MinTime, c.MaxTime)
		}
		if err := w.chunk(c); err != nil {
			return err
		}
		w.count(c)
	}
	w.written.Stats.NumSeries++
	return w.index.add(s, w.refs)
}

// count adds a chunk to the statistics.
func (w *BlockWriter) count(c *Chunk) {
	st, n := &w.written.Stats, uint64(samples(c))
	st.NumChunks++
	st.NumSamples += n
	switch e := chunkenc.Encoding(c.Encoding); {
	case e == chunkenc.EncHistogram || e == chunkenc.EncFloatHistogram:
		st.NumHistogramSamples += n
	case e != series.EncAggregates:
		st.NumFloatSamples += n
	}
	if w.written.MinTime > w.written.MaxTime {
		w.written.MinTime, w.written.MaxTime = c.MinTime, c.MaxTime
		return
	}
	w.written.MinTime = min(w.written.MinTime, c.MinTime)
	w.written.MaxTime = max(w.written.MaxTime, c.MaxTime)
}

// chunk writes one chunk to the segment, or to the next one if it would make it too large.
func (w *BlockWriter) chunk(c *Chunk) error {
	size := int64(chunks.MaxChunkLengthFieldSize + chunks.ChunkEncodingSize + len(c.Data) + crc32.Size)
	if w.file == nil || w.pos > chunks.SegmentHeaderSize && w.pos+size > w.opts.SegmentSize {
		if err := w.roll(); err != nil {
			return err
		}
	}
	w.refs = append(w.refs, uint64(w.number)<<32|uint64(w.pos))
	head := w.head[:]
	n := binary.PutUvarint(head, uint64(len(c.Data)))
	head[n] = c.Encoding
	crc := crc32.Update(crc32.Checksum(head[n:n+1], block.Castagnoli), block.Castagnoli, c.Data)
	_, err := w.seg.Write(head[:n+1])
	if err == nil {
		_, err = w.seg.Write(c.Data)
	}
	if err == nil {
		binary.BigEndian.PutUint32(head, crc)
		_, err = w.seg.Write(head[:crc32.Size])
	}
	length := int64(n + 1 + len(c.Data) + crc32.Size)
	w.written.IndexStats.ChunkMaxSize = max(w.written.IndexStats.ChunkMaxSize, length)
	if w.pos += length; w.pos > 1<<32-1 {
		return errs.E(errs.TooLarge, "a segment of %d bytes", w.pos)
	}
	return errs.Wrap(errs.Internal, err)
}

// roll ends the segment and begins the next one.
func (w *BlockWriter) roll() error {
	if err := w.endSegment(); err != nil {
		return err
	}
	w.number++
	f, err := os.OpenFile(w.path(block.SegmentPath(w.number)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	w.file = f
	if w.seg == nil {
		w.seg = bufio.NewWriterSize(f, 512<<10)
	} else {
		w.seg.Reset(f)
	}
	head := binary.BigEndian.AppendUint32(nil, chunks.MagicChunks)
	_, err = w.seg.Write(append(head, 1, 0, 0, 0)) // version, padding
	w.pos = chunks.SegmentHeaderSize
	return errs.Wrap(errs.Internal, err)
}

func (w *BlockWriter) path(rel string) string { return filepath.Join(w.dir, filepath.FromSlash(rel)) }

// endSegment finishes the segment that is open, and hands it on.
func (w *BlockWriter) endSegment() error {
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.seg.Flush(), w.file.Close())
	w.file = nil
	if err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	rel := block.SegmentPath(w.number)
	w.written.Files = append(w.written.Files, block.File{RelPath: rel, SizeBytes: w.pos})
	if w.opts.Segment != nil {
		return w.opts.Segment(rel, w.pos)
	}
	return nil
}

// End implements Sink: it writes the index. A block without series has an index, and no files of chunks.
func (w *BlockWriter) End() error {
	if err := w.endSegment(); err != nil {
		return err
	}
	f, err := os.OpenFile(w.path(block.IndexName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	err = w.index.finish(f)
	if cerr := f.Close(); err == nil {
		err = errs.Wrap(errs.Internal, cerr)
	}
	if err != nil {
		return err
	}
	w.written.Files = append(w.written.Files, block.File{RelPath: block.IndexName, SizeBytes: w.index.pos})
	w.written.IndexStats.SeriesMaxSize = w.index.longest
	w.ended = true
	return nil
}

// Written is what was written. It is complete after End.
func (w *BlockWriter) Written() Written { return w.written }

// Close frees what the writer holds. If the stream was broken off it removes what was written.
func (w *BlockWriter) Close() error {
	var faults []error
	if w.file != nil {
		faults = append(faults, w.file.Close())
		w.file = nil
	}
	if w.index == nil {
		return nil
	}
	w.index.close()
	w.index = nil
	if !w.ended {
		faults = append(faults, os.RemoveAll(w.dir))
	}
	return errs.Wrap(errs.Internal, errors.Join(faults...))
}
