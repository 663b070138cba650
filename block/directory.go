package block

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
)

// directory is a FILESYSTEM bucket whose objects are whole or absent, as those of object stores are. The provider
// writes objects in place, so that readers see half of them, and a crash leaves half; and it removes a directory with
// all in it that it saw empty a moment ago.
type directory struct {
	objstore.Bucket
	root string // with the prefix
	name string // without it: the name is a label of metrics, which anybody may read

	mu    sync.Mutex // guards swept
	swept time.Time  // when leftovers were last looked for
}

const (
	// unfinished is the directory of files that are being written. The listing leaves it out, and that of Thanos does if
	// it is empty.
	unfinished = ".hearth-unfinished"
	// leftover is the age from which a file there belongs to a process that has died, or to an upload that stands still
	// and will fail. It is also how often they are looked for.
	leftover = time.Hour
	// renames is how often a file is moved to its place while others remove that directory, which was empty.
	renames = 10
)

// newDirectory is the bucket of a directory, below prefix in it.
func newDirectory(root, prefix string) (*directory, error) {
	top, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	root = filepath.Join(top, filepath.FromSlash(prefix))
	bkt, err := filesystem.NewBucket(root)
	return &directory{Bucket: bkt, root: root, name: "fs: " + top}, err
}

// Name implements objstore.Bucket.
func (d *directory) Name() string { return d.name }

func (d *directory) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// Upload implements objstore.Bucket. When it returns no error the object is on disk.
func (d *directory) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	d.sweep()
	temporary := d.path(unfinished + objstore.DirDelim + rand.Text())
	f, err := create(temporary)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close(), context.Cause(ctx)); err == nil {
		err = move(temporary, d.path(name))
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

// create makes a file that did not exist, and its directory.
func create(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), os.ModePerm); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// move puts a file in the place of another one, or makes it.
func move(from, to string) (err error) {
	for range renames {
		if err = os.MkdirAll(filepath.Dir(to), os.ModePerm); err == nil {
			err = fileutil.Rename(from, to) // syncs the directory, too
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return err
}

// sweep removes what processes that died have left unfinished. What it cannot remove is tried again later.
func (d *directory) sweep() {
	d.mu.Lock()
	now := time.Now()
	due := now.Sub(d.swept) >= leftover
	if due {
		d.swept = now
	}
	d.mu.Unlock()
	if !due {
		return
	}
	entries, _ := os.ReadDir(d.path(unfinished)) // it may not exist yet
	for _, e := range entries {
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) >= leftover {
			_ = os.Remove(d.path(unfinished + objstore.DirDelim + e.Name()))
		}
	}
}

// Delete implements objstore.Bucket. Directories that are empty then are removed.
func (d *directory) Delete(ctx context.Context, name string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	path := d.path(name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for path = filepath.Dir(path); len(path) > len(d.root); path = filepath.Dir(path) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is not empty
			break
		}
	}
	return nil
}

// IterWithAttributes implements objstore.Bucket.
func (d *directory) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	o ...objstore.IterOption) error {
	return d.Bucket.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error {
		if isUnfinished(a.Name) {
			return nil
		}
		return f(a)
	}, o...)
}

func isUnfinished(name string) bool { return strings.HasPrefix(name, unfinished+objstore.DirDelim) }
