package repair

import (
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// The TSDB maps full out-of-order chunks. It writes them to a buffer first, and to a file later. The WBL has a marker
// where a series begins a new out-of-order chunk. The marker names the mapped chunk before it, or no chunk if a cut
// has mapped it. It tells the replay that the samples before the marker are in mapped chunks. After a crash that may
// be wrong, and then the replay drops samples that are nowhere else:
//
//   - A marker that names no chunk is always believed. It is never needed: once the cut is done, the samples before
//     it are no longer in the WBL.
//   - A marker that names a chunk is believed if the newest chunk on disk is as new as that one. The next process
//     maps newer chunks, and from then on the marker is believed although its own chunk was lost.
//
// So, before the WBL is opened, two kinds of markers are taken out of it: markers of no chunk that come after samples
// of their series (a cut that was not done leaves them behind), and markers of chunks that are not on disk. Some
// samples are then in the head twice, which reads and the next cut take for one.

// correctMarkers does so in tenant directory dir.
//
//  1. the WBL is copied to wbl.fixed.tmp, without the wrong markers
//  2. wbl.fixed.tmp becomes wbl.fixed: the copy is whole
//  3. the WBL is removed
//  4. wbl.fixed becomes the WBL
func correctMarkers(log *slog.Logger, dir string, compress compression.Type) error {
	wbl := filepath.Join(dir, wlog.WblDirName)
	fixed := wbl + ".fixed"
	tmp := fixed + ".tmp"
	if err := tenantdir.RemoveLog(tmp); err != nil {
		return err
	}
	if _, err := os.Stat(fixed); errors.Is(err, fs.ErrNotExist) {
		wrong, err := wrongMarkers(dir)
		if err != nil || len(wrong) == 0 {
			return err
		}
		log.Warn("the process died with out-of-order chunks in memory, they are restored from the log", "chunks", len(wrong))
		if err := copyWithoutMarkers(wbl, tmp, wrong, compress); err != nil {
			return err
		}
		if err := fileutil.Rename(tmp, fixed); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := tenantdir.RemoveLog(wbl); err != nil {
		return err
	}
	return fileutil.Rename(fixed, wbl)
}

// chunkSet is a set of mapped chunks; 0 is no chunk.
type chunkSet map[chunks.ChunkDiskMapperRef]struct{}

// wrongMarkers returns the chunks whose markers in the WBL of tenant directory dir must not be believed.
func wrongMarkers(dir string) (chunkSet, error) {
	wrong, err := namedByMarkers(filepath.Join(dir, wlog.WblDirName))
	_, noChunk := wrong[0]
	delete(wrong, 0)
	if err == nil && len(wrong) > 0 {
		err = removeMapped(filepath.Join(dir, "chunks_head"), wrong)
	}
	if noChunk {
		wrong[0] = struct{}{}
	}
	return wrong, err
}

// removeMapped takes the chunks that are in the mapped files in dir out of set.
func removeMapped(dir string, set chunkSet) (err error) {
	var found []chunks.ChunkDiskMapperRef
	damage, err := eachMapped(dir, func(_ chunks.HeadSeriesRef, chunk chunks.ChunkDiskMapperRef) {
		if _, ok := set[chunk]; ok {
			found = append(found, chunk)
		}
	})
	intact := math.MaxInt // the TSDB will delete the files from this one on
	if damage != nil {
		intact = damage.FileIndex
	}
	for _, ref := range found {
		if file, _ := ref.Unpack(); file < intact {
			delete(set, ref)
		}
	}
	return err
}

// eachMapped calls f for each chunk in the mapped files in dir, with its series, up to the first damage.
func eachMapped(
	dir string, f func(series chunks.HeadSeriesRef, chunk chunks.ChunkDiskMapperRef),
) (damage *chunks.CorruptionErr, err error) {
	mapper, err := chunks.NewChunkDiskMapper(nil, dir, chunkenc.NewPool(), chunks.DefaultWriteBufferSize, 0)
	if err != nil {
		return nil, err
	}
	err = mapper.IterateAllChunks(func(
		series chunks.HeadSeriesRef, chunk chunks.ChunkDiskMapperRef, _, _ int64, _ uint16, _ chunkenc.Encoding, _ bool,
	) error {
		f(series, chunk)
		return nil
	})
	if errors.As(err, &damage) {
		err = nil
	}
	return damage, errors.Join(err, mapper.Close())
}

// namedByMarkers returns all chunks that markers of the WBL in dir name, and 0 if a marker of no chunk comes after
// samples of its series.
func namedByMarkers(dir string) (chunkSet, error) {
	dec := record.NewDecoder(nil, silent)
	named, sampled := chunkSet{}, map[chunks.HeadSeriesRef]struct{}{}
	err := eachWhole(dir, func(rec []byte) error {
		if dec.Type(rec) != record.MmapMarkers {
			return eachSampled(&dec, rec, func(ref chunks.HeadSeriesRef) { sampled[ref] = struct{}{} })
		}
		markers, err := dec.MmapMarkers(rec, nil)
		for _, m := range markers {
			if _, ok := sampled[m.Ref]; ok || m.MmapRef != 0 {
				named[m.MmapRef] = struct{}{}
			}
		}
		return err
	})
	return named, err
}

// copyWithoutMarkers copies the WBL in from to the directory to, without the markers of the chunks in wrong.
func copyWithoutMarkers(from, to string, wrong chunkSet, compress compression.Type) (err error) {
	out, err := wlog.New(silent, nil, to, compress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	var enc record.Encoder
	dec := record.NewDecoder(nil, silent)
	return eachWhole(from, func(rec []byte) error {
		if dec.Type(rec) != record.MmapMarkers {
			return out.Log(rec)
		}
		markers, err := dec.MmapMarkers(rec, nil)
		if err != nil {
			return err
		}
		kept := markers[:0]
		for _, m := range markers {
			if _, ok := wrong[m.MmapRef]; !ok {
				kept = append(kept, m)
			}
		}
		if len(kept) == 0 {
			return nil
		}
		return out.Log(enc.MmapMarkers(kept, nil))
	})
}
