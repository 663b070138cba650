package repair

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// eachRecord calls f for each record of segments, while f returns true. The error is the reader's (damage), or that
// of f. A log that does not exist has no records.
func eachRecord(segments wlog.SegmentRange, f func(rec []byte) (more bool, err error)) error {
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

// eachWhole calls f for each record of the log in dir, up to its first damage. The TSDB deals with that when it opens.
func eachWhole(dir string, f func(rec []byte) error) error {
	var failed error
	err := eachRecord(wlog.SegmentRange{Dir: dir, First: -1, Last: -1}, func(rec []byte) (bool, error) {
		failed = f(rec)
		return failed == nil, nil
	})
	var damage *wlog.CorruptionErr
	if failed == nil && err != nil && !errors.As(err, &damage) {
		return err
	}
	return failed
}

// eachSampled calls f with the reference of the series of each sample in rec, if it is a record of samples.
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

// silent is for the library's readers and writers of logs: what is wrong with a log is reported by this package.
var silent = slog.New(slog.DiscardHandler)
