// Package atomicfile replaces a file as a whole: after a crash at any moment its path has either the old content or the
// new one.
//
// Flow:  content -> <path>.tmp, synced -> renamed to path -> directory, synced
//
// Invariants: when Write returns no error, the new content is on disk. The temporary file is in the directory of path,
// so that the rename stays within one file system, and has a fixed name, so that crashes never leave more than one.
//
// Locks: none. Only one goroutine of one process writes a path at a time: two writers share the temporary file.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"

	"github.com/prometheus/prometheus/tsdb/fileutil"
)

// Suffix is what the temporary file has behind the name of the file that it becomes.
const Suffix = ".tmp"

// Write replaces the file at path, or makes it, with permission bits perm before the process's umask. The directory
// must exist. After an error path has its old content, and the temporary file is removed as far as that is possible.
func Write(path string, content []byte, perm fs.FileMode) error {
	tmp := path + Suffix
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = fileutil.Rename(tmp, path) // syncs the directory, too
	}
	if err != nil {
		_ = os.Remove(tmp) // nobody reads it, and the next Write replaces it
	}
	return err
}
