package block

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// FetchMeta reads and validates the meta.json of block id. A block without one is NotFound, a faulty one Invalid, a
// bucket that does not answer Unavailable.
func FetchMeta(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (*Meta, error) {
	return place{id: id}.meta(ctx, bkt)
}

// meta is FetchMeta of the block at p.
func (p place) meta(ctx context.Context, bkt objstore.BucketReader) (*Meta, error) {
	r, err := get(ctx, bkt, p.object(MetaName))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m, err := ReadMeta(r, p.id)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	return m, nil
}

// Download copies block id into the directory dir, which must not exist: it appears whole, under a temporary name until
// then. Marks are not copied. What a download that was broken off has left is used again, file by file, where meta.json
// has the checksum of a file and it is right. Files that differ from what meta.json says are of kind Invalid.
func Download(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, dir string) (*Meta, error) {
	if _, err := os.Stat(dir); err == nil {
		return nil, errs.E(errs.Conflict, "download block %s: %s exists", id, dir)
	}
	meta, err := FetchMeta(ctx, bkt, id)
	if err != nil {
		return nil, err
	}
	names, err := list(ctx, bkt, id)
	if err != nil {
		return nil, unavailable("download block %s: list: %w", id, err)
	}
	tmp := dir + ".tmp-for-download"
	wanted := map[string]bool{}
	for _, rel := range names {
		wanted[rel] = !IsMark(rel)
	}
	have, err := leftOf(tmp, meta, wanted)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(tmp, ChunksName), 0o777); err != nil {
		return nil, err
	}
	for _, rel := range names {
		if !wanted[rel] || have[rel] {
			continue
		}
		if err := fetchFile(ctx, bkt, Object(id, rel), filepath.Join(tmp, filepath.FromSlash(rel))); err != nil {
			return nil, unavailable("download %s: %w", Object(id, rel), err)
		}
	}
	if err := whole(tmp, meta); err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return meta, os.Rename(tmp, dir)
}

// leftOf returns the files of a block that are in the directory tmp and right, and removes all others from it.
func leftOf(tmp string, meta *Meta, wanted map[string]bool) (have map[string]bool, err error) {
	have = map[string]bool{}
	keep := map[string]bool{tmp: true} // paths
	for _, f := range meta.Thanos.Files {
		path := filepath.Join(tmp, filepath.FromSlash(f.RelPath))
		if !wanted[f.RelPath] || f.Hash == nil || f.Hash.Func != sha256Name {
			continue
		}
		if sum, err := SumOf(os.Open(path)); err == nil && sum == f.Hash.Value {
			have[f.RelPath] = true
			for ; !keep[path]; path = filepath.Dir(path) {
				keep[path] = true
			}
		}
	}
	err = filepath.WalkDir(tmp, func(path string, e fs.DirEntry, err error) error {
		if err != nil || keep[path] {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if e.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return have, err
}

// whole checks a downloaded block against the sizes and checksums in its meta.json.
func whole(dir string, meta *Meta) error {
	for _, f := range meta.Thanos.Files {
		if f.SizeBytes == 0 {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(f.RelPath))
		info, err := os.Stat(path)
		if err != nil {
			return errs.E(errs.Invalid, "block %s: %w", meta.ULID, err)
		}
		if info.Size() != f.SizeBytes {
			return errs.E(errs.Invalid, "block %s: %s has %d bytes, meta.json says %d", meta.ULID, f.RelPath, info.Size(),
				f.SizeBytes)
		}
		if f.Hash == nil || f.Hash.Func != sha256Name {
			continue
		}
		sum, err := SumOf(os.Open(path))
		if err != nil {
			return err
		}
		if sum != f.Hash.Value {
			return errs.E(errs.Invalid, "block %s: %s has the checksum %s, meta.json says %s", meta.ULID, f.RelPath, sum,
				f.Hash.Value)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, IndexName)); err != nil {
		return errs.E(errs.Invalid, "block %s: %w", meta.ULID, err)
	}
	return nil
}

func fetchFile(ctx context.Context, bkt objstore.BucketReader, name, path string) (err error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// get opens an object; one that is not there is NotFound, a bucket that fails Unavailable.
func get(ctx context.Context, bkt objstore.BucketReader, name string) (io.ReadCloser, error) {
	r, err := ExpectMissing(bkt).Get(ctx, name)
	switch {
	case err == nil:
		return r, nil
	case bkt.IsObjNotFoundErr(err):
		return nil, errs.E(errs.NotFound, "%s: %w", name, err)
	}
	return nil, unavailable("%s: %w", name, err)
}

// ExpectMissing returns bkt for reads of objects that need not exist: their absence is no failure in its metrics.
func ExpectMissing(bkt objstore.BucketReader) objstore.BucketReader {
	if i, ok := bkt.(objstore.InstrumentedBucketReader); ok {
		return i.ReaderWithExpectedErrs(bkt.IsObjNotFoundErr)
	}
	return bkt
}

// maxJSON is the largest of the small JSON objects, in bytes.
const maxJSON = 1 << 20

// readJSON returns a small JSON object. NotFound, Invalid and Unavailable as in FetchMeta.
func readJSON(ctx context.Context, bkt objstore.BucketReader, name string) ([]byte, error) {
	b, err := readSmall(ctx, bkt, name, maxJSON+1)
	if err == nil && len(b) > maxJSON {
		err = errs.E(errs.Invalid, "%s is larger than %d bytes", name, maxJSON)
	}
	return b, err
}
