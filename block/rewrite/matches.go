package rewrite

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Matches counts the series of block m that have chunks in which deletions may take samples, and stops at most; 0 =
// never. It reads the index alone, into a file below dir. Errors: NotFound, Invalid, Unavailable; Internal: faults of
// the local disk.
func Matches(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, deletions []Deletion, dir string,
	most int) (n int, err error) {
	path, err := fetchIndex(ctx, bkt, m, dir)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer func() {
		if p := recover(); p != nil {
			err = errs.E(errs.Invalid, "block %s: panic in its index: %v", m.ULID, p)
		}
	}()
	ir, err := index.NewFileReader(path, index.DecodePostingsRaw)
	if err != nil {
		return 0, errs.E(errs.Invalid, "index of block %s: %w", m.ULID, err)
	}
	defer ir.Close()
	seen := map[storage.SeriesRef]bool{}
	builder, metas := labels.NewScratchBuilder(0), []chunks.Meta(nil)
	for _, d := range deletions {
		all := intervals([]Deletion{{Intervals: d.Intervals}}, nil, m.Thanos.Downsample.Resolution)
		ms := slices.Clone(d.Matchers) // the library sorts them
		if len(ms) == 0 {
			ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, "", ""))
		}
		p, err := tsdb.PostingsForMatchers(ctx, ir, ms...)
		for err == nil && p.Next() {
			if err = ir.Series(p.At(), &builder, &metas); err != nil {
				break
			}
			if !seen[p.At()] && slices.ContainsFunc(metas, func(c chunks.Meta) bool {
				return len(meets(all, c.MinTime, c.MaxTime)) > 0
			}) {
				seen[p.At()] = true
				if len(seen) == most {
					return most, nil
				}
			}
		}
		if err == nil {
			err = p.Err()
		}
		if ctx.Err() != nil {
			return 0, errs.E(errs.Unavailable, "index of block %s: %w", m.ULID, ctx.Err())
		}
		if err != nil {
			return 0, errs.E(errs.Invalid, "index of block %s: %w", m.ULID, err)
		}
	}
	return len(seen), nil
}

// fetchIndex puts the index of a block into a file below dir.
func fetchIndex(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, dir string) (path string, err error) {
	r, err := bkt.Get(ctx, block.Object(m.ULID, block.IndexName))
	if err != nil {
		kind := errs.Unavailable
		if bkt.IsObjNotFoundErr(err) {
			kind = errs.NotFound
		}
		return "", errs.E(kind, "index of block %s: %w", m.ULID, err)
	}
	defer r.Close()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", errs.Wrap(errs.Internal, err)
	}
	f, err := os.CreateTemp(dir, "index-*")
	if err != nil {
		return "", errs.Wrap(errs.Internal, err)
	}
	from := &reading{Reader: r}
	_, err = io.Copy(f, from)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		kind := errs.Internal
		if from.err != nil {
			kind = errs.Unavailable
		}
		return "", errs.E(kind, "index of block %s: %w", m.ULID, err)
	}
	return filepath.Clean(f.Name()), nil
}

// reading keeps the error of a reader.
type reading struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (r *reading) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
