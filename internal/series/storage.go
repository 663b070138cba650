package series

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Reading says how the samples of a selection are read.
type Reading struct {
	// Pick is what is read of downsampled chunks. PickCounter also says that the samples are a counter's.
	Pick Pick
	// Counter says of raw samples too that they are a counter's.
	Counter bool
	// MinTime and MaxTime bound the samples, ms inclusive.
	MinTime, MaxTime int64
	// Resolution is the coarsest resolution that was asked for, ms; 0 = raw.
	Resolution int64
	// Lookback, when positive, is for how long (ms) a raw sample stands for an instant, where the reader looks back
	// further than that (Widened): stale markers then end what a sample is good for. 0 = the reader knows by itself.
	Lookback int64
	// StopFlag, when set, ends reads before their end.
	Stop *StopFlag
}

// Iterator returns an iterator over chunks, which must be in (MinTime, MaxTime) order. It may be one that r returned
// before.
func (r *Reading) Iterator(chunks []Chunk, reuse chunkenc.Iterator) chunkenc.Iterator {
	return r.marked(reuse, func(reuse chunkenc.Iterator) rangeIterator { return r.samples(chunks, reuse) })
}

// marked is what samples makes, with the markers of Lookback if there are any. samples is handed what it may use again.
func (r *Reading) marked(reuse chunkenc.Iterator, samples func(reuse chunkenc.Iterator) rangeIterator) chunkenc.Iterator {
	if r.Lookback <= 0 {
		return samples(reuse)
	}
	s, ok := reuse.(*expiryIterator)
	if !ok {
		s = new(expiryIterator)
	}
	s.reset(samples(s.in), r.Lookback)
	return s
}

// samples is the iterator below the markers of Lookback.
func (r *Reading) samples(chunks []Chunk, reuse chunkenc.Iterator) rangeIterator {
	if isDownsampled(chunks) {
		return newFinest(chunks, r)
	}
	return r.plain(chunks, reuse)
}

// plain is the iterator over chunks of one resolution.
func (r *Reading) plain(chunks []Chunk, reuse chunkenc.Iterator) rangeIterator {
	if r.Pick == PickCount {
		it := new(sampleCountIterator)
		it.Reset(chunks, r.Pick)
		it.Bound(r.MinTime, r.MaxTime)
		it.stop = r.Stop
		return it
	}
	it, ok := reuse.(*Iterator)
	if !ok {
		it = new(Iterator)
	}
	it.Reset(chunks, r.Pick)
	it.Bound(r.MinTime, r.MaxTime)
	it.stop = r.Stop
	return it
}

// Entry is a Series as Prometheus's storage.Series. Its iterators may be reused for other entries.
type Entry struct {
	Series  Series
	Reading *Reading
}

// Labels implements storage.Series.
func (e *Entry) Labels() labels.Labels { return e.Series.Labels }

// Iterator implements storage.Series.
func (e *Entry) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	return e.Reading.Iterator(e.Series.Chunks, reuse)
}

// Storage is set as Prometheus's storage.SeriesSet. Its series stay valid until set's Close, which remains the
// caller's.
func Storage(set Set, r *Reading) storage.SeriesSet {
	return &storageSet{set: set, reading: r, warnings: annotations.Annotations{}}
}

// entriesPerSlab entries are allocated at once.
const entriesPerSlab = 64

type storageSet struct {
	set      Set
	reading  *Reading
	warnings annotations.Annotations // one map for the whole life: callers may ask for it before the end and look later
	slab     []Entry
}

func (s *storageSet) Next() bool {
	if s.set.Next() {
		return true
	}
	for _, w := range s.set.Warnings() {
		s.warnings.Add(warning(w))
	}
	return false
}

func (s *storageSet) At() storage.Series {
	if len(s.slab) == 0 {
		s.slab = make([]Entry, entriesPerSlab)
	}
	e := &s.slab[0]
	s.slab = s.slab[1:]
	*e = Entry{s.set.At(), s.reading}
	return e
}

func (s *storageSet) Err() error                        { return s.set.Err() }
func (s *storageSet) Warnings() annotations.Annotations { return s.warnings }

// warning is a text as an annotation.
type warning string

func (w warning) Error() string { return string(w) }
