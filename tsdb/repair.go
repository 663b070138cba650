package tsdb

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// repairSuffix is what the TSDB adds to the name of a damaged log segment while it copies what is good of it.
const repairSuffix = ".repair"

// undoRepairs takes back repairs of tenant directory dir's logs that a crash or a full disk ended half-way: the TSDB
// would go on with the part that was copied, and lose the rest. It must come before each opening.
//
// A repair first deletes the segments behind the damaged one and makes new ones only when it is done, so a left-over
// with segments behind it is no longer needed.
func undoRepairs(dir string) error {
	for _, log := range []string{"wal", wlog.WblDirName} {
		if err := undoRepair(filepath.Join(dir, log)); err != nil {
			return err
		}
	}
	return nil
}

func undoRepair(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	last, damaged := -1, -1
	for _, e := range entries {
		name, repair := strings.CutSuffix(e.Name(), repairSuffix)
		n, err := strconv.Atoi(name)
		switch {
		case err != nil:
		case repair:
			damaged = max(n, damaged)
		default:
			last = max(n, last)
		}
	}
	if damaged < 0 || damaged < last {
		return nil
	}
	segment := wlog.SegmentName(dir, damaged)
	return fileutil.Rename(segment+repairSuffix, segment)
}
