package indexheader

import (
	"context"
	"encoding/binary"
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
	return Build(ctx, bkt, m.ULID, path)
}

// Build cuts the index-header of block id out of its index in the bucket and writes it to path, whose directory is
// made. The file appears only whole and verified. Errors: NotFound without an index, Invalid for a faulty one,
// Unsupported for a version this package does not read, Unavailable when the bucket does not answer, Internal for the
// local disk.
func Build(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, path string) error {
	src := source{bkt, block.Object(id, block.IndexName)}
	toc, indexVersion, size, err := src.contents(ctx)
	if err != nil {
		return err
	}
	l := layoutOf(toc, indexVersion, size)
	return install(path, src.name, size, func(w io.Writer) error {
		if _, err := w.Write(l.head); err != nil {
			return errs.E(errs.Internal, "%s: %w", src.name, err)
		}
		if err := src.copyRange(ctx, w, l.symbols, l.symbolsLen); err != nil {
			return err
		}
		if err := src.copyRange(ctx, w, l.table, l.tableLen); err != nil {
			return err
		}
		_, err := w.Write(l.tail)
		return errs.Wrap(errs.Internal, err)
	})
}

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
	if err = write(f); err == nil {
		err = errs.Wrap(errs.Internal, f.Sync())
	}
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

// contents reads the version, size and table of contents of the index, and checks that its sections follow each other.
func (s source) contents(ctx context.Context) (*index.TOC, byte, int64, error) {
	attrs, err := s.bkt.Attributes(ctx, s.name)
	if err != nil {
		return nil, 0, 0, s.fault(err)
	}
	toc, v, err := contents(attrs.Size, func(b []byte, off int64) error { return s.readAt(ctx, b, off) })
	if err != nil {
		return nil, 0, 0, fmt.Errorf("%s: %w", s.name, err)
	}
	return toc, v, attrs.Size, nil
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
	if m := binary.BigEndian.Uint32(head[:]); m != index.MagicIndex {
		return nil, 0, errs.E(errs.Invalid, "magic %x", m)
	}
	if v := head[4]; !readable(v) {
		return nil, 0, errs.E(errs.Unsupported, "version %d of an index", v)
	}
	toc, err := readTOC(tail[:], size)
	return toc, head[4], err
}

// readable reports whether v is a version of an index that can be read. Version 1, from before Prometheus 2.0, has no
// sorted table.
func readable(v byte) bool { return v == index.FormatV2 || v == index.FormatV3 }

// readTOC decodes an index's table of contents; size is the whole index's.
func readTOC(b []byte, size int64) (*index.TOC, error) {
	toc, err := index.NewTOCFromByteSlice(block.Bytes(b))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	end := uint64(size - indexTOCLen)
	if toc.Symbols < index.HeaderLen || toc.Series < toc.Symbols || toc.Postings < toc.Series ||
		toc.PostingsTable < toc.Postings || toc.PostingsTable > end {
		return nil, errs.E(errs.Invalid, "table of contents %+v of an index of %d bytes", *toc, size)
	}
	return toc, nil
}

// copyRange appends exactly n bytes of the index to w.
func (s source) copyRange(ctx context.Context, w io.Writer, off, n int64) error {
	r, err := s.bkt.GetRange(ctx, s.name, off, n)
	if err != nil {
		return s.fault(err)
	}
	defer r.Close()
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
	r, err := s.bkt.GetRange(ctx, s.name, off, int64(len(b)))
	if err != nil {
		return s.fault(err)
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
