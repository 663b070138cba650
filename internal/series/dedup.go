package series

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// DedupOptions say how Dedup merges.
type DedupOptions struct {
	// ReplicaLabels are the labels in which copies of a series differ. They are removed.
	ReplicaLabels []string
	// Budget bounds in bytes what is held to sort series without these labels; 0 = no bound. See Relabel.
	Budget int64
	// Reading is how the samples are read. A counter never goes back where one copy takes the place of another.
	Reading *Reading
}

// Dedup is set with the series of HA pairs merged: series that differ only in replica labels become one, whose samples
// come from one copy as long as that has no gap (dedupIterator, docs/design/013-ha-dedup.md). It is for copies scraped
// at different times; copies of the same samples are united by Merge. set's Close remains the caller's.
func Dedup(set Set, opts DedupOptions) storage.SeriesSet {
	sorted := Relabel(set, labels.EmptyLabels(), opts.ReplicaLabels, opts.Budget)
	if r, ok := sorted.(*relabelSet); ok {
		r.keepEqual = true
	}
	return &dedupSet{set: sorted, opts: opts, warnings: annotations.Annotations{}}
}

type dedupSet struct {
	set      Set
	opts     DedupOptions
	ahead    Series
	pending  bool // ahead is set
	at       storage.Series
	warnings annotations.Annotations
}

func (d *dedupSet) Next() bool {
	if !d.pending && !d.set.Next() {
		d.end()
		return false
	}
	if !d.pending {
		d.ahead = d.set.At()
	}
	first := d.ahead
	replicas := [][]Chunk{first.Chunks}
	for d.pending = d.set.Next(); d.pending; d.pending = d.set.Next() {
		if d.ahead = d.set.At(); !labels.Equal(d.ahead.Labels, first.Labels) {
			break
		}
		replicas = append(replicas, d.ahead.Chunks)
	}
	if len(replicas) == 1 {
		d.at = &Entry{first, d.opts.Reading}
	} else {
		d.at = &dedupEntry{first.Labels, replicas, d.opts.Reading}
	}
	return true
}

func (d *dedupSet) end() {
	for _, w := range d.set.Warnings() {
		d.warnings.Add(warning(w))
	}
}

func (d *dedupSet) At() storage.Series                { return d.at }
func (d *dedupSet) Err() error                        { return d.set.Err() }
func (d *dedupSet) Warnings() annotations.Annotations { return d.warnings }

type dedupEntry struct {
	labels   labels.Labels
	replicas [][]Chunk
	reading  *Reading
}

func (e *dedupEntry) Labels() labels.Labels { return e.labels }

// Iterator implements storage.Series.
func (e *dedupEntry) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	return e.reading.marked(reuse, func(reuse chunkenc.Iterator) rangeIterator {
		it, ok := reuse.(*dedupIterator)
		if !ok {
			it = new(dedupIterator)
		}
		it.reset(e.replicas, e.reading)
		return it
	})
}
