package repair

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// Logs repairs the logs in tenant directory dir; compress is for records that are written anew. lost is how many
// bytes were damaged, with good ones behind them, and were taken out; it is right even when there is an error.
//
//  1. repairs by the TSDB that a crash or a full disk ended half-way are undone
//  2. damage in the middle of a log is taken out
//  3. markers in the WBL that must not be believed are taken out
//  4. references that only chunks or the WBL have are kept from new series
func Logs(log *slog.Logger, dir string, compress compression.Type, now time.Time) (lost int64, err error) {
	for _, name := range []string{"wal", wlog.WblDirName} {
		if err := undoRepair(filepath.Join(dir, name)); err != nil {
			return 0, fmt.Errorf("undo the repair of %s: %w", name, err)
		}
	}
	if lost, err = salvage(dir, now); err != nil {
		return lost, err
	}
	if err := correctMarkers(log, dir, compress); err != nil {
		return lost, fmt.Errorf("markers of out-of-order chunks: %w", err)
	}
	if err := reserveReferences(log, dir, compress); err != nil {
		return lost, fmt.Errorf("reserve series references: %w", err)
	}
	return lost, nil
}

// repairSuffix is what the TSDB adds to the name of a damaged log segment while it copies what is good of it.
const repairSuffix = ".repair"

// undoRepair gives a segment that the TSDB was repairing its name back. Otherwise the TSDB would go on with the part
// that it had copied, and the rest would be lost.
//
// A repair first deletes the segments behind the damaged one, and makes new ones only when it is done. So a segment
// that has others behind it was repaired, and what is left of the repair is no longer needed.
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
