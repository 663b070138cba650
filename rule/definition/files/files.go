package files

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/filewatch"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// Options of Files.
type Options struct {
	// Patterns are paths of files, with * ? [] as in a shell, or of directories, of which *.yml and *.yaml count. Their
	// groups are those of Tenant.
	Patterns []string
	Tenant   tenant.ID
	// TenantDir has a directory for each tenant, named like it, with files *.yml and *.yaml; "" = none.
	TenantDir string
	// Limits are those of the tenants.
	Limits tenant.LimitsOf
	// Interval is how often all files are read. A change in a directory makes a read come sooner.
	Interval time.Duration
}

// settle is how long after a change files are read, so that half of a change is not seen.
const settle = 200 * time.Millisecond

// Files is a definition.Source of files. It is safe for concurrent use.
type Files struct {
	log     *slog.Logger
	opts    Options
	changed chan struct{}
	stop    func()

	reading sync.Mutex // one read at a time
	mu      sync.Mutex // guards known and listing
	known   map[string]file
	listing error // what could not be listed
}

var _ definition.Source = (*Files)(nil)

// New returns a Files that reads nothing before Open.
func New(log *slog.Logger, opts Options) *Files {
	return &Files{log: log, opts: opts, changed: make(chan struct{}, 1), known: map[string]file{}}
}

// Open reads all files, and follows them until Close. A wrong file is no error: Groups names it.
func (f *Files) Open(context.Context, func(error)) error {
	_ = f.Reload() // which logs its error
	f.stop = filewatch.Follow(f.log, f.watched(), f.opts.Interval, settle, func() { _ = f.Reload() })
	return nil
}

// Close stops following files.
func (f *Files) Close() error {
	f.stop()
	return nil
}

// watched are names in the directories to watch. Directories that come later are only looked at in each interval.
func (f *Files) watched() (names []string) {
	for _, p := range f.opts.Patterns {
		dirs, _ := filepath.Glob(filepath.Dir(p)) // a pattern that is wrong is a fault of each read
		for _, dir := range dirs {
			names = append(names, filepath.Join(dir, "*"))
		}
		if len(dirs) == 0 {
			names = append(names, p) // which cannot be watched, and is named in the log
		}
		if info, err := os.Stat(p); err == nil && info.IsDir() {
			names = append(names, filepath.Join(p, "*"))
		}
	}
	if f.opts.TenantDir != "" {
		names = append(names, filepath.Join(f.opts.TenantDir, "*"))
		dirs, _ := tenantDirs(f.opts.TenantDir)
		for _, id := range dirs {
			names = append(names, filepath.Join(f.opts.TenantDir, string(id), "*"))
		}
	}
	return names
}

// Changed implements definition.Source.
func (f *Files) Changed() <-chan struct{} { return f.changed }

// Groups implements definition.Source.
func (f *Files) Groups(context.Context) ([]definition.Group, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	faults := []error{f.listing}
	var groups []definition.Group
	for _, path := range sortedPaths(f.known) {
		groups = append(groups, f.known[path].groups...)
		faults = append(faults, f.known[path].err)
	}
	definition.Sort(groups)
	return groups, errors.Join(faults...)
}

// Reload reads all files now. The error names what is wrong; last good forms stay.
func (f *Files) Reload() error {
	f.reading.Lock()
	defer f.reading.Unlock()
	found, listing := f.list()
	f.mu.Lock()
	was, wasListing := f.known, f.listing
	f.mu.Unlock()
	is := map[string]file{}
	counts := map[tenant.ID]int{}
	for _, at := range found {
		is[at.path] = read(at, was[at.path], f.opts.Limits, counts)
	}
	keepUnlisted(is, was, listing)
	listed := errors.Join(listing.errors()...)
	f.mu.Lock()
	f.known, f.listing = is, listed
	f.mu.Unlock()
	f.tell(was, is, wasListing, listed)
	faults := []error{listed}
	for _, path := range sortedPaths(is) {
		faults = append(faults, is[path].err)
	}
	return errors.Join(faults...)
}

// tell logs what has changed, and sends to Changed.
func (f *Files) tell(was, is map[string]file, wasListing, listing error) {
	changed := false
	if errs.Text(listing) != errs.Text(wasListing) {
		changed = true
		if listing != nil {
			f.log.Error("rule files cannot be listed; what was read of them stays in force", "err", listing)
		}
	}
	for _, path := range sortedPaths(is) {
		now, before := is[path], was[path]
		if now.same(before) {
			continue
		}
		changed = true
		switch {
		case now.err != nil && len(now.groups) > 0:
			f.log.Error("a rule file has a fault; its last good form stays in force", "file", path, "err", now.err)
		case now.err != nil:
			f.log.Error("a rule file has a fault; none of its rules run", "file", path, "err", now.err)
		default:
			f.log.Info("rule file read", "file", path, "tenant", now.tenant, "groups", len(now.groups))
		}
	}
	for _, path := range sortedPaths(was) {
		if _, still := is[path]; !still {
			changed = true
			f.log.Info("rule file is gone, and its rules with it", "file", path)
		}
	}
	if !changed {
		return
	}
	select {
	case f.changed <- struct{}{}:
	default: // Changed has not been read since the last change
	}
}

func sortedPaths(files map[string]file) []string {
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}
