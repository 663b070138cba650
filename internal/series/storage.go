package series

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Entry is a Series as Prometheus's storage.Series. Its iterators may be reused for other entries.
type Entry struct {
	Series Series
	Pick   Pick
}

// Labels implements storage.Series.
func (e *Entry) Labels() labels.Labels { return e.Series.Labels }

// Iterator implements storage.Series.
func (e *Entry) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	if it, ok := reuse.(*Iterator); ok {
		it.Reset(e.Series.Chunks, e.Pick)
		return it
	}
	return NewIterator(e.Series.Chunks, e.Pick)
}

// Storage is set as Prometheus's storage.SeriesSet. Its series stay valid until set's Close, which remains the caller's.
func Storage(set Set, pick Pick) storage.SeriesSet { return &storageSet{set: set, pick: pick} }

type storageSet struct {
	set  Set
	pick Pick
}

func (s *storageSet) Next() bool         { return s.set.Next() }
func (s *storageSet) At() storage.Series { return &Entry{s.set.At(), s.pick} }
func (s *storageSet) Err() error         { return s.set.Err() }

func (s *storageSet) Warnings() annotations.Annotations {
	var all annotations.Annotations
	for _, w := range s.set.Warnings() {
		all.Add(warning(w))
	}
	return all
}

// warning is a text as an annotation.
type warning string

func (w warning) Error() string { return string(w) }
