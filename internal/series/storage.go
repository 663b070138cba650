package series

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Reading says how the samples of a selection are read.
type Reading struct {
	// Pick says which aggregate of downsampled chunks is read. PickCounter also says that the samples are a counter's.
	Pick Pick
	// Counter says that the samples are a counter's, raw samples included.
	Counter bool
	// MinTime and MaxTime bound the samples, in ms, both inclusive.
	MinTime, MaxTime int64
	// Resolution is the coarsest resolution in ms that was asked for; 0 = raw.
	Resolution int64
	// Lookback is the time in ms for which a raw sample is valid. It is set where the reader looks back further than that
	// (Widened): iterators then put a stale marker where a sample expires. 0 = no markers.
	Lookback int64
	// Stop, when set, makes reads fail once its context has ended.
	Stop *StopFlag
}

// Iterator returns an iterator over chunks, which must be in (MinTime, MaxTime) order. reuse may be an iterator that r
// returned before; it is not valid afterwards.
func (r *Reading) Iterator(chunks []Chunk, reuse chunkenc.Iterator) chunkenc.Iterator {
	return r.expiring(reuse, func(reuse chunkenc.Iterator) rangeIterator { return r.samples(chunks, reuse) })
}

// expiring returns the iterator that samples makes, with stale markers if Lookback is set. It passes samples an
// iterator whose memory samples may use again.
func (r *Reading) expiring(
	reuse chunkenc.Iterator, samples func(reuse chunkenc.Iterator) rangeIterator,
) chunkenc.Iterator {
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

// samples returns the iterator over chunks without the stale markers of Lookback.
func (r *Reading) samples(chunks []Chunk, reuse chunkenc.Iterator) rangeIterator {
	if isDownsampled(chunks) {
		return newFinest(chunks, r)
	}
	return r.plain(chunks, reuse)
}

// plain returns the iterator over chunks of one resolution.
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

// Entry makes a Series a storage.Series of Prometheus. Its iterators may be reused for other entries.
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

// Storage makes set a storage.SeriesSet of Prometheus. Its series stay valid until set is closed. The caller must close
// set itself, because a SeriesSet has no Close.
func Storage(set Set, r *Reading) storage.SeriesSet {
	return &storageSet{set: set, reading: r, warnings: annotations.Annotations{}}
}

// entriesPerSlab is how many entries are allocated at once.
const entriesPerSlab = 64

type storageSet struct {
	set      Set
	reading  *Reading
	warnings annotations.Annotations // always the same map: callers may get it before the end and read it after
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

// warning is a text as an error, which annotations need.
type warning string

func (w warning) Error() string { return string(w) }
