package wire

import (
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Translators of other protocols fill a pooled Batch with these, one sample at a time.

// metadataSize is what an entry of metadata costs beside its texts, with its place among the known families.
const metadataSize = 192

// seriesSize is about what a series costs beside its labels, in bytes: Series, Sample, growth of arenas.
const seriesSize = 320

// NewLimitedBatch is an empty pooled batch of tenant id with one reference, which may take limit bytes of memory. Its
// maker fills it with AddSample, AddHistogram, AddMetadata and Reject before sharing it.
func NewLimitedBatch(id tenant.ID, limit int) *Batch {
	b := newPooled(id)
	b.limit = limit
	return b
}

// SetBudget makes b ask budget for what it takes of its limit. It is called before anything is added.
func (b *Batch) SetBudget(budget Budget) { b.within(budget) }

// AddSample adds a series of one sample. Nothing is assumed of ls except its order (no label is longer than
// MaxLabelLength: Labels cannot hold it). An error of kind Invalid says that the series was rejected and is listed in
// Rejected. One of kind TooLarge says that the batch may take nothing more. Exemplars whose labels are unusable are
// rejected alone.
func (b *Batch) AddSample(ls labels.Labels, s Sample, exemplars []exemplar.Exemplar) error {
	at := b.mark()
	b.samples = append(b.samples, s)
	b.starts = b.starts || s.ST != 0
	return b.add(at, ls, s.T, exemplars)
}

// AddHistogram is AddSample for a native histogram. An invalid histogram is rejected like unusable labels. The batch
// owns the histogram from here on.
func (b *Batch) AddHistogram(ls labels.Labels, h Histogram, exemplars []exemplar.Exemplar) error {
	at := b.mark()
	b.histograms = append(b.histograms, h)
	b.starts = b.starts || h.ST != 0
	if err := validate(h); err != nil {
		b.lost.Exemplars += len(exemplars)
		return b.refuse(at, ls, "histogram: "+err.Error())
	}
	if !b.charge(histogramSize + h.memory()) {
		return b.full(at)
	}
	return b.add(at, ls, h.T, exemplars)
}

func validate(h Histogram) error {
	if h.H != nil {
		return h.H.Validate()
	}
	return h.FH.Validate()
}

// add ends the series that began at at. An exemplar without a time gets the time of the sample, t.
func (b *Batch) add(at mark, ls labels.Labels, t int64, exemplars []exemplar.Exemplar) error {
	if !b.charge(seriesSize + len(exemplars)*exemplarSize) {
		return b.full(at)
	}
	from := len(b.canonical)
	b.canonical = AppendTenant(b.canonical, b.Tenant)
	hasName, fault := b.appendChecked(ls)
	if fault == "" && !hasName {
		fault = "no metric name"
	}
	if fault != "" {
		b.lost.Exemplars += len(exemplars)
		return b.refuse(at, ls, fault)
	}
	full := b.canonical[from:]
	for _, e := range exemplars {
		from := len(b.canonical)
		if _, fault := b.appendChecked(e.Labels); fault != "" {
			b.canonical = b.canonical[:from]
			b.loseExemplar(fault)
			continue
		}
		out := Exemplar{T: e.Ts, V: e.Value, Labels: since(b.canonical, from)}
		if !e.HasTs {
			out.T = t
		}
		b.exemplars = append(b.exemplars, out)
	}
	if !b.mayAppend(0) {
		return b.full(at)
	}
	b.keep(at, full)
	return nil
}

func (b *Batch) full(at mark) error {
	b.undo(at)
	if b.refused != nil {
		return b.refused
	}
	return errs.E(errs.TooLarge, "the request becomes more series than fit into memory")
}

func (b *Batch) refuse(at mark, ls labels.Labels, fault string) error {
	var reason string
	b.drop(at, func() string {
		var t labelText
		ls.Range(func(l labels.Label) { t.add([]byte(l.Name), []byte(l.Value)) })
		reason = fault + " in " + t.String()
		return reason
	})
	if reason == "" { // one of too many to be listed
		reason = fault
	}
	return errs.E(errs.Invalid, "%s", reason)
}

// appendChecked appends ls to the canonical arena. It reports whether a metric name is among them, and what makes them
// unusable ("" = nothing).
func (b *Batch) appendChecked(ls labels.Labels) (hasName bool, fault string) {
	last := ""
	ls.Range(func(l labels.Label) {
		switch {
		case fault != "":
			return
		case l.Name == "":
			fault = "a label has no name"
			return
		case l.Name == last:
			fault = "label " + quote([]byte(l.Name)) + " occurs twice"
			return
		case l.Name < last:
			panic("BUG: labels are not sorted")
		case !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value):
			fault = "label " + quote([]byte(l.Name)) + " is not UTF-8"
			return
		}
		last = l.Name
		if l.Value == "" {
			return
		}
		hasName = hasName || l.Name == nameLabel
		b.canonical = append(append(b.canonical, l.Name...), Sep)
		b.canonical = append(append(b.canonical, l.Value...), Sep)
	})
	return hasName, fault
}

// AddMetadata adds what is known of a family, unless the family has metadata already or its name is unusable. It is
// false when the batch may take nothing more.
func (b *Batch) AddMetadata(m Metadata) bool {
	if _, ok := b.families.names[m.Family]; ok || m.Family == "" || !utf8.ValidString(m.Family) {
		return true
	}
	if !b.charge(len(m.Family) + len(m.Help) + len(m.Unit) + metadataSize) {
		return false
	}
	m.Help, m.Unit = strings.ToValidUTF8(m.Help, "\uFFFD"), strings.ToValidUTF8(m.Unit, "\uFFFD")
	if b.families.names == nil {
		b.families.names = make(map[string]struct{})
	}
	b.families.names[m.Family] = struct{}{}
	b.Metadata = append(b.Metadata, m)
	return true
}

// Reject lists f in Rejected, with kind Invalid: something that could not even become a series.
func (b *Batch) Reject(f Failure) {
	f.Whole = 1
	b.reject(f, func() string { return f.Reason })
}

// Memory is about how many bytes b takes, with the buffer that it owns.
func (b *Batch) Memory() int64 {
	n := b.capacity() + b.pointed()
	if b.body != nil {
		n += b.body.capacity()
	}
	return int64(n)
}

// Buffered is about how many bytes of labels, and of the body that it came by, b keeps. The batches that one batch was
// rewritten to share what that batch keeps.
func (b *Batch) Buffered() int64 {
	n := int64(len(b.canonical))
	if b.body != nil {
		n += int64(b.body.capacity())
	}
	if b.source != nil {
		n += b.source.Buffered() / int64(max(b.parts, 1))
	}
	return n
}

// Content is about how many bytes the content of b takes, without the unused capacity of its arenas.
func (b *Batch) Content() int64 {
	n := int(unsafe.Sizeof(*b)) + len(b.canonical) + sizeOf(b.Series) + sizeOf(b.samples) + sizeOf(b.histograms) +
		sizeOf(b.exemplars)
	return int64(n + b.pointed())
}

// pointed is about how many bytes the histograms and the metadata of b take beyond its arenas.
func (b *Batch) pointed() (n int) {
	for i := range b.histograms {
		n += histogramSize + b.histograms[i].memory()
	}
	for i := range b.Metadata {
		m := &b.Metadata[i]
		n += metadataSize + len(m.Family) + len(m.Help) + len(m.Unit)
	}
	return n
}

func sizeOf[T any](s []T) int { return len(s) * int(unsafe.Sizeof(*new(T))) }
