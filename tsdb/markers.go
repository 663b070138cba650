package tsdb

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// A cut of out-of-order samples maps every series' chunk at hand, which goes to a buffer of some MiB before it goes to a
// file. The next sample of the series begins a chunk, for which the WBL gets a marker that names no mapped chunk and says
// to the replay that all samples before it are mapped. If the process dies before the cut is done and the buffer was
// written, that is not so, and the replay drops samples that nobody else has.
//
// Such a marker is never needed: once a cut is done the samples before it are no longer in the WBL. So where one comes
// after samples of its series, which only a cut that was not done leaves behind, the WBL is written again without them.
// What was mapped then is in the head twice, which reads and the next cut make one.

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
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if _, err := os.Stat(fixed); errors.Is(err, fs.ErrNotExist) {
		early, err := hasEarlyMarkers(wbl)
		if err != nil || !early {
			return err
		}
		log.Warn("a cut of out-of-order samples was not done, they are restored", "dir", wbl)
		if err := copyWithoutMarkers(wbl, tmp, compress); err != nil {
			return err
		}
		if err := fileutil.Rename(tmp, fixed); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := os.RemoveAll(wbl); err != nil {
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

// hasEarlyMarkers reports whether the WBL in dir has markers of no chunk after samples of their series.
func hasEarlyMarkers(dir string) (early bool, err error) {
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	seen := map[chunks.HeadSeriesRef]struct{}{}
	err = eachRecord(dir, func(rec []byte) (err error) {
		switch dec.Type(rec) {
		case record.MmapMarkers:
			var markers []record.RefMmapMarker
			markers, err = dec.MmapMarkers(rec, nil)
			for _, m := range markers {
				_, had := seen[m.Ref]
				early = early || had && m.MmapRef == 0
			}
		case record.Samples, record.SamplesV2:
			var samples []record.RefSample
			samples, err = dec.Samples(rec, nil)
			for i := range samples {
				seen[samples[i].Ref] = struct{}{}
			}
		case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
			var samples []record.RefHistogramSample
			samples, err = dec.HistogramSamples(rec, nil)
			for i := range samples {
				seen[samples[i].Ref] = struct{}{}
			}
		case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
			var samples []record.RefFloatHistogramSample
			samples, err = dec.FloatHistogramSamples(rec, nil)
			for i := range samples {
				seen[samples[i].Ref] = struct{}{}
			}
		}
		return err
	})
	return early, err
}

// copyWithoutMarkers copies the WBL in from to the directory to, without the markers of no chunk.
func copyWithoutMarkers(from, to string, compress compression.Type) (err error) {
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
			if m.MmapRef != 0 {
				kept = append(kept, m)
			}
		}
		if len(kept) == 0 {
			return nil
		}
		return out.Log(enc.MmapMarkers(kept, nil))
	})
}
