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

// Load opens the index-header at path, and builds it from the bucket when it is missing or faulty.
func Load(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, path string) (*Reader, error) {
	if r, err := Open(path); err == nil {
		return r, nil
	}
	if err := Build(ctx, bkt, id, path); err != nil {
		return nil, err
	}
	return Open(path)
}

// Build cuts the index-header of block id out of its index in the bucket and writes it to path, whose directory is
// made. The file appears only whole and verified. Errors: NotFound without an index, Invalid for a faulty one,
// Unsupported for a version this package does not read, Unavailable when the bucket does not answer, Internal for the
// local disk.
func Build(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, path string) error {
	name := block.Object(id, block.IndexName)
	src := source{bkt, name}
	toc, indexVersion, size, err := src.contents(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return errs.E(errs.Internal, "index-header of block %s: %w", id, err)
	}
	tmp := path + ".tmp"
	defer os.Remove(tmp)
	if err := src.write(ctx, tmp, toc, indexVersion, size); err != nil {
		return err
	}
	r, err := Open(tmp)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.Close()
	if err := os.Rename(tmp, path); err != nil {
		return errs.E(errs.Internal, "index-header of block %s: %w", id, err)
	}
	return nil
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
	if attrs.Size < index.HeaderLen+indexTOCLen {
		return nil, 0, 0, errs.E(errs.Invalid, "%s: %d bytes are no index", s.name, attrs.Size)
	}
	var head [index.HeaderLen]byte
	var tail [indexTOCLen]byte
	if err := s.readAt(ctx, head[:], 0); err != nil {
		return nil, 0, 0, err
	}
	if err := s.readAt(ctx, tail[:], attrs.Size-indexTOCLen); err != nil {
		return nil, 0, 0, err
	}
	if m := binary.BigEndian.Uint32(head[:]); m != index.MagicIndex {
		return nil, 0, 0, errs.E(errs.Invalid, "%s: magic %x", s.name, m)
	}
	if v := head[4]; !readable(v) {
		return nil, 0, 0, errs.E(errs.Unsupported, "%s: version %d of an index", s.name, v)
	}
	toc, err := readTOC(tail[:], attrs.Size)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("%s: %w", s.name, err)
	}
	return toc, head[4], attrs.Size, nil
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

func (s source) write(ctx context.Context, path string, toc *index.TOC, indexVersion byte, size int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return errs.E(errs.Internal, "%s: %w", s.name, err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = errs.E(errs.Internal, "%s: %w", s.name, cerr)
		}
	}()
	symbols, table := int64(toc.Series-toc.Symbols), size-int64(toc.PostingsTable)
	head := binary.BigEndian.AppendUint32(nil, magic)
	head = append(head, version, indexVersion)
	head = binary.BigEndian.AppendUint64(head, toc.PostingsTable)
	if _, err := f.Write(head); err != nil {
		return errs.E(errs.Internal, "%s: %w", s.name, err)
	}
	if err := s.copyRange(ctx, f, int64(toc.Symbols), symbols); err != nil {
		return err
	}
	if err := s.copyRange(ctx, f, int64(toc.PostingsTable), table); err != nil {
		return err
	}
	tail := binary.BigEndian.AppendUint64(nil, headerLen)
	tail = binary.BigEndian.AppendUint64(tail, uint64(headerLen+symbols))
	tail = binary.BigEndian.AppendUint32(tail, crc32.Checksum(tail, block.Castagnoli))
	if _, err = f.Write(tail); err == nil {
		err = f.Sync()
	}
	return errs.Wrap(errs.Internal, err)
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
