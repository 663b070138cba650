package tsdb

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

// Mapped out-of-order chunks go to a buffer before they go to a file. The WBL has a marker where a series
// begins a new chunk: it names the mapped one before, or none if a cut has mapped it, and says to the replay that the
// samples before it are in mapped chunks. After a crash that may not be so, and the replay drops samples nobody else has:
//
//   - A marker that names no chunk is always believed. It is never needed: once a cut is done, the samples before it are
//     no longer in the WBL.
//   - A marker that names a chunk is not believed while the newest chunk on disk is an older one. But the next process
//     maps newer ones, and the start after that believes it.
//
// So where a process has died, markers of no chunk that come after samples of their series, which only a cut that was
// not done leaves behind, and those of chunks that are not on disk, are taken out of the WBL before it is opened. A sample
// that is then in the head twice is one to reads and to the next cut.

// fixMarkers does so in tenant directory dir. It must come before each opening.
//
//  1. what is good of the WBL is copied to wbl.fixed.tmp
//  2. which becomes wbl.fixed: the copy is whole
//  3. the WBL is removed
//  4. the copy becomes the WBL
func fixMarkers(log *slog.Logger, dir string, compress compression.Type) error {
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

// eachRecord reads the log in dir up to its first damage, which the TSDB deals with when it opens.
func eachRecord(dir string, f func(rec []byte) error) error {
	segments, err := wlog.NewSegmentsReader(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer segments.Close()
	r := wlog.NewReader(segments)
	for r.Next() {
		if err := f(r.Record()); err != nil {
			return err
		}
	}
	return nil
}

// chunkSet is a set of mapped chunks; 0 is no chunk.
type chunkSet map[chunks.ChunkDiskMapperRef]struct{}

// wrongMarkers is what markers of tenant directory dir's WBL name that must not be believed.
func wrongMarkers(dir string) (chunkSet, error) {
	wrong, err := namedByMarkers(filepath.Join(dir, wlog.WblDirName))
	_, early := wrong[0]
	delete(wrong, 0)
	if err == nil && len(wrong) > 0 {
		err = removeMapped(filepath.Join(dir, "chunks_head"), wrong)
	}
	if early {
		wrong[0] = struct{}{}
	}
	return wrong, err
}

// removeMapped takes the chunks that are in the mapped files in dir out of set.
func removeMapped(dir string, set chunkSet) (err error) {
	mapper, err := chunks.NewChunkDiskMapper(nil, dir, chunkenc.NewPool(), chunks.DefaultWriteBufferSize, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mapper.Close()) }()
	var found []chunks.ChunkDiskMapperRef
	err = mapper.IterateAllChunks(func(_ chunks.HeadSeriesRef, ref chunks.ChunkDiskMapperRef, _, _ int64, _ uint16, _ chunkenc.Encoding, _ bool) error {
		if _, ok := set[ref]; ok {
			found = append(found, ref)
		}
		return nil
	})
	intact := math.MaxInt // files from this one on will be deleted by the TSDB
	var damage *chunks.CorruptionErr
	if errors.As(err, &damage) {
		intact, err = damage.FileIndex, nil
	}
	for _, ref := range found {
		if file, _ := ref.Unpack(); file < intact {
			delete(set, ref)
		}
	}
	return err
}

// namedByMarkers is all the chunks that markers of the WBL in dir name, and 0 if there is a marker of no chunk after
// samples of its series.
func namedByMarkers(dir string) (chunkSet, error) {
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	named, sampled := chunkSet{}, map[chunks.HeadSeriesRef]struct{}{}
	err := eachRecord(dir, func(rec []byte) error {
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

// eachSampled calls f for each sample in rec, if it is a record of samples, with the reference of its series.
func eachSampled(dec *record.Decoder, rec []byte, f func(chunks.HeadSeriesRef)) error {
	switch dec.Type(rec) {
	case record.Samples, record.SamplesV2:
		samples, err := dec.Samples(rec, nil)
		for i := range samples {
			f(samples[i].Ref)
		}
		return err
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		samples, err := dec.HistogramSamples(rec, nil)
		for i := range samples {
			f(samples[i].Ref)
		}
		return err
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		samples, err := dec.FloatHistogramSamples(rec, nil)
		for i := range samples {
			f(samples[i].Ref)
		}
		return err
	}
	return nil
}

// copyWithoutMarkers copies the WBL in from to the directory to, without the markers of what is wrong.
func copyWithoutMarkers(from, to string, wrong chunkSet, compress compression.Type) (err error) {
	out, err := wlog.New(slog.New(slog.DiscardHandler), nil, to, compress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	var enc record.Encoder
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	return eachRecord(from, func(rec []byte) error {
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
