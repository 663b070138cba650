package tenantdir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	// LockName is the file in the directory of all tenants that keeps a second process out. No tenant can have this name.
	LockName = "~lock"
	// LostFound is the directory that a file system makes where it is mounted. It never becomes a tenant's by itself.
	LostFound = "lost+found"
	// DamagedName is the directory in a tenant's that keeps log segments as they were found. Only people read or remove
	// it.
	DamagedName = "damaged"
	// FaultyName is the directory in a tenant's for blocks that the TSDB would not open with.
	FaultyName = "faulty"
	// ExemplarsName is the file that says that a tenant has had exemplars.
	ExemplarsName = "exemplars"

	// markName is the file in a tenant's directory that says that Hearth made it, and for which tenant.
	markName = "hearth-tenant.json"
	// rootMarkName is the file in the directory of all tenants that says that each tenant's directory in it has a mark. No
	// tenant can have this name: otherwise a write for a tenant of this name could decide what an upgrade takes over.
	rootMarkName = "~hearth-tsdb.json"
	// A tenant's directory has such a name before it is marked, and once it is to be deleted. No tenant can have one.
	makingPrefix, removingPrefix = "~making-", "~removing-"

	shippedName = "thanos.shipper.json" // written by receive, and by Thanos
)

type mark struct {
	Version int       `json:"version"`
	Tenant  tenant.ID `json:"tenant,omitempty"` // the name of the directory; none in the root
}

var (
	errUnmarked = errors.New("it has no " + markName + ", so Hearth did not make it")
	errFile     = errors.New("it is a file")
)

// Exists reports whether there is something at path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Check is nil when dir is tenant id's directory, and fs.ErrNotExist when nothing is there. Any other error says what
// is there instead. It also refuses a copy of another tenant's directory, and a directory that has this name only
// because the file system does not tell upper case from lower case.
func Check(dir string, id tenant.ID) error {
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
		if id != LostFound && (Exists(filepath.Join(dir, "wal")) || Exists(filepath.Join(dir, shippedName))) {
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

// Made is when Hearth made dir, or took it over: when its mark was written.
func Made(dir string) (time.Time, error) {
	info, err := os.Stat(filepath.Join(dir, markName))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// Create makes dir, tenant id's directory, unless it is there already. Errors are those of Refusal, or of the disk.
//
//  1. a directory is made under a name that no tenant can have
//  2. the mark is written into it
//  3. the directory gets its name, which is the commit
func Create(dir string, id tenant.ID) error {
	err := Check(dir, id)
	if !errors.Is(err, fs.ErrNotExist) {
		return Refusal(id, err)
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

// Refusal is the answer to a write of tenant id, given the error of Check: Invalid if no such tenant can ever be
// stored, Unavailable if somebody has to move a directory first. It is nil if why is nil.
func Refusal(id tenant.ID, why error) error {
	switch {
	case why == nil:
		return nil
	case errors.Is(why, errFile):
		return errs.E(errs.Invalid, "tenant id %q is the name of a file in the receiver's directory: choose another", id)
	}
	err := errs.E(errs.Unavailable,
		"tenant %q cannot be stored on this receiver, which leaves the directory of this name alone: %w", id, why)
	return errs.WithRetryAfter(err, time.Minute)
}

// History is what the directory of all tenants shows of earlier processes.
type History struct {
	Marked   bool // all tenants' directories have marks
	locked   bool // a Hearth that knew no marks used it
	lockless bool // or may have used it, without a lock
}

// Examine looks at the directory of all tenants, before this process locks it. noLock says that this process, and
// those before it, take no lock. Where no Hearth was before, Examine marks the directory at once: the lock that this
// process is about to take would otherwise look, to the next process, like that of a Hearth that knew no marks.
func Examine(root string, noLock bool) (History, error) {
	h := History{
		Marked:   Exists(filepath.Join(root, rootMarkName)),
		locked:   Exists(filepath.Join(root, LockName)),
		lockless: noLock,
	}
	if h.Marked || h.locked || h.lockless {
		return h, nil
	}
	return h, MarkRoot(root)
}

// MarkRoot notes that all tenants' directories below root have marks from now on.
func MarkRoot(root string) error {
	if err := writeJSON(filepath.Join(root, rootMarkName), mark{Version: 1}); err != nil {
		return errs.E(errs.Internal, "mark tsdb directory: %w", err)
	}
	return nil
}

// Unfinished reports whether name is that of a directory that was being made or removed when a process ended. Sweep
// deletes it.
func Unfinished(name string) bool {
	return strings.HasPrefix(name, makingPrefix) || strings.HasPrefix(name, removingPrefix)
}

// contents is what a look into a directory without a mark finds.
type contents struct {
	stranger string // a name that no tenant's directory has
	log      bool   // wal/
	shipped  bool   // thanos.shipper.json
	hearth   bool   // a file that only Hearth writes
}

// ours decides whether a directory without a mark is taken as a tenant's.
func (c contents) ours(h History, adopt bool) bool {
	switch {
	case adopt && (c.log || c.shipped):
		return true
	case h.Marked || c.stranger != "":
		return false
	}
	return c.log && (h.locked || h.lockless && c.hearth)
}

func lookInside(dir string) (c contents, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir():
			c.log = c.log || name == "wal"
		case e.Type().IsRegular():
			ours := (name == summaryName || name == metadataName) && versionOf(filepath.Join(dir, name)) == 1
			c.shipped = c.shipped || name == shippedName
			c.hearth = c.hearth || ours
		}
		if c.stranger == "" && !known(name, e, tenantFiles, tenantDirs) && !keptBeside(name, e) {
			c.stranger = name
		}
	}
	return c, err
}

// versionOf is the version that a JSON file says it has, 0 when it says none.
func versionOf(path string) int {
	var f struct{ Version int }
	if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &f) != nil {
		return 0
	}
	return f.Version
}

// Take is nil when dir is tenant id's directory, or becomes it now: taken then says that it got its mark. adopt takes
// over what a Thanos receiver left. Otherwise the error says what dir is instead.
func Take(dir string, id tenant.ID, h History, adopt bool) (taken bool, err error) {
	err = Check(dir, id)
	if !errors.Is(err, errUnmarked) {
		return false, err
	}
	c, lerr := lookInside(dir)
	switch {
	case lerr != nil:
		return false, lerr
	case id != LostFound && c.ours(h, adopt):
		return true, setMark(dir, id)
	}
	return false, err
}
