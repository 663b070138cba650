package series

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// DedupOptions say how Dedup merges.
type DedupOptions struct {
	// ReplicaLabels are the labels in which the HA replicas of a series differ. They are removed.
	ReplicaLabels []string
	// Budget bounds the memory in bytes for sorting series without these labels (Relabel); 0 = no bound.
	Budget int64
	// Reading says how the samples are read, and whether they are a counter's. A counter does not go back where one HA
	// replica takes the place of another.
	Reading *Reading
}

// Dedup merges series of set that differ only in replica labels. The samples of the merged series come from one HA
// replica as long as that has no gap (dedupIterator, docs/design/013-ha-dedup.md). HA replicas scrape at different
// times. Replicas of a ring have the same samples; Merge unites those. The caller must close set itself.
func Dedup(set Set, opts DedupOptions) storage.SeriesSet {
	sorted := Relabel(set, labels.EmptyLabels(), opts.ReplicaLabels, opts.Budget)
	if r, ok := sorted.(*relabelSet); ok {
		r.keepEqual = true
	}
	return &dedupSet{set: sorted, opts: opts, warnings: annotations.Annotations{}}
}

// dedupSet reads one series ahead, to find where the HA replicas of a series end.
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

// end takes over the warnings, which are complete now.
func (d *dedupSet) end() {
	for _, w := range d.set.Warnings() {
		d.warnings.Add(warning(w))
	}
}

func (d *dedupSet) At() storage.Series                { return d.at }
func (d *dedupSet) Err() error                        { return d.set.Err() }
func (d *dedupSet) Warnings() annotations.Annotations { return d.warnings }

// dedupEntry is a series with the chunks of several HA replicas.
type dedupEntry struct {
	labels   labels.Labels
	replicas [][]Chunk
	reading  *Reading
}

func (e *dedupEntry) Labels() labels.Labels { return e.labels }

// Iterator implements storage.Series.
func (e *dedupEntry) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	return e.reading.expiring(reuse, func(reuse chunkenc.Iterator) rangeIterator {
		it, ok := reuse.(*dedupIterator)
		if !ok {
			it = new(dedupIterator)
		}
		it.reset(e.replicas, e.reading)
		return it
	})
}

// NewDedupIterator returns an iterator over the samples of one series of which there are several HA replicas, as Dedup
// merges them. The chunks of each replica are in (MinTime, MaxTime) order.
func NewDedupIterator(replicas [][]Chunk, r *Reading) chunkenc.Iterator {
	it := new(dedupIterator)
	it.reset(replicas, r)
	return it
}
