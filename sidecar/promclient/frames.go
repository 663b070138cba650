package promclient

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/series"
)

// maxFrame bounds a frame in bytes. Prometheus makes frames of about 1 MiB, unless a single chunk is larger.
const maxFrame = 50 << 20

// slabBytes is how much memory frames are read into at a time. What a series refers to keeps a slab alive.
const slabBytes = 32 << 10

// Frame is a part of a series: its labels, and some of its chunks. A series may have several frames, one after another.
// What it refers to stays valid.
type Frame struct {
	// Labels are names and values in turn, sorted by name. They point into Raw.
	Labels [][]byte
	// Chunks are in the order of time. Their data point into Raw.
	Chunks []series.Chunk
	// Raw is the frame as it came.
	Raw []byte
}

// Frames is a streamed response. It is used by one goroutine.
type Frames struct {
	body io.ReadCloser
	in   *bufio.Reader
	slab []byte
	// Bytes is how much was read so far.
	Bytes int64
	// Count is how many frames were read so far.
	Count int
}

func newFrames(body io.ReadCloser) *Frames {
	return &Frames{body: body, in: bufio.NewReaderSize(body, 64<<10)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Next reads the next frame into f, whose slices are used again. io.EOF is the end of a complete response. Other errors
// are of kind Unavailable: what came before them may be a part of the answer only.
func (s *Frames) Next(f *Frame) error {
	size, err := binary.ReadUvarint(s.in)
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return broken(err)
	}
	if size > maxFrame {
		return broken(fmt.Errorf("a frame has %d bytes, more than %d", size, maxFrame))
	}
	var sum [4]byte
	if _, err := io.ReadFull(s.in, sum[:]); err != nil {
		return broken(unexpected(err))
	}
	raw := s.take(int(size))
	if _, err := io.ReadFull(s.in, raw); err != nil {
		return broken(unexpected(err))
	}
	if crc32.Checksum(raw, castagnoli) != binary.BigEndian.Uint32(sum[:]) {
		return broken(errors.New("the checksum of a frame is wrong"))
	}
	s.Bytes += int64(size)
	s.Count++
	f.Raw, f.Labels, f.Chunks = raw, f.Labels[:0], f.Chunks[:0]
	return decodeFrame(raw, f)
}

// unexpected is err, where a response that ends in the middle of a frame does not look like its end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take is memory for a frame of n bytes. Small frames share memory: most are a few hundred bytes.
func (s *Frames) take(n int) []byte {
	if n > slabBytes/4 {
		return make([]byte, n)
	}
	if len(s.slab) < n {
		s.slab = make([]byte, slabBytes)
	}
	out := s.slab[:n:n]
	s.slab = s.slab[n:]
	return out
}

// Close ends the response. Prometheus stops reading when it was not read to its end.
func (s *Frames) Close() error { return s.body.Close() }

// Numbers of fields in prometheus.ChunkedReadResponse and what it holds.
const (
	fieldSeries = 1 // ChunkedReadResponse.chunked_series
	fieldLabels = 1 // ChunkedSeries.labels
	fieldChunks = 2 // ChunkedSeries.chunks
	fieldName   = 1 // Label.name
	fieldValue  = 2 // Label.value
	fieldMin    = 1 // Chunk.min_time_ms
	fieldMax    = 2 // Chunk.max_time_ms
	fieldType   = 3 // Chunk.type
	fieldData   = 4 // Chunk.data
)

// decodeFrame decodes by hand: generated messages would copy the data of each chunk (BenchmarkFrames).
func decodeFrame(raw []byte, f *Frame) error {
	found := 0
	err := fields(raw, func(n protowire.Number, value []byte, _ uint64) error {
		if n != fieldSeries {
			return nil
		}
		if found++; found > 1 {
			return errors.New("a frame has several series")
		}
		return fields(value, func(n protowire.Number, value []byte, _ uint64) error {
			switch n {
			case fieldLabels:
				return decodeLabel(value, f)
			case fieldChunks:
				return decodeChunk(value, f)
			}
			return nil
		})
	})
	if err == nil && found == 0 {
		err = errors.New("a frame has no series")
	}
	return broken(err)
}

func decodeLabel(raw []byte, f *Frame) error {
	var name, value []byte
	err := fields(raw, func(n protowire.Number, b []byte, _ uint64) error {
		switch n {
		case fieldName:
			name = b
		case fieldValue:
			value = b
		}
		return nil
	})
	if n := len(f.Labels); err == nil && n > 0 && string(f.Labels[n-2]) >= string(name) {
		err = fmt.Errorf("the labels of a series are not in order: %q before %q", f.Labels[n-2], name)
	}
	f.Labels = append(f.Labels, name, value)
	return err
}

func decodeChunk(raw []byte, f *Frame) error {
	var c series.Chunk
	err := fields(raw, func(n protowire.Number, b []byte, number uint64) error {
		switch n {
		case fieldMin:
			c.MinTime = int64(number)
		case fieldMax:
			c.MaxTime = int64(number)
		case fieldType:
			if number > uint64(chunkenc.EncFloatHistogramST) {
				return fmt.Errorf("a chunk has the encoding %d, which is not known", number)
			}
			c.Raw.Encoding = chunkenc.Encoding(number)
		case fieldData:
			c.Raw.Data = b
		}
		return nil
	})
	if err == nil && (c.Raw.Encoding == chunkenc.EncNone || len(c.Raw.Data) == 0) {
		err = errors.New("a chunk has no data")
	}
	f.Chunks = append(f.Chunks, c)
	return err
}

// fields calls each with every field of a message: its bytes, or its number.
func fields(raw []byte, each func(n protowire.Number, value []byte, number uint64) error) error {
	for len(raw) > 0 {
		n, typ, size := protowire.ConsumeTag(raw)
		if size < 0 {
			return protowire.ParseError(size)
		}
		raw = raw[size:]
		var value []byte
		var number uint64
		switch typ {
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(raw)
		case protowire.VarintType:
			number, size = protowire.ConsumeVarint(raw)
		default:
			size = protowire.ConsumeFieldValue(n, typ, raw)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		raw = raw[size:]
		if err := each(n, value, number); err != nil {
			return err
		}
	}
	return nil
}
