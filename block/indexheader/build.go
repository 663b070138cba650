package indexheader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	magic       = 0xBAAAD792
	version     = 1
	headerLen   = 4 + 1 + 1 + 8
	tocLen      = 8 + 8 + crc32.Size
	indexTOCLen = 6*8 + crc32.Size
)

// Fetch writes the index-header of block m to path: the one that its producer shipped, by one read, or else the one
// that Build cuts out of the index. Errors are those of Build.
func Fetch(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, path string) error {
	if fetchShipped(ctx, bkt, m, path) == nil {
		return nil
	}
	src := source{bkt, m.Object(block.IndexName)}
	if size := m.SizeOf(block.IndexName); size > 0 {
		err := src.build(ctx, size, path)
		if err == nil || errs.KindOf(err) != errs.Invalid && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
	}
	return src.buildWhole(ctx, path) // the size in meta.json may be wrong
}

// Build cuts the index-header of block id out of its index in the bucket and writes it to path, whose directory is
// made. The file appears only whole and verified. Errors: NotFound without an index, Invalid for a faulty one,
// Unsupported for a version this package does not read, Unavailable when the bucket does not answer, Internal for the
// local disk.
func Build(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, path string) error {
	return source{bkt, block.Object(id, block.IndexName)}.buildWhole(ctx, path)
}

// buildWhole is Build: it asks for the size of the index.
func (s source) buildWhole(ctx context.Context, path string) error {
	attrs, err := s.bkt.Attributes(ctx, s.name)
	if err != nil {
		return s.fault(err)
	}
	return s.build(ctx, attrs.Size, path)
}

// Cut writes the index-header of block id to path as Build does, from the whole index in memory.
func Cut(index []byte, id ulid.ULID, path string) error {
	name := block.Object(id, block.IndexName)
	size := int64(len(index))
	toc, v, err := contents(size, func(b []byte, off int64) error {
		copy(b, index[off:])
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l := layoutOf(toc, v, size)
	return install(path, name, size, func(w io.Writer) error {
		for _, part := range [][]byte{l.head, index[l.symbols:][:l.symbolsLen], index[l.table:], l.tail} {
			if _, err := w.Write(part); err != nil {
				return errs.E(errs.Internal, "%s: %w", name, err)
			}
		}
		return nil
	})
}

// build cuts the index-header out of an index of a size. It makes two range reads: the end of the index, which has its
// table of contents and most often the whole table of postings, and its beginning up to the series.
func (s source) build(ctx context.Context, size int64, path string) error {
	end := make([]byte, min(size, min(max(size/endPart, leastEnd), mostEnd)))
	if err := s.readAt(ctx, end, size-int64(len(end))); err != nil {
		return err
	}
	toc, err := tocOf(end, size)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	begin, err := s.open(ctx, 0, int64(toc.Series))
	if err != nil {
		return err
	}
	defer begin.Close()
	var head [index.HeaderLen]byte
	if _, err := io.ReadFull(begin, head[:]); err != nil {
		return s.fault(err)
	}
	if err := s.copyAll(io.Discard, begin, index.HeaderLen, int64(toc.Symbols)-index.HeaderLen); err != nil {
		return err
	}
	v, err := versionOf(head[:])
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	l := layoutOf(toc, v, size)
	return install(path, s.name, size, func(w io.Writer) error {
		if _, err := w.Write(l.head); err != nil {
			return errs.E(errs.Internal, "%s: %w", s.name, err)
		}
		if err := s.copyAll(w, begin, l.symbols, l.symbolsLen); err != nil {
			return err
		}
		before := l.tableLen - int64(len(end)) // of the table, that is not in end
		if before > 0 {
			if err := s.copyRange(ctx, w, l.table, before); err != nil {
				return err
			}
		}
		_, err := w.Write(append(end[max(-before, 0):], l.tail...))
		return errs.Wrap(errs.Internal, err)
	})
}

// How much is read of the end of an index: a part of it, as the table of postings is between a half and three percent
// of an index; at least what a request costs (design 004), and at most what may be in memory.
const endPart, leastEnd, mostEnd = 32, 64 << 10, 1 << 20

// install makes the file at path from what write writes, if that is the index-header of an index of a size. name is
// where it comes from.
func install(path, name string, indexSize int64, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return errs.E(errs.Internal, "index-header: %w", err)
	}
	tmp := path + ".tmp"
	defer os.Remove(tmp)
	f, err := os.Create(tmp)
	if err != nil {
		return errs.E(errs.Internal, "index-header: %w", err)
	}
	err = write(f) // not synced: Open finds what a crash of the machine left, and the bucket has it all
	if cerr := f.Close(); err == nil {
		err = errs.Wrap(errs.Internal, cerr)
	}
	if err != nil {
		return err
	}
	r, err := Open(tmp)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	size := r.IndexSize()
	r.Close()
	if size != indexSize {
		return errs.E(errs.Invalid, "%s: of an index of %d bytes, want %d", name, size, indexSize)
	}
	return errs.Wrap(errs.Internal, os.Rename(tmp, path))
}

// layout is an index-header without the parts of the index that it copies, and where these are in the index.
type layout struct {
	head, tail                           []byte
	symbols, symbolsLen, table, tableLen int64
}

// layoutOf is the layout for an index of a version and size.
func layoutOf(toc *index.TOC, indexVersion byte, size int64) layout {
	l := layout{
		symbols: int64(toc.Symbols), symbolsLen: int64(toc.Series - toc.Symbols),
		table: int64(toc.PostingsTable), tableLen: size - int64(toc.PostingsTable),
	}
	l.head = binary.BigEndian.AppendUint32(nil, magic)
	l.head = append(l.head, version, indexVersion)
	l.head = binary.BigEndian.AppendUint64(l.head, toc.PostingsTable)
	l.tail = binary.BigEndian.AppendUint64(nil, headerLen)
	l.tail = binary.BigEndian.AppendUint64(l.tail, uint64(headerLen+l.symbolsLen))
	l.tail = binary.BigEndian.AppendUint32(l.tail, crc32.Checksum(l.tail, block.Castagnoli))
	return l
}

// size is that of the whole index-header, in bytes.
func (l layout) size() int64 {
	return int64(len(l.head)) + l.symbolsLen + l.tableLen + int64(len(l.tail))
}

// source is an index in the bucket.
type source struct {
	bkt  objstore.BucketReader
	name string
}

// contents reads the table of contents and the version of an index of a size.
func contents(size int64, readAt func(b []byte, off int64) error) (*index.TOC, byte, error) {
	if size < index.HeaderLen+indexTOCLen {
		return nil, 0, errs.E(errs.Invalid, "%d bytes are no index", size)
	}
	var head [index.HeaderLen]byte
	var tail [indexTOCLen]byte
	if err := readAt(head[:], 0); err != nil {
		return nil, 0, err
	}
	if err := readAt(tail[:], size-indexTOCLen); err != nil {
		return nil, 0, err
	}
	v, err := versionOf(head[:])
	if err != nil {
		return nil, 0, err
	}
	toc, err := tocOf(tail[:], size)
	return toc, v, err
}

// versionOf reads the version of an index from its first bytes.
func versionOf(head []byte) (byte, error) {
	if m := binary.BigEndian.Uint32(head); m != index.MagicIndex {
		return 0, errs.E(errs.Invalid, "magic %x", m)
	}
	if v := head[4]; !readable(v) {
		return 0, errs.E(errs.Unsupported, "version %d of an index", v)
	}
	return head[4], nil
}

// readable reports whether v is a version of an index that can be read. Version 1, from before Prometheus 2.0, has no
// sorted table.
func readable(v byte) bool { return v == index.FormatV2 || v == index.FormatV3 }

// tocOf decodes an index's table of contents, which is at its end; size is the whole index's.
func tocOf(end []byte, size int64) (*index.TOC, error) {
	if len(end) < indexTOCLen {
		return nil, errs.E(errs.Invalid, "%d bytes are no index", size)
	}
	toc, err := index.NewTOCFromByteSlice(block.Bytes(end[len(end)-indexTOCLen:]))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if toc.Symbols < index.HeaderLen || toc.Series < toc.Symbols || toc.Postings < toc.Series ||
		toc.PostingsTable < toc.Postings || toc.PostingsTable > uint64(size-indexTOCLen) {
		return nil, errs.E(errs.Invalid, "table of contents %+v of an index of %d bytes", *toc, size)
	}
	return toc, nil
}

// open begins to read n bytes of the index.
func (s source) open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	r, err := s.bkt.GetRange(ctx, s.name, off, n)
	switch {
	case err != nil && block.PastEnd(err):
		return nil, errs.E(errs.Invalid, "%s: ends before %d", s.name, off)
	case err != nil:
		return nil, s.fault(err)
	}
	return r, nil
}

// copyRange appends exactly n bytes of the index to w.
func (s source) copyRange(ctx context.Context, w io.Writer, off, n int64) error {
	r, err := s.open(ctx, off, n)
	if err != nil {
		return err
	}
	defer r.Close()
	return s.copyAll(w, r, off, n)
}

// copyAll appends exactly n bytes, which r reads from off on, to w.
func (s source) copyAll(w io.Writer, r io.Reader, off, n int64) error {
	got, err := io.Copy(w, io.LimitReader(r, n))
	if err != nil {
		return s.fault(err)
	}
	if got != n {
		return errs.E(errs.Invalid, "%s: %d bytes at %d, want %d", s.name, got, off, n)
	}
	return nil
}

func (s source) readAt(ctx context.Context, b []byte, off int64) error {
	r, err := s.open(ctx, off, int64(len(b)))
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.ReadFull(r, b); err != nil {
		return s.fault(err)
	}
	return nil
}

func (s source) fault(err error) error {
	kind := errs.Unavailable
	if s.bkt.IsObjNotFoundErr(err) {
		kind = errs.NotFound
	}
	return errs.E(kind, "%s: %w", s.name, err)
}
