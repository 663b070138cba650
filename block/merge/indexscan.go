package merge

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Bounds of what an index may ask to be read at once, in bytes.
const (
	maxSymbol      = 16 << 20
	maxSeriesEntry = 64 << 20
)

// indexTOCLen is the length of the table of contents at the end of an index.
const indexTOCLen = 6*8 + crc32.Size

// indexScan reads an index once, from its symbols to the end of its series. Postings are not read: they follow from the
// series. All errors have a kind, and none names the block.
type indexScan struct {
	file    *os.File
	toc     *index.TOC
	size    int64
	symbols int // number of them
	w       window
	left    int    // symbols that were not read
	end     int64  // of the section that is read
	crc     uint32 // of what was read of the symbols
	last    []byte // the symbol before the next one
	started bool
}

// openIndex reads the table of contents of an index. The scan owns f, also after an error. buffer is the number of
// bytes that are read at a time.
func openIndex(f *os.File, buffer int) (*indexScan, error) {
	s := &indexScan{file: f, w: window{buf: make([]byte, buffer)}, last: make([]byte, 0, 64)} // a symbol may be empty
	err := s.open()
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *indexScan) open() error {
	info, err := s.file.Stat()
	if err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	s.size = info.Size()
	if s.size < index.HeaderLen+indexTOCLen {
		return errs.E(errs.Invalid, "%d bytes are no index", s.size)
	}
	var head [index.HeaderLen]byte
	var tail [indexTOCLen]byte
	for _, err := range []error{s.readAt(head[:], 0), s.readAt(tail[:], s.size-indexTOCLen)} {
		if err != nil {
			return err
		}
	}
	if m := binary.BigEndian.Uint32(head[:]); m != index.MagicIndex {
		return errs.E(errs.Invalid, "magic %x of an index", m)
	}
	if v := head[4]; v != index.FormatV2 && v != index.FormatV3 {
		return errs.E(errs.Unsupported, "version %d of an index", v)
	}
	if s.toc, err = index.NewTOCFromByteSlice(block.Bytes(tail[:])); err != nil {
		return errs.E(errs.Invalid, "table of contents of an index: %w", err)
	}
	t, end := s.toc, uint64(s.size-indexTOCLen)
	if t.Symbols < index.HeaderLen || t.Series < t.Symbols || t.Postings < t.Series || t.Postings > end {
		return errs.E(errs.Invalid, "table of contents %+v of an index of %d bytes", *t, s.size)
	}
	return s.startSymbols()
}

func (s *indexScan) readAt(b []byte, off int64) error {
	if _, err := s.file.ReadAt(b, off); err != nil {
		return errs.E(errs.Internal, "read index: %w", err)
	}
	return nil
}

// section begins to read at off.
func (s *indexScan) section(off, end int64) {
	s.w.reset(io.NewSectionReader(s.file, off, end-off), off)
	s.end = end
}

func (s *indexScan) startSymbols() error {
	s.section(int64(s.toc.Symbols), int64(s.toc.Series))
	b, err := s.w.need(8)
	if err != nil {
		return s.cut(err, "symbols")
	}
	length := int64(binary.BigEndian.Uint32(b))
	s.symbols = int(binary.BigEndian.Uint32(b[4:]))
	s.left = s.symbols
	if end := s.w.off + 4 + length + crc32.Size; length < 4 || end > s.end || int64(s.symbols) > length-4 {
		return errs.E(errs.Invalid, "%d symbols in %d bytes of %d", s.symbols, length, s.end-s.w.off)
	} else {
		s.end = end - crc32.Size
	}
	s.crc = crc32.Update(0, block.Castagnoli, b[4:8])
	s.w.skip(8)
	return nil
}

// nextSymbol is the next symbol, valid until the next call; nil after the last one. Symbols are sorted.
func (s *indexScan) nextSymbol() ([]byte, error) {
	if s.left == 0 {
		return nil, s.endSymbols()
	}
	n, lead, err := s.uvarint()
	if err != nil {
		return nil, s.cut(err, "symbols")
	}
	if n > maxSymbol || int64(n) > s.end-s.w.off-int64(lead) {
		return nil, errs.E(errs.Invalid, "symbol of %d bytes at %d of an index", n, s.w.off)
	}
	b, err := s.w.need(lead + int(n))
	if err != nil {
		return nil, s.cut(err, "symbols")
	}
	s.crc = crc32.Update(s.crc, block.Castagnoli, b)
	text := b[lead:]
	if s.started && string(s.last) >= string(text) {
		return nil, errs.E(errs.Invalid, "symbol %q after %q in an index", text, s.last)
	}
	s.last, s.started = append(s.last[:0], text...), true
	s.w.skip(len(b))
	s.left--
	return s.last, nil
}

// uvarint decodes the number that comes next, without consuming it.
func (s *indexScan) uvarint() (value uint64, length int, err error) {
	b, err := s.w.upTo(binary.MaxVarintLen64)
	if err != nil {
		return 0, 0, err
	}
	if value, length = binary.Uvarint(b); length <= 0 {
		return 0, 0, io.ErrUnexpectedEOF
	}
	return value, length, nil
}

func (s *indexScan) endSymbols() error {
	if s.w.off != s.end {
		return errs.E(errs.Invalid, "%d bytes after the symbols of an index", s.end-s.w.off)
	}
	s.end += crc32.Size
	b, err := s.w.need(crc32.Size)
	if err != nil {
		return s.cut(err, "symbols")
	}
	if binary.BigEndian.Uint32(b) != s.crc {
		return errs.E(errs.Invalid, "checksum of the symbols of an index")
	}
	return nil
}

// startSeries goes to the first series.
func (s *indexScan) startSeries() {
	end := int64(s.toc.Postings)
	if l := int64(s.toc.LabelIndices); l >= int64(s.toc.Series) && l < end {
		end = l
	}
	s.section(int64(s.toc.Series), end)
}

// nextSeries is the entry of the next series, without its length and checksum, valid until the next call; nil after the
// last one.
func (s *indexScan) nextSeries() ([]byte, error) {
	if pad := s.w.off % block.SeriesAlign; pad != 0 {
		pad = min(block.SeriesAlign-pad, s.end-s.w.off)
		if err := s.w.discard(pad); err != nil {
			return nil, s.cut(err, "series")
		}
	}
	if s.w.off >= s.end {
		return nil, nil
	}
	n, lead, err := s.uvarint()
	if err != nil {
		return nil, s.cut(err, "series")
	}
	if n > maxSeriesEntry || int64(n) > s.end-s.w.off-int64(lead)-crc32.Size {
		return nil, errs.E(errs.Invalid, "series entry of %d bytes at %d of an index", n, s.w.off)
	}
	b, err := s.w.need(lead + int(n) + crc32.Size)
	if err != nil {
		return nil, s.cut(err, "series")
	}
	entry := b[lead : lead+int(n)]
	if crc32.Checksum(entry, block.Castagnoli) != binary.BigEndian.Uint32(b[lead+int(n):]) {
		return nil, errs.E(errs.Invalid, "checksum of the series at %d of an index", s.w.off)
	}
	s.w.skip(len(b))
	return entry, nil
}

// cut is the error for a read that failed. The size of the file is known, so an end is a fault of the section.
func (s *indexScan) cut(err error, section string) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.E(errs.Invalid, "the %s of an index end at %d", section, s.w.off)
	}
	return errs.E(errs.Internal, "read the %s of an index: %w", section, err)
}

func (s *indexScan) close() { s.file.Close() }

// chunkRef is a chunk as a series entry names it: times in ms, and where it is.
type chunkRef struct {
	mint, maxt int64
	ref        uint64 // number of the segment from 0 in the upper 32 bits, offset in it in the lower
}

// decoder reads numbers of a series entry.
type entryDecoder struct {
	b   []byte
	bad bool
}

func (d *entryDecoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 {
		v := uint64(d.b[0])
		d.b = d.b[1:]
		return v
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *entryDecoder) varint() int64 {
	v := d.uvarint()
	x := int64(v >> 1)
	if v&1 != 0 {
		x = ^x
	}
	return x
}

// decodeLabels appends the symbols of a series entry to dst, and returns the rest of the entry. symbols is the number
// of those that exist.
func decodeLabels(dst []uint32, entry []byte, symbols int) (labels []uint32, rest []byte, err error) {
	d := entryDecoder{b: entry}
	n := d.uvarint()
	if n > uint64(len(entry))/2 {
		return dst, nil, errs.E(errs.Invalid, "%d labels in a series entry of %d bytes", n, len(entry))
	}
	for range 2 * n {
		ref := d.uvarint()
		if ref >= uint64(symbols) {
			return dst, nil, errs.E(errs.Invalid, "symbol %d of %d in a series entry", ref, symbols)
		}
		dst = append(dst, uint32(ref))
	}
	if d.bad {
		return dst, nil, errs.E(errs.Invalid, "labels of a series entry are cut off")
	}
	return dst, d.b, nil
}

// decodeChunks appends the chunks of a series entry to dst; b is what decodeLabels has left. Times may go back.
func decodeChunks(dst []chunkRef, b []byte) ([]chunkRef, error) {
	d := entryDecoder{b: b}
	n := d.uvarint()
	if n > uint64(len(b))/3 {
		return dst, errs.E(errs.Invalid, "%d chunks in %d bytes of a series entry", n, len(b))
	}
	var c chunkRef
	for i := range n {
		if i == 0 {
			c.mint = d.varint()
			c.maxt = c.mint + int64(d.uvarint())
			c.ref = d.uvarint()
		} else {
			c.mint = c.maxt + int64(d.uvarint())
			c.maxt = c.mint + int64(d.uvarint())
			c.ref += uint64(d.varint())
		}
		if c.maxt < c.mint {
			return dst, errs.E(errs.Invalid, "chunk from %d to %d in a series entry", c.mint, c.maxt)
		}
		dst = append(dst, c)
	}
	if d.bad {
		return dst, errs.E(errs.Invalid, "chunks of a series entry are cut off")
	}
	return dst, nil
}
