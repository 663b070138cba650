package query

import (
	"bytes"
	"io"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
)

// maxReadBody bounds the body of a remote read in bytes, compressed and decompressed. The body has only matchers and
// times.
const maxReadBody = 1 << 20

// boundRead reads the body of a remote read, checks that its matchers are within bounds, and puts the body back into r.
func boundRead(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReadBody))
	if err != nil {
		return errs.E(errs.TooLarge, "remote read: body of at most %d bytes: %w", maxReadBody, err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if n, err := snappy.DecodedLen(body); err != nil || n > maxReadBody {
		return errs.E(errs.TooLarge, "remote read: decompressed body of at most %d bytes", maxReadBody)
	}
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		return errs.E(errs.Invalid, "remote read: %w", err)
	}
	var req prompb.ReadRequest
	if err := req.Unmarshal(plain); err != nil {
		return errs.E(errs.Invalid, "remote read: %w", err)
	}
	var made expr.Matchers
	for _, q := range req.Queries {
		for _, m := range q.GetMatchers() {
			if _, err := made.New(matchType(m.Type), m.Name, m.Value); err != nil {
				return errs.E(errs.KindOf(err), "remote read: matcher on label %q: %w", m.Name, err)
			}
		}
	}
	return nil
}

// matchType is the library's type of a matcher. An unknown type counts as a plain comparison here, and the library
// refuses it later.
func matchType(t prompb.LabelMatcher_Type) labels.MatchType {
	switch t {
	case prompb.LabelMatcher_RE:
		return labels.MatchRegexp
	case prompb.LabelMatcher_NRE:
		return labels.MatchNotRegexp
	}
	return labels.MatchEqual
}

// What a remote read that is not streamed takes in memory, in bytes. It decodes, encodes and compresses all samples
// before it sends its answer.
const (
	readSampleBytes    = 64
	readHistogramBytes = 1024 // without its buckets
	readBucketBytes    = 64
	readSeriesBytes    = 512
	readLabelCopies    = 8
	readStep           = 256 << 10 // taken from the lease at a time
)

// countedSet takes memory for all series and samples that it yields. It is for one goroutine.
type countedSet struct {
	storage.SeriesSet
	p     *params
	spare int64 // bytes that are taken and not used yet
	err   error
}

func (s *countedSet) hold(n int64) bool {
	if s.spare -= n; s.spare >= 0 || s.err != nil {
		return s.err == nil
	}
	more := -s.spare + readStep
	s.spare += more
	s.err = s.p.answer.Grow(more)
	s.p.fail(s.err)
	return s.err == nil
}

// Next implements storage.SeriesSet.
func (s *countedSet) Next() bool {
	return s.err == nil && s.SeriesSet.Next() &&
		s.hold(readSeriesBytes+readLabelCopies*int64(s.SeriesSet.At().Labels().ByteSize()))
}

// At implements storage.SeriesSet.
func (s *countedSet) At() storage.Series { return countedSeries{s.SeriesSet.At(), s} }

// Err implements storage.SeriesSet.
func (s *countedSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

type countedSeries struct {
	storage.Series
	set *countedSet
}

// Iterator implements storage.Series.
func (s countedSeries) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	if c, ok := reuse.(*countedIterator); ok {
		reuse = c.Iterator
	}
	return &countedIterator{s.Series.Iterator(reuse), s.set}
}

type countedIterator struct {
	chunkenc.Iterator
	set *countedSet
}

// Next implements chunkenc.Iterator.
func (i *countedIterator) Next() chunkenc.ValueType {
	if !i.set.hold(readSampleBytes) {
		return chunkenc.ValNone
	}
	return i.Iterator.Next()
}

// AtHistogram implements chunkenc.Iterator.
func (i *countedIterator) AtHistogram(reuse *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := i.Iterator.AtHistogram(reuse)
	i.set.hold(readHistogramBytes +
		readBucketBytes*int64(len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues)))
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (i *countedIterator) AtFloatHistogram(reuse *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := i.Iterator.AtFloatHistogram(reuse)
	i.set.hold(readHistogramBytes +
		readBucketBytes*int64(len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues)))
	return t, h
}

// Err implements chunkenc.Iterator.
func (i *countedIterator) Err() error {
	if i.set.err != nil {
		return i.set.err
	}
	return i.Iterator.Err()
}
