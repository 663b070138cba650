package block

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/thanos-io/objstore"
)

// topFiles is an option of listings: only blocks are listed, and of each only meta.json and marks. What is in the
// directory of a block that has none of them is named as a whole. Only directory has this option.
const topFiles objstore.IterOptionType = 1000

func withTopFiles() objstore.IterOption {
	return objstore.IterOption{Type: topFiles, Apply: func(*objstore.IterParams) {}}
}

// SupportedIterOptions implements objstore.BucketReader.
func (d *directory) SupportedIterOptions() []objstore.IterOptionType {
	return append(d.Bucket.SupportedIterOptions(), topFiles)
}

// Iter implements objstore.BucketReader. Names come in order. Directories without entries are left out, and files that
// are being written. It takes a third of the system calls of the provider, which asks of each directory that it looks
// into whether it is there and whether it is empty.
func (d *directory) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(d.SupportedIterOptions(), options...); err != nil {
		return err
	}
	if dir != "" {
		dir = strings.TrimSuffix(dir, objstore.DirDelim) + objstore.DirDelim
	}
	for _, o := range options {
		if o.Type == topFiles {
			return d.listTop(ctx, dir, f)
		}
	}
	return d.list(ctx, dir, objstore.ApplyIterOptions(options...).Recursive, f)
}

// list calls f with what is in dir, which is "" or ends with a slash.
func (d *directory) list(ctx context.Context, dir string, recursive bool, f func(string) error) error {
	entries, err := readDirectory(filepath.Join(d.root, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		name := dir + e.Name()
		switch {
		case name == unfinished:
		case !e.IsDir():
			err = f(name)
		case recursive:
			err = d.list(ctx, name+objstore.DirDelim, true, f)
		default:
			var empty bool
			if empty, err = isEmpty(filepath.Join(d.root, name)); err == nil && !empty {
				err = f(name + objstore.DirDelim)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// topNames are the files that topFiles names, in order.
var topNames = [...]string{DeletionMarkName, MetaName, NoCompactMarkName, NoDownsampleMarkName}

// listTop does what topFiles says.
func (d *directory) listTop(ctx context.Context, in string, f func(string) error) error {
	blocks, err := readDirectory(filepath.Join(d.root, in))
	if err != nil {
		return err
	}
	buf := make([]byte, 8<<10)
	for _, b := range blocks {
		if _, ok := ParseID(b.Name()); !ok || !b.IsDir() {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		dir := in + b.Name() + objstore.DirDelim
		has, err := topOf(filepath.Join(d.root, dir), buf)
		if err != nil {
			return err
		}
		for i, name := range topNames {
			if has[i] {
				if err := f(dir + name); err != nil {
					return err
				}
			}
		}
		if has == (tops{}) {
			if err := d.list(ctx, dir, true, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// tops says which of topNames a directory has.
type tops [len(topNames)]bool

// topOf reads which of topNames a directory has, none if it is not there or no directory. buf is memory for it. It
// takes half of the time of os.File, which is most of a listing of many blocks in which nothing has changed.
func topOf(path string, buf []byte) (has tops, err error) {
	fd, err := uninterrupted(func() (int, error) {
		return syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return has, nil
	}
	if err != nil {
		return has, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	names := make([]string, 0, 8)
	for {
		n, err := uninterrupted(func() (int, error) { return syscall.ReadDirent(fd, buf) })
		if errors.Is(err, fs.ErrNotExist) { // it was removed since it was opened
			return has, nil
		}
		if err != nil {
			return has, &fs.PathError{Op: "readdirent", Path: path, Err: err}
		}
		if n <= 0 {
			return has, nil
		}
		_, _, names = syscall.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if i := slices.Index(topNames[:], name); i >= 0 {
				has[i] = true
			}
		}
	}
}

// uninterrupted makes a system call until no signal interrupts it.
func uninterrupted(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// readDirectory returns the entries of a directory in order, none if it is not there or no directory.
func readDirectory(path string) ([]fs.DirEntry, error) {
	f, err := openFolder(path)
	if f == nil {
		return nil, err
	}
	return entriesOf(f)
}

// entriesOf is readDirectory of one that was opened. It closes f.
func entriesOf(f *os.File) ([]fs.DirEntry, error) {
	entries, err := f.ReadDir(-1)
	if errors.Is(err, fs.ErrNotExist) { // it was removed since it was opened
		err = nil
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, errors.Join(err, f.Close())
}

// isEmpty reports whether a directory has no entries, or is not there.
func isEmpty(path string) (bool, error) {
	f, err := openFolder(path)
	if f == nil {
		return true, err
	}
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) { // the latter if it was removed since it was opened
		return true, f.Close()
	}
	return false, errors.Join(err, f.Close())
}

// openFolder is nil without an error if the directory is not there, or is none.
func openFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return f, err
}
