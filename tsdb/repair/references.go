package repair

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"

	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// A crash that tears the WAL may lose the labels of series whose chunks, or whose records in the WBL, are still on
// disk. The TSDB numbers new series from the last reference that the WAL gives labels to. So it would give the
// references of the lost series to new ones, and the replay after that would add the samples of the lost series to
// the new ones.

// reserveReferences keeps the TSDB in tenant directory dir from giving out references that something on disk has, and
// that the WAL has no labels for. It writes a tombstone of the largest one, which deletes nothing: the TSDB numbers
// new series from there.
func reserveReferences(log *slog.Logger, dir string, compress compression.Type) error {
	held, err := lastHeld(dir)
	if held == 0 || err != nil {
		return err
	}
	named, damage, err := lastNamed(dir, held)
	if held <= named || err != nil {
		return err
	}
	log.Warn("the log does not name all series that have chunks on disk: what of them is in no block is lost",
		"last_named", named, "last_reference", held)
	wal, err := wlog.New(silent, nil, filepath.Join(dir, "wal"), compress)
	if err != nil {
		return err
	}
	if damage != nil { // the TSDB would delete what comes after the damage, the tombstone included
		err = wal.Repair(damage)
	}
	if err == nil {
		var enc record.Encoder
		never := tombstones.Intervals{{Mint: math.MinInt64, Maxt: math.MinInt64}}
		err = wal.Log(enc.Tombstones([]tombstones.Stone{{Ref: storage.SeriesRef(held), Intervals: never}}, nil))
	}
	return errors.Join(err, wal.Close())
}

// lastHeld is the largest reference in the mapped chunks and in the WBL of tenant directory dir, 0 if there is none.
func lastHeld(dir string) (last chunks.HeadSeriesRef, err error) {
	raise := func(ref chunks.HeadSeriesRef) { last = max(last, ref) }
	if mapped := filepath.Join(dir, "chunks_head"); tenantdir.Exists(mapped) {
		// The TSDB deletes the chunks behind the first damage.
		_, err := eachMapped(mapped, func(ref chunks.HeadSeriesRef, _ chunks.ChunkDiskMapperRef) { raise(ref) })
		if err != nil {
			return 0, err
		}
	}
	dec := record.NewDecoder(nil, silent)
	err = eachWhole(filepath.Join(dir, wlog.WblDirName), func(rec []byte) error { return eachSampled(&dec, rec, raise) })
	return last, err
}

// lastNamed is the largest reference that the TSDB in tenant directory dir learns of when it opens, before the damage
// in the WAL, if there is any: from a snapshot, and from labels and tombstones in the WAL behind it. It stops reading
// at a reference that is at least enough.
func lastNamed(dir string, enough chunks.HeadSeriesRef) (last chunks.HeadSeriesRef, damage, err error) {
	wal := filepath.Join(dir, "wal")
	checkpoint, from, err := wlog.LastCheckpoint(wal)
	switch {
	case err == nil:
		from++
	case errors.Is(err, record.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		checkpoint, from = "", 0
	default:
		return 0, nil, err
	}
	if in, at, ok := lastInSnapshot(dir, wal); ok {
		last = in
		if at >= from { // the TSDB does not read what comes before the snapshot
			checkpoint, from = "", at+1 // each opening begins a segment
		}
	}
	if checkpoint != "" {
		if err := raiseToNamed(&last, wlog.SegmentRange{Dir: checkpoint, First: -1, Last: -1}, enough); err != nil {
			return last, nil, nil // a damaged checkpoint cannot be repaired; the TSDB reports it
		}
	}
	err = raiseToNamed(&last, wlog.SegmentRange{Dir: wal, First: from, Last: -1}, enough)
	var torn *wlog.CorruptionErr
	if errors.As(err, &torn) {
		return last, err, nil
	}
	return last, nil, err
}

// lastInSnapshot is the largest reference in the snapshot of tenant directory dir, and the segment of the WAL that
// the TSDB goes on with behind it. ok is false when the TSDB will not use a snapshot.
func lastInSnapshot(dir, wal string) (last chunks.HeadSeriesRef, at int, ok bool) {
	snapshot, at, _, err := promtsdb.LastChunkSnapshot(dir)
	if err != nil {
		return 0, 0, false
	}
	if _, end, err := wlog.Segments(wal); err != nil || end < at {
		return 0, 0, false
	}
	const ofSeries = 1 // the kind of a record that begins with a reference
	err = eachRecord(wlog.SegmentRange{Dir: snapshot, First: -1, Last: -1}, func(rec []byte) (bool, error) {
		if len(rec) > 8 && rec[0] == ofSeries {
			last = max(last, chunks.HeadSeriesRef(binary.BigEndian.Uint64(rec[1:])))
		}
		return true, nil
	})
	return last, at, err == nil
}

// raiseToNamed raises last to the references that segments give labels or tombstones to, until it is at least enough.
func raiseToNamed(last *chunks.HeadSeriesRef, segments wlog.SegmentRange, enough chunks.HeadSeriesRef) error {
	dec := record.NewDecoder(nil, silent)
	return eachRecord(segments, func(rec []byte) (bool, error) {
		switch dec.Type(rec) {
		case record.Series:
			named, err := dec.Series(rec, nil)
			if err != nil {
				return false, err
			}
			for i := range named {
				*last = max(*last, named[i].Ref)
			}
		case record.Tombstones:
			stones, err := dec.Tombstones(rec, nil)
			if err != nil {
				return false, err
			}
			for i := range stones {
				*last = max(*last, chunks.HeadSeriesRef(stones[i].Ref))
			}
		}
		return *last < enough, nil
	})
}
