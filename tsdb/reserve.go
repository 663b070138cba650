package tsdb

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"

	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// A crash that tears the WAL may take the names of series with it whose chunks, or whose records in the WBL, are still
// on disk. The TSDB counts references on from the last one that the WAL names. So it gives the references of the lost
// series to new ones, and the replay after that adds the samples of the lost series to them.

// reserveRefs keeps the TSDB in tenant directory dir from giving out references that something on disk has, and the WAL
// does not name. It must come before each opening. A tombstone of such a reference, which deletes nothing, makes the
// TSDB count on from there.
func reserveRefs(log *slog.Logger, dir string, compress compression.Type) error {
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
	wal, err := wlog.New(slog.New(slog.DiscardHandler), nil, filepath.Join(dir, "wal"), compress)
	if err != nil {
		return err
	}
	if damage != nil { // the TSDB would delete what comes after it
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
	if mapped := filepath.Join(dir, "chunks_head"); tenantdir.Exists(mapped) {
		mapper, err := chunks.NewChunkDiskMapper(nil, mapped, chunkenc.NewPool(), chunks.DefaultWriteBufferSize, 0)
		if err != nil {
			return 0, err
		}
		err = mapper.IterateAllChunks(func(
			ref chunks.HeadSeriesRef, _ chunks.ChunkDiskMapperRef, _, _ int64, _ uint16, _ chunkenc.Encoding, _ bool,
		) error {
			last = max(last, ref)
			return nil
		})
		var damage *chunks.CorruptionErr
		if errors.As(err, &damage) {
			err = nil // the TSDB deletes what comes after
		}
		if err = errors.Join(err, mapper.Close()); err != nil {
			return 0, err
		}
	}
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	err = eachRecord(filepath.Join(dir, wlog.WblDirName), func(rec []byte) error {
		return eachSampled(&dec, rec, func(ref chunks.HeadSeriesRef) { last = max(last, ref) })
	})
	return last, err
}

// lastNamed is the largest reference of which the TSDB in tenant directory dir learns when it opens, before the damage in the
// WAL, if there is any: those in a snapshot and those that the WAL behind it gives a name to, or has a tombstone of. It reads
// no further than to one that is at least enough.
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
		if at >= from { // what comes before the snapshot is not read
			checkpoint, from = "", at+1 // each opening begins a segment
		}
	}
	if checkpoint != "" {
		if err := scanNames(wlog.SegmentRange{Dir: checkpoint, First: -1, Last: -1}, &last, enough); err != nil {
			return last, nil, nil // nothing can be repaired there, and the TSDB says so
		}
	}
	err = scanNames(wlog.SegmentRange{Dir: wal, First: from, Last: -1}, &last, enough)
	var torn *wlog.CorruptionErr
	if errors.As(err, &torn) {
		return last, err, nil
	}
	return last, nil, err
}

// lastInSnapshot is the largest reference in the snapshot of tenant directory dir, and the segment of the WAL that the
// snapshot goes on with; false when the TSDB will not use one.
func lastInSnapshot(dir, wal string) (last chunks.HeadSeriesRef, at int, ok bool) {
	snapshot, at, _, err := promtsdb.LastChunkSnapshot(dir)
	if err != nil {
		return 0, 0, false
	}
	if _, end, err := wlog.Segments(wal); err != nil || end < at {
		return 0, 0, false
	}
	const ofSeries = 1 // the kind of a record that begins with a reference
	err = scanLog(wlog.SegmentRange{Dir: snapshot, First: -1, Last: -1}, func(rec []byte) (bool, error) {
		if len(rec) > 8 && rec[0] == ofSeries {
			last = max(last, chunks.HeadSeriesRef(binary.BigEndian.Uint64(rec[1:])))
		}
		return true, nil
	})
	return last, at, err == nil
}

// scanNames raises last to the references that segments name, until it is at least enough.
func scanNames(segments wlog.SegmentRange, last *chunks.HeadSeriesRef, enough chunks.HeadSeriesRef) error {
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	return scanLog(segments, func(rec []byte) (bool, error) {
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

// scanLog calls f for each record of segments while it returns true.
func scanLog(segments wlog.SegmentRange, f func(rec []byte) (bool, error)) error {
	in, err := wlog.NewSegmentsRangeReader(segments)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	r := wlog.NewReader(in)
	for r.Next() {
		if more, err := f(r.Record()); !more || err != nil {
			return err
		}
	}
	return r.Err()
}
