package indexheader

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Shipped is the index-header of the local block in dir, as its producer puts it beside the block: its bytes are read
// from the index while it is sent. Errors are of kind Invalid, or Unsupported for an index that this package does not
// read.
func Shipped(dir string) (block.ExtraFile, error) {
	path := filepath.Join(dir, block.IndexName)
	f, err := os.Open(path)
	if err != nil {
		return block.ExtraFile{}, errs.Wrap(errs.Invalid, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return block.ExtraFile{}, errs.Wrap(errs.Invalid, err)
	}
	toc, v, err := contents(info.Size(), func(b []byte, off int64) error {
		_, err := f.ReadAt(b, off)
		return errs.Wrap(errs.Invalid, err)
	})
	if err != nil {
		return block.ExtraFile{}, err
	}
	l := layoutOf(toc, v, info.Size())
	return block.ExtraFile{RelPath: block.IndexHeaderName, Size: l.size(), Open: func() (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		parts := io.MultiReader(bytes.NewReader(l.head), io.NewSectionReader(f, l.symbols, l.symbolsLen),
			io.NewSectionReader(f, l.table, l.tableLen), bytes.NewReader(l.tail))
		return &content{parts, f, l.size()}, nil
	}}, nil
}

// content is an index-header that is being sent.
type content struct {
	io.Reader
	io.Closer
	size int64
}

// ObjectSize implements objstore.ObjectSizer: with it a provider sends small objects by one request.
func (c *content) ObjectSize() (int64, error) { return c.size, nil }

// fetchShipped copies the index-header that the producer of block m shipped to path. What it shipped is used only if it
// is whole and of this index: whatever is wrong with it, the index itself can be read.
func fetchShipped(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, path string) error {
	size, indexSize := m.SizeOf(block.IndexHeaderName), m.SizeOf(block.IndexName)
	if size <= 0 || indexSize <= 0 || size > indexSize+headerLen+tocLen {
		return errs.E(errs.NotFound, "block %s was shipped without an index-header", m.ULID)
	}
	src := source{bkt, m.Object(block.IndexHeaderName)}
	return install(path, src.name, indexSize, func(w io.Writer) error {
		r, err := bkt.Get(ctx, src.name)
		if err != nil {
			return src.fault(err)
		}
		defer r.Close()
		got, err := io.Copy(w, io.LimitReader(r, size+1))
		if err != nil {
			return src.fault(err)
		}
		if got != size {
			return errs.E(errs.Invalid, "%s: %d bytes, want %d", src.name, got, size)
		}
		return nil
	})
}
