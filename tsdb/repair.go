package tsdb

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
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

// fenceMapped raises the fence above samples in mapped chunks whose series has no open chunk, and is called before
// anybody writes. After a crash that tore the WAL there are such series. The TSDB takes any sample of them for a new
// one, and drops it in the commit, in silence, if it is not newer than the mapped chunks (prometheus#19722). Below the
// fence it is out of order, and stored.
func (in *instance) fenceMapped() (err error) {
	head := in.db.Head()
	index, err := head.Index()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	all, err := index.Postings(context.Background(), "", "")
	if err != nil {
		return err
	}
	bound := in.bound
	var builder labels.ScratchBuilder
	var metas []chunks.Meta
	for all.Next() {
		if err := index.Series(all.At(), &builder, &metas); err != nil {
			return err
		}
		// The open chunk, which is the last one, has no end yet.
		if n := len(metas); n > 0 && metas[n-1].MaxTime != math.MaxInt64 {
			bound = max(bound, metas[n-1].MaxTime+1)
		}
	}
	if bound > in.bound {
		in.bound = bound
		head.SetMinValidTime(bound)
	}
	return all.Err()
}
