package merge

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Input is a block that is merged. FromBucket and FromDir make one.
type Input struct {
	Meta  *block.Meta
	files files
}

// files is where the files of a block are. Errors have the kind NotFound, or Unavailable for a fault of the bucket.
type files interface {
	// open returns what a file has from byte off on.
	open(ctx context.Context, rel string, off int64) (io.ReadCloser, error)
	// size is the size of a file in bytes.
	size(ctx context.Context, rel string) (int64, error)
	// index opens the block's index as a local file; dir is for scratch files.
	index(ctx context.Context, dir string) (*os.File, error)
}

// FromBucket is the block of m in a bucket. Its index is copied to a scratch file, its chunks are streamed.
func FromBucket(bkt objstore.BucketReader, m *block.Meta) Input { return Input{m, bucketFiles{bkt, m}} }

// FromDir is the block of m in a local directory, which is not changed.
func FromDir(dir string, m *block.Meta) Input { return Input{m, dirFiles(dir)} }

// WithIndex is in with a local file that is a copy of its index, so that Run does not fetch that. Run only reads it.
func (in Input) WithIndex(path string) Input {
	in.files = localIndex{in.files, path}
	return in
}

type localIndex struct {
	files
	path string
}

func (l localIndex) index(context.Context, string) (*os.File, error) {
	f, err := os.Open(l.path)
	return f, errs.Wrap(errs.Internal, err)
}

type bucketFiles struct {
	bkt  objstore.BucketReader
	meta *block.Meta
}

func (b bucketFiles) fault(rel string, err error) error {
	kind := errs.Unavailable
	if b.bkt.IsObjNotFoundErr(err) {
		kind = errs.NotFound
	}
	return errs.E(kind, "%s: %w", block.Object(b.meta.ULID, rel), err)
}

func (b bucketFiles) open(ctx context.Context, rel string, off int64) (io.ReadCloser, error) {
	name := block.Object(b.meta.ULID, rel)
	var r io.ReadCloser
	var err error
	if off == 0 {
		r, err = b.bkt.Get(ctx, name)
	} else {
		r, err = b.bkt.GetRange(ctx, name, off, -1)
	}
	if err != nil {
		return nil, b.fault(rel, err)
	}
	return r, nil
}

func (b bucketFiles) size(ctx context.Context, rel string) (int64, error) {
	attrs, err := b.bkt.Attributes(ctx, block.Object(b.meta.ULID, rel))
	if err != nil {
		return 0, b.fault(rel, err)
	}
	return attrs.Size, nil
}

func (b bucketFiles) index(ctx context.Context, dir string) (*os.File, error) {
	f, err := scratchFile(dir)
	if err != nil {
		return nil, err
	}
	s := newStream(ctx, b, block.IndexName)
	defer s.close()
	if _, err := io.Copy(f, s); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

type dirFiles string

func (d dirFiles) path(rel string) string { return filepath.Join(string(d), filepath.FromSlash(rel)) }

func (d dirFiles) fault(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(errs.NotFound, err)
	}
	return errs.Wrap(errs.Internal, err)
}

func (d dirFiles) open(_ context.Context, rel string, off int64) (io.ReadCloser, error) {
	f, err := os.Open(d.path(rel))
	if err != nil {
		return nil, d.fault(err)
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		f.Close()
		return nil, d.fault(err)
	}
	return f, nil
}

func (d dirFiles) size(_ context.Context, rel string) (int64, error) {
	info, err := os.Stat(d.path(rel))
	if err != nil {
		return 0, d.fault(err)
	}
	return info.Size(), nil
}

func (d dirFiles) index(context.Context, string) (*os.File, error) {
	f, err := os.Open(d.path(block.IndexName))
	if err != nil {
		return nil, d.fault(err)
	}
	return f, nil
}

// maxResumes is how often in a row a stream is opened again without having read a byte.
const maxResumes = 3

// stream reads a file of a block from the beginning to the end. A read that fails is made again from where it was: a
// merge may leave a connection idle for so long that the other side gives it up.
type stream struct {
	ctx   context.Context
	files files
	rel   string
	off   int64
	r     io.ReadCloser
	fails int
}

func newStream(ctx context.Context, f files, rel string) *stream {
	return &stream{ctx: ctx, files: f, rel: rel}
}

// Read implements io.Reader. The end is io.EOF only where the file ends.
func (s *stream) Read(b []byte) (int, error) {
	for {
		if err := s.ctx.Err(); err != nil {
			return 0, err
		}
		if s.r == nil {
			r, err := s.files.open(s.ctx, s.rel, s.off)
			if err != nil {
				if s.off > 0 && s.ended() { // a range that begins at the end may be refused
					return 0, io.EOF
				}
				return 0, err
			}
			s.r = r
		}
		n, err := s.r.Read(b)
		s.off += int64(n)
		if n > 0 {
			s.fails = 0
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && s.ended() {
			return 0, io.EOF
		}
		s.close()
		if s.fails++; s.fails >= maxResumes {
			return 0, errs.E(errs.Unavailable, "read %s at %d: %w", s.rel, s.off, noEOF(err))
		}
	}
}

// noEOF keeps an end that came too early from being taken for the end of the file.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrNoProgress
	}
	return err
}

// ended reports whether the file has no more bytes. A connection that was cut may look like an end.
func (s *stream) ended() bool {
	size, err := s.files.size(s.ctx, s.rel)
	return err == nil && size <= s.off
}

// seek makes the next Read begin at off.
func (s *stream) seek(off int64) {
	s.close()
	s.off = off
}

func (s *stream) close() {
	if s.r != nil {
		s.r.Close()
		s.r = nil
	}
}
