package tsdb

import (
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
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
	named, damage, err := lastNamed(filepath.Join(dir, "wal"), held)
	if held <= named || err != nil {
		return err
	}
	log.Warn("the log does not name all series that have chunks on disk, what they hold is lost",
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
	if mapped := filepath.Join(dir, "chunks_head"); exists(mapped) {
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

// lastNamed is the largest reference that the WAL in directory wal gives a name to, or has a tombstone of, before the
// damage, if there is any. It reads no further than to one that is at least enough; the checkpoint has it as a rule.
func lastNamed(wal string, enough chunks.HeadSeriesRef) (last chunks.HeadSeriesRef, damage, err error) {
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	scan := func(dir string) error {
		segments, err := wlog.NewSegmentsReader(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer segments.Close()
		r := wlog.NewReader(segments)
		for last < enough && r.Next() {
			switch dec.Type(r.Record()) {
			case record.Series:
				named, err := dec.Series(r.Record(), nil)
				if err != nil {
					return err
				}
				for i := range named {
					last = max(last, named[i].Ref)
				}
			case record.Tombstones:
				stones, err := dec.Tombstones(r.Record(), nil)
				if err != nil {
					return err
				}
				for i := range stones {
					last = max(last, chunks.HeadSeriesRef(stones[i].Ref))
				}
			}
		}
		return r.Err()
	}
	checkpoint, _, err := wlog.LastCheckpoint(wal)
	if err == nil {
		if err := scan(checkpoint); err != nil {
			return last, nil, nil // nothing can be repaired there, and the TSDB says so
		}
	} else if !errors.Is(err, record.ErrNotFound) && !errors.Is(err, fs.ErrNotExist) {
		return last, nil, err
	}
	err = scan(wal)
	var torn *wlog.CorruptionErr
	if errors.As(err, &torn) {
		return last, err, nil
	}
	return last, nil, err
}
