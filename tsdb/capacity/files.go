package capacity

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// What an open tenant holds: its WAL, its WBL, the directory of mapped chunks, the file that the process before wrote
// chunks to, and, once a chunk was full, the file that they are written to, twice. A block holds its index and its
// chunks, opened and mapped.
const (
	FilesPerTenant, mapsPerTenant = 6, 2
	FilesPerBlock, mapsPerBlock   = 2, 2
)

// Files keeps the process from running out of open files and memory maps. A TSDB that cannot open a file in the
// middle of a write has to be closed, and a process that cannot open any takes no connections. So Files leaves a
// tenth for other things.
type Files struct {
	// MaxFiles and MaxMaps are how many the process may have; 0 = not known. Tests change them.
	MaxFiles, MaxMaps int

	log             *slog.Logger
	tenants, blocks atomic.Int64 // that are open
	warned          atomic.Bool
}

// NewFiles counts towards the limits of this process.
func NewFiles(log *slog.Logger) *Files {
	f := &Files{log: log}
	f.MaxFiles, f.MaxMaps = fileLimits()
	return f
}

// use returns which part of the scarcer of the two is taken, 0 to 1 or more, and what to do about it.
func (f *Files) use() (part float64, advice string) {
	tenants, blocks := f.tenants.Load(), f.blocks.Load()
	partOf := func(n int64, limit int) float64 {
		if limit <= 0 {
			return 0
		}
		return float64(n) / float64(limit)
	}
	byFiles := partOf(tenants*FilesPerTenant+blocks*FilesPerBlock, f.MaxFiles)
	byMaps := partOf(tenants*mapsPerTenant+blocks*mapsPerBlock, f.MaxMaps)
	if byMaps > byFiles {
		return byMaps, fmt.Sprintf("memory maps: raise vm.max_map_count, which is %d", f.MaxMaps)
	}
	return byFiles, fmt.Sprintf("open files: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=), which is %d", f.MaxFiles)
}

const refuseAbove, warnAbove = 0.9, 0.7

// Admit counts one more open tenant, or refuses it (Exhausted) if too little would be left.
func (f *Files) Admit() error {
	n := f.tenants.Add(1)
	if part, advice := f.use(); part > refuseAbove {
		f.tenants.Add(-1)
		return errs.E(errs.Exhausted,
			"%d open tenants with %d blocks leave no room for another one's %s, or shorten --tsdb.retention",
			n-1, f.blocks.Load(), advice)
	}
	return nil
}

// Leave counts one open tenant less.
func (f *Files) Leave() { f.tenants.Add(-1) }

// AddBlocks counts n more open blocks, or fewer where n is negative.
func (f *Files) AddBlocks(n int64) { f.blocks.Add(n) }

// Tenants is how many tenants are open.
func (f *Files) Tenants() int64 { return f.tenants.Load() }

// Blocks is how many blocks are open.
func (f *Files) Blocks() int64 { return f.blocks.Load() }

// Warn logs a warning when little is left, once until there is more again.
func (f *Files) Warn() {
	part, advice := f.use()
	switch warn := part > warnAbove; {
	case warn && !f.warned.Swap(true):
		f.log.Warn("soon no more tenants or blocks can be opened for want of "+advice,
			"used", part, "tenants", f.tenants.Load(), "blocks", f.blocks.Load())
	case !warn:
		f.warned.Store(false)
	}
}
