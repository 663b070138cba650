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

// topFiles is an option of listings: only blocks are listed, and of each only the files at the top of its directory,
// where meta.json and marks are. Those below are named where there are no others. Only directory has this option.
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

// listTop does what topFiles says.
func (d *directory) listTop(ctx context.Context, in string, f func(string) error) error {
	blocks, err := readDirectory(filepath.Join(d.root, in))
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if _, ok := ParseID(b.Name()); !ok || !b.IsDir() {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		dir := in + b.Name() + objstore.DirDelim
		entries, err := readDirectory(filepath.Join(d.root, dir))
		if err != nil {
			return err
		}
		files := false
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			files = true
			if err := f(dir + e.Name()); err != nil {
				return err
			}
		}
		if !files {
			if err := d.list(ctx, dir, true, f); err != nil {
				return err
			}
		}
	}
	return nil
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
