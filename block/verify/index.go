package verify

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// The sizes in bytes of what has a fixed one in an index, and where series and other sections begin.
const (
	indexHeader  = 5  // magic and version
	indexTOC     = 52 // six offsets and a checksum
	seriesAlign  = block.SeriesAlign
	sectionAlign = 4
)

// checkIndex reads the index of size bytes that r has, whose last indexTOC bytes are toc, and checks that each byte is
// under a checksum that is right, or is padding of zeros. Faults are of kind Invalid; errors of r are passed on.
func checkIndex(r io.Reader, toc []byte, size int64) error {
	if size < indexHeader+indexTOC || len(toc) != indexTOC {
		return errs.E(errs.Invalid, "an index of %d bytes", size)
	}
	if crc32.Checksum(toc[:indexTOC-4], block.Castagnoli) != binary.BigEndian.Uint32(toc[indexTOC-4:]) {
		return errs.E(errs.Invalid, "the checksum of the table of contents is wrong")
	}
	var at [6]int64 // symbols, series, label indices, their table, postings, their table
	for i := range at {
		at[i] = int64(binary.BigEndian.Uint64(toc[8*i:]))
	}
	w := &walk{r: bufio.NewReaderSize(r, 1<<20), sum: crc32.New(block.Castagnoli)}
	// In the order in which a writer writes them. Each region ends where the next one begins.
	regions := []struct {
		name              string
		begin, end, align int64
	}{
		{"symbols", at[0], at[1], 1}, {"series", at[1], at[2], seriesAlign}, {"label indices", at[2], at[4], 1},
		{"postings", at[4], at[3], sectionAlign}, {"label indices' table", at[3], at[5], 1},
		{"postings' table", at[5], size - indexTOC, 1},
	}
	if err := w.header(); err != nil {
		return err
	}
	for _, g := range regions {
		if g.begin < w.at || g.end < g.begin || g.end > size-indexTOC {
			return errs.E(errs.Invalid, "the table of contents has %s from %d to %d", g.name, g.begin, g.end)
		}
		if err := w.zeros(min(g.end, aligned(g.begin, g.align))); err != nil {
			return fmt.Errorf("before %s: %w", g.name, err)
		}
		for w.at < g.end {
			if err := w.section(g.end, g.align == seriesAlign); err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
		}
	}
	return nil
}

// walk reads an index from its beginning to its end.
type walk struct {
	r   *bufio.Reader
	at  int64
	sum hash.Hash32
}

func (w *walk) header() error {
	var b [indexHeader]byte
	if err := w.read(b[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(b[:]) != 0xBAAAD700 || b[4] != 2 {
		return errs.E(errs.Invalid, "it begins with %x", b)
	}
	return nil
}

func (w *walk) read(b []byte) error {
	n, err := io.ReadFull(w.r, b)
	w.at += int64(n)
	return short(err)
}

// short gives the end of a file that is too short the kind Invalid.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.E(errs.Invalid, "the index ends too early")
	}
	return err
}

// zeros reads padding up to the offset until.
func (w *walk) zeros(until int64) error {
	for w.at < until {
		b, err := w.r.ReadByte()
		if err != nil {
			return short(err)
		}
		if b != 0 {
			return errs.E(errs.Invalid, "a byte at %d is not under a checksum and not 0", w.at)
		}
		w.at++
	}
	return nil
}

// aligned is the first multiple of align from at on.
func aligned(at, align int64) int64 { return (at + align - 1) / align * align }

// section reads one section, and the padding behind it, within a region that ends at end.
func (w *walk) section(end int64, series bool) error {
	from, align := w.at, int64(sectionAlign)
	var length int64
	if series {
		align = seriesAlign
		n, err := binary.ReadUvarint(w)
		if err != nil {
			return short(err)
		}
		length = int64(min(n, 1<<62))
	} else {
		var b [4]byte
		if err := w.read(b[:]); err != nil {
			return err
		}
		length = int64(binary.BigEndian.Uint32(b[:]))
	}
	if length > end-w.at-4 {
		return errs.E(errs.Invalid, "a section at %d of %d bytes is longer than its region", from, length)
	}
	w.sum.Reset()
	n, err := io.CopyN(w.sum, w.r, length)
	w.at += n
	if err != nil {
		return short(err)
	}
	var want [4]byte
	if err := w.read(want[:]); err != nil {
		return err
	}
	if w.sum.Sum32() != binary.BigEndian.Uint32(want[:]) {
		return errs.E(errs.Invalid, "the checksum of the section at %d is wrong", from)
	}
	return w.zeros(min(end, aligned(w.at, align)))
}

// ReadByte implements io.ByteReader.
func (w *walk) ReadByte() (byte, error) {
	b, err := w.r.ReadByte()
	if err == nil {
		w.at++
	}
	return b, err
}
