package merge

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// maxChunk is the largest chunk that is read, in bytes. Chunks of writers have kilobytes.
const maxChunk = 64 << 20

// farSkip is how many bytes that nobody needs are read rather than asked for at another offset.
const farSkip = 1 << 20

// maxSeeksBack bounds how often the chunks of an input may lie before those that were read. Writers put them in order
// of the series, so one that does not makes a request to the bucket for each.
const maxSeeksBack = 10_000

// segments reads the chunks of a block, which lie in order of its series, by one forward read of each segment file.
type segments struct {
	ctx   context.Context
	files files
	file  int // the segment that is open, -1 = none
	s     *stream
	w     window
	seeks int
}

func newSegments(ctx context.Context, f files, buffer int) *segments {
	return &segments{ctx: ctx, files: f, file: -1, w: window{buf: make([]byte, buffer)}}
}

// read appends the data of the chunk at ref to dst, and returns its encoding. The checksum is verified.
func (s *segments) read(dst []byte, ref uint64) (data []byte, enc byte, err error) {
	if err := s.move(ref); err != nil {
		return dst, 0, err
	}
	head, err := s.w.upTo(chunks.MaxChunkLengthFieldSize + chunks.ChunkEncodingSize)
	if err != nil {
		return dst, 0, s.fault(err)
	}
	n, lead := binary.Uvarint(head)
	if lead <= 0 || lead > chunks.MaxChunkLengthFieldSize || n > maxChunk {
		return dst, 0, errs.E(errs.Invalid, "%s: chunk of %d bytes at %d", s.s.rel, n, s.w.off)
	}
	whole := lead + chunks.ChunkEncodingSize + int(n) + crc32.Size
	b, err := s.w.need(whole)
	if err != nil {
		return dst, 0, s.fault(err)
	}
	body := b[lead : whole-crc32.Size]
	if crc32.Checksum(body, block.Castagnoli) != binary.BigEndian.Uint32(b[whole-crc32.Size:]) {
		return dst, 0, errs.E(errs.Invalid, "%s: checksum of the chunk at %d", s.s.rel, s.w.off)
	}
	enc = body[0]
	if err := checkChunk(enc, body[1:]); err != nil {
		return dst, 0, errs.E(errs.Invalid, "%s: chunk at %d: %w", s.s.rel, s.w.off, err)
	}
	dst = append(dst, body[1:]...)
	s.w.skip(whole)
	return dst, enc, nil
}

// checkChunk looks at what decoders read without a look at the length of a chunk.
func checkChunk(enc byte, data []byte) error {
	switch e := chunkenc.Encoding(enc); {
	case e == series.EncAggregates:
		_, err := series.DecodeAggregates(data, [series.NumAggregates]bool{})
		return err
	case !chunkenc.IsValidEncoding(e):
		return errs.E(errs.Invalid, "encoding %d", enc)
	case len(data) < minChunk:
		return errs.E(errs.Invalid, "%d bytes", len(data))
	}
	return nil
}

// minChunk is the length in bytes of the header of the longest kind: the number of samples, and flags.
const minChunk = 3

// move goes to the chunk at ref.
func (s *segments) move(ref uint64) error {
	file, off := int(ref>>32), int64(ref&0xffffffff)
	if off < chunks.SegmentHeaderSize {
		return errs.E(errs.Invalid, "chunk at %d of segment %d", off, file+1)
	}
	back := file < s.file || file == s.file && off < s.w.off
	if back {
		if s.seeks++; s.seeks > maxSeeksBack {
			return errs.E(errs.Invalid, "chunks are not in the order of their series %d times", s.seeks)
		}
	}
	if file != s.file {
		if err := s.openFile(file); err != nil {
			return err
		}
	}
	if off >= s.w.off && off-s.w.off <= farSkip+int64(len(s.w.buf)) {
		return s.fault(s.w.discard(off - s.w.off))
	}
	s.s.seek(off)
	s.w.reset(s.s, off)
	return nil
}

// openFile begins to read a segment, and checks what is before its first chunk.
func (s *segments) openFile(file int) error {
	s.close()
	s.s, s.file = newStream(s.ctx, s.files, block.SegmentPath(file)), file
	s.w.reset(s.s, 0)
	head, err := s.w.need(chunks.SegmentHeaderSize)
	if err != nil {
		return s.fault(err)
	}
	if m := binary.BigEndian.Uint32(head); m != chunks.MagicChunks || head[4] != 1 {
		return errs.E(errs.Invalid, "%s: magic %x, version %d of a segment", s.s.rel, m, head[4])
	}
	s.w.skip(chunks.SegmentHeaderSize)
	return nil
}

func (s *segments) fault(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.E(errs.Invalid, "%s ends at %d, and a chunk goes on", s.s.rel, s.w.off)
	}
	return err
}

func (s *segments) close() {
	if s.s != nil {
		s.s.close()
	}
}
