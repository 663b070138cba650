package tsdb

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// What an open tenant holds: its WAL, its WBL, the directory of mapped chunks, the file that the process before wrote them
// to, and, once a chunk was full, the file they are written to, twice. A block has its index and its chunks, opened and
// mapped.
const (
	filesPerTenant, mapsPerTenant = 6, 2
	filesPerBlock, mapsPerBlock   = 2, 2
)

// files keeps the process from running out of open files and memory maps: a TSDB that cannot open a file in the middle of
// a write has to be closed, and a process without any takes no connections. So the last tenth is for other things.
type files struct {
	log               *slog.Logger
	maxFiles, maxMaps int // 0 = not known

	tenants, blocks atomic.Int64 // that are open
	warned          atomic.Bool
}

// use is how full the fuller of the two is, 0 to 1 or more; what names it.
func (f *files) use() (part float64, what string) {
	tenants, blocks := f.tenants.Load(), f.blocks.Load()
	share := func(n int64, limit int) float64 {
		if limit <= 0 {
			return 0
		}
		return float64(n) / float64(limit)
	}
	byFiles := share(tenants*filesPerTenant+blocks*filesPerBlock, f.maxFiles)
	byMaps := share(tenants*mapsPerTenant+blocks*mapsPerBlock, f.maxMaps)
	if byMaps > byFiles {
		return byMaps, fmt.Sprintf("memory maps: raise vm.max_map_count, which is %d", f.maxMaps)
	}
	return byFiles, fmt.Sprintf("open files: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=), which is %d", f.maxFiles)
}

const maxFilesUse, warnFilesUse = 0.9, 0.7

// admit is nil when there is room for one more open tenant, which is then counted.
func (f *files) admit() error {
	n := f.tenants.Add(1)
	if part, what := f.use(); part > maxFilesUse {
		f.tenants.Add(-1)
		return errs.E(errs.Exhausted, "%d open tenants with %d blocks leave no room for another one's %s, or shorten --tsdb.retention", n-1, f.blocks.Load(), what)
	}
	return nil
}

// leave counts an open tenant and its blocks off.
func (f *files) leave(in *instance) {
	f.tenants.Add(-1)
	f.blocks.Add(-in.blocks.Swap(0))
}

// count counts the blocks of an open tenant anew.
func (f *files) count(in *instance) {
	n := int64(len(in.db.Blocks()))
	f.blocks.Add(n - in.blocks.Swap(n))
}

// check warns when little is left.
func (f *files) check() {
	part, what := f.use()
	switch warn := part > warnFilesUse; {
	case warn && !f.warned.Swap(true):
		f.log.Warn("soon no more tenants or blocks can be opened for want of "+what, "used", part, "tenants", f.tenants.Load(), "blocks", f.blocks.Load())
	case !warn:
		f.warned.Store(false)
	}
}
