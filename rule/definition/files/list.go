package files

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// place is a file that was found.
type place struct {
	path   string // as the user gave it
	tenant tenant.ID
}

// unlisted is a directory, or a pattern, that could not be listed.
type unlisted struct {
	below string // the directory with all files that it may have
	err   error
}

// faults are what could not be listed.
type faults []unlisted

func (f faults) errors() (all []error) {
	for _, u := range f {
		all = append(all, u.err)
	}
	return all
}

// list finds all files, each once, sorted by path.
func (f *Files) list() (found []place, bad faults) {
	for _, pattern := range f.opts.Patterns {
		paths, err := expand(pattern)
		if err != nil {
			bad = append(bad, unlisted{base(pattern), fmt.Errorf("rule files %s: %w", pattern, err)})
		}
		for _, path := range paths {
			found = append(found, place{path, f.opts.Tenant})
		}
	}
	if f.opts.TenantDir != "" {
		ids, wrong := tenantDirs(f.opts.TenantDir)
		bad = append(bad, wrong...)
		for _, id := range ids {
			dir := filepath.Join(f.opts.TenantDir, string(id))
			paths, err := yamlIn(dir)
			if err != nil {
				bad = append(bad, unlisted{dir, fmt.Errorf("rule files of tenant %s: %w", id, err)})
			}
			for _, path := range paths {
				found = append(found, place{path, id})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b place) int { return strings.Compare(a.path, b.path) })
	return slices.CompactFunc(found, func(a, b place) bool { return a.path == b.path }), bad
}

// expand returns the files that a pattern stands for. It is an error if a directory cannot be read. A path without a
// wildcard stands for itself, so that a file that is missing is an error when it is read.
func expand(pattern string) ([]string, error) {
	if info, err := os.Stat(pattern); err == nil && info.IsDir() {
		return yamlIn(pattern)
	}
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}, nil
	}
	paths, err := filepath.Glob(pattern)
	if err == nil && len(paths) == 0 { // Glob does not tell a directory that cannot be read from one without files
		_, err = os.ReadDir(base(pattern))
	}
	return paths, err
}

// base is the longest directory of a pattern that has no wildcard.
func base(pattern string) string {
	for strings.ContainsAny(pattern, `*?[\`) {
		pattern = filepath.Dir(pattern)
	}
	return pattern
}

// yamlIn are the files of rules in a directory. Names that begin with a dot are not read: editors and Kubernetes keep
// other things there.
func yamlIn(dir string) (paths []string, _ error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if (ext == ".yml" || ext == ".yaml") && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// tenantDirs are the tenants that have a directory in dir.
func tenantDirs(dir string) (ids []tenant.ID, bad faults) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, faults{{dir, fmt.Errorf("rule files of tenants: %w", err)}}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !isDir(dir, e) {
			continue
		}
		id, err := tenant.Parse(e.Name())
		if err != nil {
			path := filepath.Join(dir, e.Name())
			bad = append(bad, unlisted{path, fmt.Errorf("rule files of tenants: directory %s: %w", path, err)})
			continue
		}
		ids = append(ids, id)
	}
	return ids, bad
}

// isDir reports whether e, an entry of dir, is a directory or a link to one.
func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// keepUnlisted keeps what was known of files below directories that could not be listed.
func keepUnlisted(is, was map[string]file, bad faults) {
	for _, u := range bad {
		for path, known := range was {
			rel, err := filepath.Rel(u.below, path)
			if _, listed := is[path]; !listed && err == nil && filepath.IsLocal(rel) {
				is[path] = known
			}
		}
	}
}
