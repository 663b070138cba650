package tsdb

// Whose a directory is, and what of it may be deleted, is explained in docs/design/009-whose-directory.md.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	// markName is the file in a tenant's directory that says that Hearth made it, and for which tenant.
	markName = "hearth-tenant.json"
	// rootMarkName is the file in Options.Dir that says that every tenant's directory in it has a mark. No tenant can have
	// this name: somebody who wrote as one could else have settled what an upgrade takes over.
	rootMarkName = "~hearth-tsdb.json"
	// A tenant's directory has such a name before it is marked, and once it is to be deleted. No tenant can have one.
	makingPrefix, removingPrefix = "~making-", "~removing-"

	shippedName = "thanos.shipper.json" // written by receive, and by Thanos
	lostFound   = "lost+found"          // the file system's own, where one is mounted; it becomes nobody's by itself
)

type mark struct {
	Version int       `json:"version"`
	Tenant  tenant.ID `json:"tenant,omitempty"` // the name of the directory; none in the root
}

// errUnmarked is what a directory without a mark is.
var errUnmarked = errors.New("it has no " + markName + ", so Hearth did not make it")

// marked is nil when dir is tenant id's directory, fs.ErrNotExist when there is nothing, errUnmarked when it has no mark.
// Any other error says what is there instead. A copy of a tenant's directory is not the copy's tenant, and neither is a
// directory of which only the file system believes that it has this name.
func marked(dir string, id tenant.ID) error {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link")
	case !info.IsDir():
		return errFile
	}
	b, err := os.ReadFile(filepath.Join(dir, markName))
	if errors.Is(err, fs.ErrNotExist) {
		if id != lostFound && (exists(filepath.Join(dir, "wal")) || exists(filepath.Join(dir, shippedName))) {
			return fmt.Errorf("%w; --tsdb.adopt takes it over", errUnmarked)
		}
		return errUnmarked
	}
	if err != nil {
		return err
	}
	var m mark
	switch err := json.Unmarshal(b, &m); {
	case err != nil:
		return fmt.Errorf("its %s: %w", markName, err)
	case m.Version != 1:
		return fmt.Errorf("its %s has version %d, and this program knows version 1", markName, m.Version)
	case m.Tenant != id:
		return fmt.Errorf("its %s says that it is tenant %q's", markName, m.Tenant)
	}
	return nil
}

var errFile = errors.New("it is a file")

// claim sees to it that dir is tenant id's directory, making it when nothing is there:
//
//  1. a directory whose name no tenant can have
//  2. the mark in it
//  3. a rename to its name, the commit
func claim(dir string, id tenant.ID) error {
	err := marked(dir, id)
	if !errors.Is(err, fs.ErrNotExist) {
		return notOurs(id, err)
	}
	tmp := filepath.Join(filepath.Dir(dir), makingPrefix+string(id))
	if err := os.MkdirAll(tmp, 0o777); err != nil {
		return err
	}
	if err := setMark(tmp, id); err != nil {
		return err
	}
	return fileutil.Rename(tmp, dir)
}

func setMark(dir string, id tenant.ID) error {
	return writeJSON(filepath.Join(dir, markName), mark{1, id})
}

// notOurs is why tenant id cannot have the directory of its name, given what marked says of it.
func notOurs(id tenant.ID, why error) error {
	switch {
	case why == nil:
		return nil
	case errors.Is(why, errFile):
		return errs.E(errs.Invalid, "tenant id %q is the name of a file in the receiver's directory: choose another", id)
	}
	return errs.WithRetryAfter(errs.E(errs.Unavailable,
		"tenant %q cannot be stored on this receiver, which leaves the directory of this name alone: %w", id, why), time.Minute)
}

// inside is what a look into a directory without a mark finds.
type inside struct {
	stranger string // a name that no tenant's directory has
	log      bool   // wal/
	shipped  bool   // thanos.shipper.json
	hearth   bool   // a file that only Hearth writes
}

// before is what is known of the directory of all tenants from its use by earlier processes.
type before struct {
	marked   bool // all tenants' directories have marks
	locked   bool // a Hearth that knew no marks used it
	lockless bool // or may have used it, without a lock
}

// ours decides whether a directory without a mark is taken as a tenant's.
func (i inside) ours(b before, adopt bool) bool {
	switch {
	case adopt && (i.log || i.shipped):
		return true
	case b.marked || i.stranger != "":
		return false
	}
	return i.log && (b.locked || b.lockless && i.hearth)
}

func lookInside(dir string) (i inside, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir():
			i.log = i.log || name == "wal"
		case e.Type().IsRegular():
			i.shipped = i.shipped || name == shippedName
			i.hearth = i.hearth || (name == summaryName || name == metadataName) && versionOf(filepath.Join(dir, name)) == 1
		}
		if i.stranger == "" && !tenantHas(name, e) && !inTenantBeside(name, e) {
			i.stranger = name
		}
	}
	return i, err
}

// versionOf is the version that a JSON file says it has, 0 when it says none.
func versionOf(path string) int {
	var f struct{ Version int }
	if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &f) != nil {
		return 0
	}
	return f.Version
}

// take is nil when the directory is tenant id's, also because it becomes so now.
func (d *DB) take(id tenant.ID, b before) error {
	dir := d.TenantDir(id)
	err := marked(dir, id)
	if !errors.Is(err, errUnmarked) {
		return err
	}
	i, lerr := lookInside(dir)
	switch {
	case lerr != nil:
		return lerr
	case id != lostFound && i.ours(b, d.opts.Adopt):
		d.log.Info("directory taken over as a tenant's", "tenant", id, "dir", dir)
		return setMark(dir, id)
	}
	return err
}

// earlier tells what is known of the directory. Where no Hearth was before it gets its mark at once: the lock, which this
// process is about to take, would otherwise look like that of a Hearth without marks to the next one.
func (d *DB) earlier() (before, error) {
	b := before{
		marked:   exists(filepath.Join(d.opts.Dir, rootMarkName)),
		locked:   exists(filepath.Join(d.opts.Dir, lockName)),
		lockless: d.opts.NoLock,
	}
	if b.marked || b.locked || b.lockless {
		return b, nil
	}
	return b, d.markRoot()
}

// markRoot says that all tenants' directories have marks from now on.
func (d *DB) markRoot() error {
	if err := writeJSON(filepath.Join(d.opts.Dir, rootMarkName), mark{Version: 1}); err != nil {
		return errs.E(errs.Internal, "mark tsdb directory: %w", err)
	}
	return nil
}

// What may be in a tenant's directory, as doc.go has it, by path. Nothing else is ever deleted.
var (
	tenantFiles = anyOf(
		`(hearth-tenant|summary|metadata|thanos\.shipper|series_state)\.json(\.tmp)?`, `exemplars`, `lock`, `salvage\.tmp`,
		logDirs+`/`+logFile, `chunks_head/(\d+|probe\.tmp)`, snapshotDirs+`/\d+`,
	)
	tenantDirs = anyOf(logDirs+`(/checkpoint\.\d+(\.tmp)?)?`, `chunks_head`, snapshotDirs, `thanos(/upload)?`)

	blockFiles = anyOf(`meta\.json(\.tmp)?`, `index`, `index\.repaired`, `tombstones(\.tmp)?`, `chunks/\d+(\.tmp)?`)
	blockDirs  = anyOf(`chunks`)

	logFiles, logSubdirs = anyOf(logFile), anyOf(`checkpoint\.\d+(\.tmp)?`)
)

const logFile = `(checkpoint\.\d+(\.tmp)?/)?\d+(\.repair)?`

const logDirs, snapshotDirs = `(wal|wbl|wbl\.fixed|wbl\.fixed\.tmp)`, `chunk_snapshot\.\d+\.\d+(\.tmp)?`

func anyOf(paths ...string) *regexp.Regexp {
	return regexp.MustCompile(`^(` + strings.Join(paths, "|") + `)$`)
}

func tenantHas(path string, e fs.DirEntry) bool { return known(path, e, tenantFiles, tenantDirs) }

func known(path string, e fs.DirEntry, files, dirs *regexp.Regexp) bool {
	switch {
	case e.IsDir():
		return dirs.MatchString(path)
	case e.Type().IsRegular():
		return files.MatchString(path)
	}
	return false // a link, say
}

// inTenantBeside are directories in a tenant's that are not deleted with it.
func inTenantBeside(name string, e fs.DirEntry) bool {
	if !e.IsDir() {
		return false
	}
	if name == damagedName || name == faultyName {
		return true
	}
	for _, suffix := range []string{".tmp-for-creation", deletionSuffix, ".tmp"} {
		name = strings.TrimSuffix(name, suffix)
	}
	_, err := ulid.ParseStrict(name)
	return err == nil
}

// stranger is a directory that is kept, since it has something in it that nobody here has made.
type stranger struct{ path string }

func (s *stranger) Error() string { return "kept, as Hearth does not know what this is: " + s.path }

// whole lists what is in dir by path, parents first, if it is nothing but what is known. Otherwise the error is a stranger.
func whole(dir string, files, dirs *regexp.Regexp) (paths []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if !known(filepath.ToSlash(rel), e, files, dirs) {
			return &stranger{path}
		}
		paths = append(paths, rel)
		return nil
	})
	return paths, err
}

// discard deletes what whole listed of dir, and dir, which gets the name gone first: it is there wholly, or not at all. What
// came into it meanwhile stays.
func discard(dir, gone string, paths []string) error {
	if err := fileutil.Rename(dir, gone); err != nil {
		return err
	}
	return empty(gone, paths)
}

func empty(dir string, paths []string) error {
	for i := len(paths) - 1; i >= 0; i-- {
		if err := os.Remove(filepath.Join(dir, paths[i])); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// removeTenant deletes a tenant's directory that holds no block and nothing unknown. What holds something is a stranger.
func removeTenant(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // somebody has deleted it
	}
	paths, err := whole(dir, tenantFiles, tenantDirs)
	if err != nil {
		return err
	}
	root, name := filepath.Split(dir)
	return discard(dir, filepath.Join(root, removingPrefix+name), paths)
}

const deletionSuffix = ".tmp-for-deletion" // the TSDB removes such a directory when it opens

// wholeBlock is nil when there is nothing in a block's directory but a block.
func wholeBlock(dir string) error {
	_, err := whole(dir, blockFiles, blockDirs)
	return err
}

// removeBlock deletes a block that has nothing unknown in it.
func removeBlock(dir string) error {
	paths, err := whole(dir, blockFiles, blockDirs)
	if err != nil {
		return err
	}
	return discard(dir, dir+deletionSuffix, paths)
}

// sweep ends the making or the deletion of a tenant's directory in which a process ended.
func (d *DB) sweep(name string) {
	dir := filepath.Join(d.opts.Dir, name)
	paths, err := whole(dir, tenantFiles, tenantDirs)
	if err == nil {
		err = empty(dir, paths)
	}
	if err != nil {
		d.log.Warn("directory of a tenant that is gone not removed", "dir", dir, "err", err)
	}
}

// keep notes why something of the tenant that was to be deleted is not; nil when all was. The log has each reason once.
func (t *tenantDB) keep(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = why != nil
	if why != nil && why.Error() != t.keptFor {
		t.keptFor = why.Error()
		t.db.log.Warn("not deleted", "tenant", t.id, "err", why)
	}
}
