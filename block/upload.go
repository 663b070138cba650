package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Upload writes the block in directory dir to the bucket. meta is what its meta.json becomes, with Files, SegmentFiles
// and (when zero) UploadTime filled in here; its ULID must be the directory's name. The order is what makes it durable:
//
//  1. chunks/*
//  2. index, then what UploadOptions.Extra adds
//  3. meta.json: the commit. Readers treat a block without it as absent.
//  4. debug/metas/<ULID>.json, a copy for people. Its failure is ignored.
//
// Upload is idempotent and resumes: a block whose meta.json is in the bucket is done, and an object that is there with
// the same bytes is not sent again. Errors of the bucket are of kind Unavailable; a faulty directory or meta is
// Invalid.
func Upload(ctx context.Context, bkt objstore.Bucket, dir string, meta Meta) error {
	return UploadWith(ctx, bkt, dir, meta, UploadOptions{})
}

// UploadOptions adjust an upload.
type UploadOptions struct {
	// Hash puts the SHA-256 of each file into meta.json. Each file is read once more for it.
	Hash bool
	// Concurrency is how many files are sent at a time; 0 = 1.
	Concurrency int
	// Extra are further files of the block, which are not in its directory.
	Extra []ExtraFile
	// Sent are files of the block that UploadFile has sent, in the order of their names. They need not be in its directory
	// any more.
	Sent []File
	// BeforeMeta, if set, is called when all files are there and before meta.json is written. Its error ends the upload.
	BeforeMeta func(context.Context) error
}

// ExtraFile is a file of a block that is made while it is sent.
type ExtraFile struct {
	// RelPath is its path inside the block, Size its size in bytes.
	RelPath string
	Size    int64
	// Open returns its content from the beginning. The caller closes it.
	Open func() (io.ReadCloser, error)
}

// UploadWith is Upload with options.
func UploadWith(ctx context.Context, bkt objstore.Bucket, dir string, meta Meta, opts UploadOptions) error {
	id := meta.ULID
	if filepath.Base(dir) != id.String() {
		return errs.E(errs.Invalid, "upload block %s from directory %s: the names differ", id, dir)
	}
	files, err := localFiles(dir)
	if err != nil {
		return errs.E(errs.Invalid, "upload block %s: %w", id, err)
	}
	for _, e := range opts.Extra {
		files = append(files, localFile{File{RelPath: e.RelPath, SizeBytes: e.Size}, e.Open})
	}
	if opts.Hash {
		if err := hash(files); err != nil {
			return errs.E(errs.Invalid, "upload block %s: %w", id, err)
		}
	}
	meta.Thanos.Files, meta.Thanos.SegmentFiles = describe(opts.Sent, files)
	if err := meta.Validate(id); err != nil {
		return err
	}
	present, err := list(ctx, bkt, id)
	if err != nil {
		return unavailable("upload block %s: list: %w", id, err)
	}
	if slices.Contains(present, MetaName) {
		if done, err := committed(ctx, bkt, id); done || err != nil {
			return err
		}
	}
	g, sending := errgroup.WithContext(ctx)
	g.SetLimit(max(opts.Concurrency, 1))
	for _, f := range files {
		g.Go(func() error {
			err := sending.Err() // of another file
			if err == nil {
				err = put(sending, bkt, id, dir, f, slices.Contains(present, f.RelPath))
			}
			if err != nil {
				return unavailable("upload %s: %w", Object(id, f.RelPath), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if opts.BeforeMeta != nil {
		if err := opts.BeforeMeta(ctx); err != nil {
			return err
		}
	}
	return commit(ctx, bkt, meta)
}

// UploadFile sends one file of the block in directory dir ahead of UploadWith. The caller names it there
// (UploadOptions.Sent). An object that is there with the same bytes is not sent again. With hash the result has the
// SHA-256. Errors are those of Upload.
func UploadFile(ctx context.Context, bkt objstore.Bucket, dir, rel string, withHash bool) (File, error) {
	id, err := ulid.ParseStrict(filepath.Base(dir))
	if err != nil {
		return File{}, errs.E(errs.Invalid, "upload from directory %s: %w", dir, err)
	}
	path := filepath.Join(dir, filepath.FromSlash(rel))
	info, err := os.Stat(path)
	if err != nil {
		return File{}, errs.E(errs.Invalid, "upload block %s: %w", id, err)
	}
	files := []localFile{{File{RelPath: rel, SizeBytes: info.Size()}, func() (io.ReadCloser, error) {
		return os.Open(path)
	}}}
	if withHash {
		if err := hash(files); err != nil {
			return File{}, errs.E(errs.Invalid, "upload block %s: %w", id, err)
		}
	}
	there, err := bkt.Exists(ctx, Object(id, rel))
	if err == nil {
		err = put(ctx, bkt, id, dir, files[0], there)
	}
	if err != nil {
		return File{}, unavailable("upload %s: %w", Object(id, rel), err)
	}
	return files[0].File, nil
}

// commit is steps 3 and 4.
func commit(ctx context.Context, bkt objstore.Bucket, meta Meta) error {
	if meta.Thanos.UploadTime.IsZero() {
		meta.Thanos.UploadTime = time.Now().UTC()
	}
	b, err := meta.encode()
	if err != nil {
		return err
	}
	if err := bkt.Upload(ctx, Object(meta.ULID, MetaName), bytes.NewReader(b)); err != nil {
		return unavailable("upload %s: %w", Object(meta.ULID, MetaName), err)
	}
	_ = bkt.Upload(ctx, debugMetas+objstore.DirDelim+meta.ULID.String()+".json", bytes.NewReader(b))
	return nil
}

// committed reports whether the bucket has a whole meta.json of block id. One that was cut short, as a crash of a
// program that writes to a FILESYSTEM bucket in place may leave it, does not count and is written again.
func committed(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) (bool, error) {
	_, err := FetchMeta(ctx, bkt, id)
	switch errs.KindOf(err) {
	case errs.OK:
		return true, nil
	case errs.NotFound, errs.Invalid:
		return false, nil
	}
	return false, err
}

// localFile is a file of a local block, and how its content is opened.
type localFile struct {
	File
	open func() (io.ReadCloser, error)
}

// put sends one file. An object that is there already is sent again only if it differs: in size, or else in its bytes,
// which are read back. A crash may have left one of the full size with nothing in it.
func put(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, dir string, f localFile, present bool) error {
	name := Object(id, f.RelPath)
	if present {
		attrs, err := bkt.Attributes(ctx, name)
		same := false
		if err == nil && attrs.Size == f.SizeBytes {
			same, err = sameBytes(ctx, bkt, name, f)
		}
		if err != nil && !bkt.IsObjNotFoundErr(err) {
			return err
		}
		if same {
			return nil
		}
	}
	r, err := f.open()
	if err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	defer r.Close()
	err = bkt.Upload(ctx, name, r)
	local := new(fs.PathError)
	if errors.As(err, &local) && strings.HasPrefix(local.Path, dir+string(filepath.Separator)) {
		return errs.Wrap(errs.Invalid, err) // a fault of the disk, not of the bucket
	}
	return err
}

// sameBytes reports whether an object has the bytes of a local file.
func sameBytes(ctx context.Context, bkt objstore.BucketReader, object string, f localFile) (bool, error) {
	want, err := SumOf(f.open())
	if err != nil {
		return false, errs.Wrap(errs.Invalid, err)
	}
	got, err := SumOf(bkt.Get(ctx, object))
	return err == nil && got == want, err
}

// hash fills in the checksums of files.
func hash(files []localFile) error {
	for i := range files {
		sum, err := SumOf(files[i].open())
		if err != nil {
			return err
		}
		files[i].Hash = &Hash{Func: sha256Name, Value: sum}
	}
	return nil
}

// sha256Name is how meta.json names the one kind of checksum that there is.
const sha256Name = "SHA256"

// SumOf is the SHA-256 of all that r has, in lower-case hex. It closes r, and passes on the error of opening it.
func SumOf(r io.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, r)
	return hex.EncodeToString(sum.Sum(nil)), errors.Join(err, r.Close())
}

// localFiles are the data files of a local block in the order of their upload: chunks, then index.
func localFiles(dir string) ([]localFile, error) {
	entries, err := os.ReadDir(filepath.Join(dir, ChunksName)) // sorted
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var files []localFile
	add := func(rel string, size int64) {
		files = append(files, localFile{File{RelPath: rel, SizeBytes: size}, func() (io.ReadCloser, error) {
			return os.Open(filepath.Join(dir, filepath.FromSlash(rel)))
		}})
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		add(ChunksName+"/"+e.Name(), info.Size())
	}
	info, err := os.Stat(filepath.Join(dir, IndexName))
	if err != nil {
		return nil, err
	}
	add(IndexName, info.Size())
	return files, nil
}

// describe returns files as meta.json lists them.
func describe(sent []File, files []localFile) (all []File, segments []string) {
	all = slices.Clone(sent)
	for _, f := range files {
		all = append(all, f.File)
	}
	for _, f := range all {
		if name, ok := strings.CutPrefix(f.RelPath, ChunksName+"/"); ok {
			segments = append(segments, name)
		}
	}
	all = append(all, File{RelPath: MetaName})
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.RelPath, b.RelPath) })
	return all, segments
}

// FilesOf lists the files of the block in dir, and the names of those in chunks/, as an upload writes them into
// meta.json.
func FilesOf(dir string) (all []File, segments []string, err error) {
	files, err := localFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	all, segments = describe(nil, files)
	return all, segments, nil
}

// ObjectsOf returns the paths, inside block id, of all its objects, marks among them; none = there is no such block.
// Errors are of kind Unavailable, or Invalid for a name that is no path.
func ObjectsOf(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) ([]string, error) {
	names, err := list(ctx, bkt, id)
	if err != nil {
		return nil, unavailable("list block %s: %w", id, err)
	}
	return names, nil
}

// list returns the paths, inside block id, of all its objects.
func list(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) ([]string, error) {
	var names []string
	prefix := id.String() + objstore.DirDelim
	var walk func(dir string) error
	walk = func(dir string) error {
		return bkt.Iter(ctx, dir, func(name string) error {
			rel, ok := strings.CutPrefix(name, prefix)
			switch {
			case !ok || rel == "" || name == dir:
				return nil
			case strings.HasSuffix(name, objstore.DirDelim):
				return walk(name)
			case !localPath(rel):
				return errs.E(errs.Invalid, "object name %q", name)
			}
			names = append(names, rel)
			return nil
		})
	}
	return names, walk(prefix)
}

// unavailable gives an error of the bucket the kind Unavailable, unless it has a kind already.
func unavailable(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if errs.KindOf(err) == errs.Internal {
		return errs.Wrap(errs.Unavailable, err)
	}
	return err
}
