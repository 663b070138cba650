package tenantdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/fileutil"
)

// What may be in a tenant's directory, in a block's and in a log's, by path. Nothing else is ever deleted.
var (
	tenantFiles = anyOf(
		`(hearth-tenant|summary|metadata|thanos\.shipper|series_state)\.json(\.tmp)?`, `exemplars`, `lock`, `salvage\.tmp`,
		logDirs+`/`+logFile, `chunks_head/(\d+|probe\.tmp)`, snapshotDirs+`/\d+`,
	)
	tenantDirs = anyOf(logDirs+`(/checkpoint\.\d+(\.tmp)?)?`, `chunks_head`, snapshotDirs, `thanos(/upload)?`)

	blockFiles = anyOf(`meta\.json(\.tmp)?`, `index`, `index\.repaired`, `tombstones(\.tmp)?`, `chunks/\d+(\.tmp)?`)
	blockDirs  = anyOf(`chunks`)

	logFiles, logSubdirs = anyOf(logFile), anyOf(`checkpoint\.\d+(\.tmp)?`)

	// What there is of a tenant that was deleted on purpose: blocks and what was kept of logs, too.
	allFiles = anyOf(exprOf(tenantFiles), blockDir+`/`+exprOf(blockFiles), damagedFile)
	allDirs  = anyOf(exprOf(tenantDirs), blockDir, blockDir+`/`+exprOf(blockDirs), FaultyName, DamagedName)
)

const (
	logFile      = `(checkpoint\.\d+(\.tmp)?/)?\d+(\.repair)?`
	logDirs      = `(wal|wbl|wbl\.fixed|wbl\.fixed\.tmp)`
	snapshotDirs = `chunk_snapshot\.\d+\.\d+(\.tmp)?`

	creationSuffix = ".tmp-for-creation"
	deletionSuffix = ".tmp-for-deletion" // the TSDB removes such a directory when it opens

	blockDir = `(` + FaultyName + `/|thanos/upload/)?[0-7][0-9A-HJKMNP-TV-Z]{25}(\.\d+)?` +
		`(\.tmp(-for-creation|-for-deletion)?)*`
	damagedFile = DamagedName + `/\d{8}T\d{6}Z-[a-z0-9.-]+`
)

func anyOf(paths ...string) *regexp.Regexp {
	return regexp.MustCompile(`^(` + strings.Join(paths, "|") + `)$`)
}

// exprOf is the expression of r without what anyOf put around it.
func exprOf(r *regexp.Regexp) string {
	return strings.TrimSuffix(strings.TrimPrefix(r.String(), "^"), "$")
}

func known(path string, e fs.DirEntry, files, dirs *regexp.Regexp) bool {
	switch {
	case e.IsDir():
		return dirs.MatchString(path)
	case e.Type().IsRegular():
		return files.MatchString(path)
	}
	return false // a link, say
}

// keptBeside reports whether e is a directory that may be in a tenant's, but is not deleted with it.
func keptBeside(name string, e fs.DirEntry) bool {
	if !e.IsDir() {
		return false
	}
	if name == DamagedName || name == FaultyName {
		return true
	}
	for _, suffix := range []string{creationSuffix, deletionSuffix, ".tmp"} {
		name = strings.TrimSuffix(name, suffix)
	}
	_, err := ulid.ParseStrict(name)
	return err == nil
}

// Stranger is the error for a directory that is kept because it has something in it that Hearth did not make.
type Stranger struct{ path string }

// Error names what was found.
func (s *Stranger) Error() string { return "kept, as Hearth does not know what this is: " + s.path }

// list returns the paths of all that is in dir, parents first, if everything in it is known. Otherwise the error is a
// *Stranger.
func list(dir string, files, dirs *regexp.Regexp) (paths []string, err error) {
	err = walk(dir, files, dirs, func(rel string, stranger *Stranger) error {
		if stranger != nil {
			return stranger
		}
		paths = append(paths, rel)
		return nil
	})
	return paths, err
}

// walk calls f with the path of all that is in dir, parents first. stranger is nil if it is known.
func walk(dir string, files, dirs *regexp.Regexp, f func(rel string, stranger *Stranger) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if !known(filepath.ToSlash(rel), e, files, dirs) {
			return f(rel, &Stranger{path})
		}
		return f(rel, nil)
	})
}

// discard deletes the listed paths of dir, and dir. It renames dir to gone first, so that under its own name dir is
// there as a whole or not at all. A file that came into it since it was listed stays.
func discard(dir, gone string, paths []string) error {
	if err := fileutil.Rename(dir, gone); err != nil {
		return err
	}
	return empty(gone, paths)
}

// empty deletes the listed paths of dir, children first, and dir.
func empty(dir string, paths []string) error {
	for i := len(paths) - 1; i >= 0; i-- {
		if err := os.Remove(filepath.Join(dir, paths[i])); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// Remove deletes a tenant's directory if it holds no block and nothing unknown. Otherwise the error is a *Stranger.
func Remove(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // somebody has deleted it
	}
	paths, err := list(dir, tenantFiles, tenantDirs)
	if err != nil {
		return err
	}
	root, name := filepath.Split(dir)
	return discard(dir, filepath.Join(root, removingPrefix+name), paths)
}

// Sweep deletes a directory that is Unfinished. One that was being made is kept as a whole if something unknown is in
// it. Of one that was being removed all goes that Hearth made, blocks included, and only what is unknown stays. In both
// cases the error is a *Stranger.
func Sweep(dir string) error {
	if strings.HasPrefix(filepath.Base(dir), removingPrefix) {
		return wipe(dir)
	}
	paths, err := list(dir, tenantFiles, tenantDirs)
	if err != nil {
		return err
	}
	return empty(dir, paths)
}

// Detach gives a tenant's directory a name that no tenant can have, whatever is in it. From then on the tenant has no
// data here: it is there as a whole before, and Sweep deletes what is under the new name, also after a crash. It
// returns the new name, "" if there was no directory.
func Detach(dir string) (gone string, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	root, name := filepath.Split(dir)
	gone = filepath.Join(root, removingPrefix+name)
	for n := 2; Exists(gone); n++ { // something unknown has kept an earlier one
		gone = filepath.Join(root, fmt.Sprintf("%s%s~%d", removingPrefix, name, n))
	}
	return gone, fileutil.Rename(dir, gone)
}

// wipe deletes what Hearth made in dir, a tenant's directory that was detached, and dir if nothing else is in it.
func wipe(dir string) error {
	var paths []string
	var first *Stranger
	err := walk(dir, allFiles, allDirs, func(rel string, stranger *Stranger) error {
		if stranger == nil {
			paths = append(paths, rel)
		} else if first == nil {
			first = stranger
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := len(paths) - 1; i >= 0; i-- {
		err := os.Remove(filepath.Join(dir, paths[i]))
		if err != nil && (first == nil || !errors.Is(err, syscall.ENOTEMPTY)) {
			return err
		}
	}
	if first != nil {
		return first
	}
	return os.Remove(dir)
}

// CheckBlock is nil when a block's directory holds nothing but a block. Otherwise the error is a *Stranger.
func CheckBlock(dir string) error {
	_, err := list(dir, blockFiles, blockDirs)
	return err
}

// RemoveBlock deletes a block. The error is a *Stranger if something unknown is in its directory.
func RemoveBlock(dir string) error {
	paths, err := list(dir, blockFiles, blockDirs)
	if err != nil {
		return err
	}
	return discard(dir, dir+deletionSuffix, paths)
}

// RemoveLog deletes the directory of a log, if there is one. The error is a *Stranger, and nothing is deleted, if
// something is in it that no log has.
func RemoveLog(dir string) error {
	paths, err := list(dir, logFiles, logSubdirs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return empty(dir, paths)
}
