package series

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Entry is a Series as Prometheus's storage.Series. Its iterators may be reused for other entries.
type Entry struct {
	Series Series
	Pick   Pick
	// MinTime and MaxTime bound the samples, ms inclusive.
	MinTime, MaxTime int64
}

// Labels implements storage.Series.
func (e *Entry) Labels() labels.Labels { return e.Series.Labels }

// Iterator implements storage.Series.
func (e *Entry) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	if e.isTotals() {
		return newCounterIterator(e.Series.Chunks, e.MinTime, e.MaxTime)
	}
	it, ok := reuse.(*Iterator)
	if !ok {
		it = new(Iterator)
	}
	it.Reset(e.Series.Chunks, e.Pick)
	it.Bound(e.MinTime, e.MaxTime)
	return it
}

// isTotals reports whether the samples are totals of downsampled counters.
func (e *Entry) isTotals() bool {
	return e.Pick == PickCounter && slices.ContainsFunc(e.Series.Chunks, func(c Chunk) bool { return c.Aggr != nil })
}

// Storage is set as Prometheus's storage.SeriesSet, with samples within [mint, maxt] (ms) only. Its series stay valid until
// set's Close, which remains the caller's.
func Storage(set Set, pick Pick, mint, maxt int64) storage.SeriesSet {
	return &storageSet{set: set, pick: pick, mint: mint, maxt: maxt, warnings: annotations.Annotations{}}
}

// entriesPerSlab entries are allocated at once.
const entriesPerSlab = 64

type storageSet struct {
	set        Set
	pick       Pick
	mint, maxt int64
	warnings   annotations.Annotations // one map for the whole life: callers may ask for it before the end and look later
	slab       []Entry
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
	*e = Entry{s.set.At(), s.pick, s.mint, s.maxt}
	return e
}

func (s *storageSet) Err() error                        { return s.set.Err() }
func (s *storageSet) Warnings() annotations.Annotations { return s.warnings }

// warning is a text as an annotation.
type warning string

func (w warning) Error() string { return string(w) }
