package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
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
	// Pick says what is read of downsampled chunks.
	Pick Pick
	// MinTime and MaxTime bound the samples, ms inclusive.
	MinTime, MaxTime int64
}

// Dedup is set with the series of HA pairs merged: series that differ only in replica labels become one, whose samples
// come from one copy as long as that has no gap (dedupIterator). It is for copies scraped at different times; copies of
// the same samples are united by Merge. set's Close remains the caller's.
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
		d.at = &Entry{first, d.opts.Pick, d.opts.MinTime, d.opts.MaxTime}
	} else {
		d.at = &dedupEntry{first.Labels, replicas, &d.opts}
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
	opts     *DedupOptions
}

func (e *dedupEntry) Labels() labels.Labels { return e.labels }

func (e *dedupEntry) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*dedupIterator)
	if !ok {
		it = new(dedupIterator)
	}
	replicas := it.replicas[:cap(it.replicas)]
	*it = dedupIterator{t: math.MinInt64, penalty: initialPenalty}
	for i, chunks := range e.replicas {
		var old chunkenc.Iterator
		if i < len(replicas) {
			old = replicas[i].it
		}
		entry := Entry{Series{Chunks: chunks}, e.opts.Pick, e.opts.MinTime, e.opts.MaxTime}
		it.replicas = append(it.replicas, dedupReplica{it: entry.Iterator(old)})
		it.totals = it.totals || entry.isTotals()
	}
	return it
}

// initialPenalty is the penalty in ms before the distance of samples is known.
const initialPenalty = 5_000

// dedupIterator reads one replica, and changes to another where that one has a gap: the next sample is the earliest of
// the current replica's next one and of the others' first ones that are more than the penalty after the last sample. The
// penalty is twice the distance of the last two samples, so that a change never makes samples denser, and a jitter of the
// scrapes changes nothing. It reads in order from the start, so that where it changes does not depend on seeks.
//
// A counter scraped later is not smaller, so a change needs no correction, and a reset in a gap stays visible. Only totals
// of downsampled counters have bases of their own: after a change they go on from the last value at least.
type dedupIterator struct {
	replicas []dedupReplica
	cur      int
	started  bool
	totals   bool
	t        int64
	typ      chunkenc.ValueType
	penalty  int64
	broken   bool // cur changed with this sample
}

type dedupReplica struct {
	it    chunkenc.Iterator
	typ   chunkenc.ValueType
	ended bool
	lift  float64 // added to totals
}

// seek moves r to its first sample at or after t.
func (r *dedupReplica) seek(t int64) bool {
	if !r.ended && (r.typ == chunkenc.ValNone || r.it.AtT() < t) {
		r.typ = r.it.Seek(t)
		r.ended = r.typ == chunkenc.ValNone
	}
	return !r.ended
}

// Next implements chunkenc.Iterator.
func (d *dedupIterator) Next() chunkenc.ValueType {
	lastT, lastV, last := d.t, d.lastTotal(), d.cur
	best := -1
	for i := range d.replicas {
		r := &d.replicas[i]
		from := int64(math.MinInt64)
		if d.started {
			if from = lastT + 1; i != last {
				from += d.penalty
			}
		}
		if !r.seek(from) {
			continue
		}
		if t := r.it.AtT(); best < 0 || t < d.t || t == d.t && i == last {
			best, d.t = i, t
		}
	}
	if best < 0 {
		d.t, d.typ = lastT, chunkenc.ValNone
		return d.typ
	}
	if d.started {
		d.penalty = 2 * (d.t - lastT)
	}
	d.broken = d.started && best != last
	d.cur, d.typ, d.started = best, d.replicas[best].typ, true
	if d.broken && d.totals && d.typ == chunkenc.ValFloat {
		r := &d.replicas[best]
		if _, v := r.it.At(); v+r.lift < lastV {
			r.lift = lastV - v
		}
	}
	return d.typ
}

func (d *dedupIterator) lastTotal() float64 {
	if !d.totals || d.typ != chunkenc.ValFloat {
		return math.Inf(-1)
	}
	_, v := d.At()
	return v
}

// Seek implements chunkenc.Iterator.
func (d *dedupIterator) Seek(t int64) chunkenc.ValueType {
	if d.typ != chunkenc.ValNone && d.t >= t {
		return d.typ
	}
	for d.Next() != chunkenc.ValNone {
		if d.t >= t {
			return d.typ
		}
	}
	return chunkenc.ValNone
}

// At implements chunkenc.Iterator.
func (d *dedupIterator) At() (int64, float64) {
	r := &d.replicas[d.cur]
	t, v := r.it.At()
	if r.lift == 0 { // adding 0 would make a plain NaN of a stale marker
		return t, v
	}
	return t, v + r.lift
}

// AtHistogram implements chunkenc.Iterator.
func (d *dedupIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := d.replicas[d.cur].it.AtHistogram(h)
	if d.broken {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (d *dedupIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := d.replicas[d.cur].it.AtFloatHistogram(h)
	if d.broken {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// AtT implements chunkenc.Iterator.
func (d *dedupIterator) AtT() int64 { return d.t }

// AtST implements chunkenc.Iterator.
func (d *dedupIterator) AtST() int64 { return d.replicas[d.cur].it.AtST() }

// Err implements chunkenc.Iterator.
func (d *dedupIterator) Err() error {
	for i := range d.replicas {
		if err := d.replicas[i].it.Err(); err != nil {
			return err
		}
	}
	return nil
}
