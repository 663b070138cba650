package wire

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Sep ends the tenant, each label name and each label value in canonical bytes. It never occurs in valid UTF-8.
const Sep = 0xff

// Key is a hash128 of a series' canonical bytes: tenant Sep (name Sep value Sep)*. Two series of one process are the
// same iff their keys are equal, whatever protocol they came by. Other processes have other keys for them
// (docs/design/001).
type Key struct{ Hi, Lo uint64 }

// Sample is a float sample. T and ST (start timestamp, 0 = unknown) are Unix milliseconds.
type Sample struct {
	T, ST int64
	V     float64
}

// Histogram is a native histogram sample; exactly one of H and FH is set. The pointed-to histogram is never pooled: a
// TSDB head may keep it.
type Histogram struct {
	T, ST int64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Exemplar is one exemplar of the series it stands under. Labels are canonical: (name Sep value Sep)*, sorted.
type Exemplar struct {
	T      int64
	V      float64
	Labels []byte
}

// Metadata is what a sender says of a metric family. Strings are copies and outlive the Batch.
type Metadata struct {
	Family, Help, Unit string
	// Type is a Prometheus metric type word: counter, gauge, histogram, gaugehistogram, summary, info, stateset, unknown.
	Type string
}

// Series is one series of a Batch with what the request says of it. Every slice belongs to the Batch.
type Series struct {
	labels []byte     // canonical, or (from is set) the bytes by which the sender of from named them
	from   *Batch     // the batch with which such bytes are read; nil = labels are canonical
	shared *oneShared // has the labels of a series that came by its number; nil for others
	size   int        // of the canonical labels

	Key        Key    // identity within this process: caches are keyed by it
	Hash       uint64 // placement key: xxhash64 of tenant Sep Labels, exactly Thanos's
	Samples    []Sample
	Histograms []Histogram
	Exemplars  []Exemplar
	// Hint, when not nil, is a word by which the store of the series finds it the next time. All batches that have the
	// series by its number in a stream, or by the same SeriesCache, share it. It is 0 at first, and means nothing to
	// others.
	Hint *atomic.Uint64
}

// Labels are the canonical label bytes, (name Sep value Sep)* sorted by name, without the tenant. LabelsOf builds
// labels from them. They are made anew at each call when the decoder knew the series and did not look at them, so call
// it for what is rare, and once. They belong to the Batch: do not change them, do not keep them. They are empty in one
// case, of which the chance is nil in practice (decodeRaw): such a series is invalid.
func (s *Series) Labels() []byte {
	switch {
	case s.shared != nil:
		return s.shared.canonical()
	case s.from != nil:
		return s.from.decodeRaw(nil, s.labels)
	}
	return s.labels
}

// appendLabels appends s.Labels().
func (s *Series) appendLabels(dst []byte) []byte {
	if s.shared == nil && s.from != nil {
		return s.from.decodeRaw(dst, s.labels)
	}
	return append(dst, s.Labels()...)
}

// appendSized appends the length of the labels, and the labels. Labels that cannot be read become none, which no frame
// may have: its reader refuses the frame, instead of taking what follows for something else.
func (s *Series) appendSized(dst []byte) []byte {
	at := len(dst)
	dst = binary.AppendUvarint(dst, uint64(s.size))
	from := len(dst)
	if dst = s.appendLabels(dst); len(dst)-from != s.size {
		dst = append(dst[:at], 0)
	}
	return dst
}

// LabelsSize is len(s.Labels()), without making them.
func (s *Series) LabelsSize() int { return s.size }

// KeepsLabels reports whether s holds labels of its own that it can drop once the store has them (KeptBy).
func (s *Series) KeepsLabels() bool { return s.shared != nil && s.shared.own.Load() != nil }

// KeptBy says that the store keeps ls, which are the labels of s, in memory for as long as it has the series.
func (s *Series) KeptBy(ls labels.Labels) {
	if s.KeepsLabels() {
		s.shared.kept.Store(&ls)
		s.shared.own.Store(nil)
	}
}

// Failure is a series of a request that was not stored, or not wholly.
//
// In the response of a store, kind OK says that all of the series is stored except some exemplars. That fails no
// request: such a series counts as stored, and its missing exemplars do not count as written.
type Failure struct {
	// Series is the index in Batch.Series. In Batch.Rejected it is -1.
	Series int
	Kind   errs.Kind
	// Reason is one line for people, with the series' labels.
	Reason string
	// What of the series was not stored.
	Samples, Histograms, Exemplars int
	// Whole is how many series were refused while the request was decoded and so are not in Batch.Series: in
	// Batch.Rejected 1, more where several are summed up, and 0 for a part of a series that is there. 0 elsewhere.
	Whole int
}

// Batch is one tenant's decoded write request. Whoever keeps it beyond the call that handed it over calls Retain, and
// Release when done. The last Release returns its buffers to a pool. Nothing changes a Batch after decoding.
type Batch struct {
	Tenant   tenant.ID
	Series   []Series
	Metadata []Metadata
	// Rejected lists what was refused while decoding: whole series (duplicate or empty label name, not UTF-8, no metric
	// name, ...), which are not in Series, and invalid histograms and exemplars of series that are. The rest of the
	// request stands. After the first thousand all others are summed up in one more.
	Rejected []Failure

	refs atomic.Int32
	pool func(*Batch)

	source  *Batch  // what b was rewritten from, retained; nil for a decoded one
	origins []int32 // of a rewritten batch, by series: Origin
	parts   int     // how many batches source was rewritten to

	scratch // buffers of the decoders
}

// DropStarts takes the start timestamps off all samples, before b is shared.
func (b *Batch) DropStarts() {
	if !b.starts {
		return
	}
	for i := range b.Series {
		for j := range b.Series[i].Samples {
			b.Series[i].Samples[j].ST = 0
		}
		for j := range b.Series[i].Histograms {
			b.Series[i].Histograms[j].ST = 0
		}
	}
	b.starts = false
}

// Named is how many series the request named: those of b, and those that were refused while it was decoded.
func (b *Batch) Named() int {
	n := len(b.Series)
	for i := range b.Rejected {
		n += b.Rejected[i].Whole
	}
	return n
}

// Retain keeps b alive until a matching Release.
func (b *Batch) Retain() { b.refs.Add(1) }

// Release gives up one reference. After the last one nothing of b may be touched.
func (b *Batch) Release() {
	if n := b.refs.Add(-1); n == 0 && b.pool != nil {
		b.pool(b)
	} else if n < 0 {
		panic("BUG: wire.Batch released more often than retained")
	}
}

// Shard is the part of a Batch that one member is asked to store: indexes into Series and Metadata. A shard of all
// series has the indexes of all; there is no shorthand.
type Shard struct {
	Batch    *Batch
	Series   []int32
	Metadata []int32
	// Copies says which copy of a series the member keeps; nil when that is not known.
	Copies Copies
}

// Copies tells the replicas of a series apart, for members that place again what they get.
type Copies interface {
	// CopyOf is the number of the copy of Batch.Series[i] that the shard's member keeps: its place, from 0, among the
	// series' replicas.
	CopyOf(i int32) int
}

// All is the shard of everything in b.
func All(b *Batch) Shard {
	s := Shard{Batch: b, Series: make([]int32, len(b.Series)), Metadata: make([]int32, len(b.Metadata))}
	for i := range s.Series {
		s.Series[i] = int32(i)
	}
	for i := range s.Metadata {
		s.Metadata[i] = int32(i)
	}
	return s
}

// LabelsOf builds the labels of canonical label bytes. The result shares no memory with canonical.
func LabelsOf(builder *labels.ScratchBuilder, canonical []byte) labels.Labels {
	builder.Reset()
	for len(canonical) > 0 {
		var name, value string
		name, value, canonical = NextLabel(canonical)
		builder.Add(name, value)
	}
	return builder.Labels()
}
