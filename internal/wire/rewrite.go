package wire

import (
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Rewriter makes new batches of the series of another one: some under other labels, some for other tenants, some not at
// all. Samples are shared, not copied. The source stays as it is, and lives as long as the last of the new batches.
//
//	r := wire.Rewrite(b)
//	for i := range b.Series { one of r.Keep(i), r.Put(i, ...) and r.Drop(i) }
//	if r.Changed() { own, others := r.Done() ... }
//
// Every series is decided once, in order. As long as all are kept nothing is made, so that a batch that needs no change
// costs a look at its series.
//
// Series that become one under their new labels are one series of the new batch, with the place (Origin) of the first.
//
// A Rewriter is used by one goroutine, once. Rewritten batches may be rewritten again.
type Rewriter struct {
	src       *Batch
	own       *Batch               // of the source's tenant; nil until something changes
	others    []*Batch             // of other tenants, in the order of their first series
	last      *Batch               // of the series before
	byTenant  map[tenant.ID]*Batch // of others, when there are many
	described bool
}

// manyTenants is from how many tenants on a map finds a batch faster than looking at each.
const manyTenants = 8

// Rewrite begins a rewriting of src. The caller's reference to src is enough meanwhile.
func Rewrite(src *Batch) Rewriter { return Rewriter{src: src} }

// Changed reports whether anything but Keep was called. If not, there are no new batches and Done must not be called.
func (r *Rewriter) Changed() bool { return r.own != nil }

// Keep takes series i as it is, for the source's tenant.
func (r *Rewriter) Keep(i int) {
	if r.own != nil {
		r.own.keepFrom(r.src, i)
	}
}

// Put takes series i for tenant id, with the canonical labels that parts are in a row; they are copied. The caller
// makes sure that they are canonical: sorted, each name once, no part of a label empty, UTF-8, with a metric name.
func (r *Rewriter) Put(i int, id tenant.ID, parts ...[]byte) {
	r.change(i)
	b := r.of(id)
	from := len(b.canonical)
	b.canonical = AppendTenant(b.canonical, id)
	prefix := len(b.canonical)
	for _, p := range parts {
		b.canonical = append(b.canonical, p...)
	}
	src := &r.src.Series[i] // what else it says is of the series that it was
	s := Series{
		labels: since(b.canonical, prefix), size: len(b.canonical) - prefix,
		Samples: src.Samples, Histograms: src.Histograms, Exemplars: src.Exemplars,
	}
	s.Key, s.Hash = Identify(b.canonical[from:])
	b.Series = append(b.Series, s)
	b.origins = append(b.origins, int32(r.src.Origin(i)))
}

// Drop leaves series i out.
func (r *Rewriter) Drop(i int) { r.change(i) }

// change makes the batch of the source's tenant, with all series before i, unless it is there.
func (r *Rewriter) change(i int) {
	if r.own != nil {
		return
	}
	r.own = newRewritten(r.src.Tenant, r.src)
	for j := range i {
		r.own.keepFrom(r.src, j)
	}
}

// keepFrom appends series i of src.
func (b *Batch) keepFrom(src *Batch, i int) {
	b.Series = append(b.Series, src.Series[i])
	b.origins = append(b.origins, int32(src.Origin(i)))
}

// Describe takes metadata i for tenant id. Where neither Describe nor DescribeNone is called, all metadata stays with
// the source's tenant. Something has changed before.
func (r *Rewriter) Describe(i int, id tenant.ID) {
	r.described = true
	b := r.of(id)
	b.Metadata = append(b.Metadata, r.src.Metadata[i])
}

// DescribeNone leaves out all metadata except what Describe takes.
func (r *Rewriter) DescribeNone() { r.described = true }

// Done ends the rewriting and gives the new batches, each with one reference, the caller's. own is of the source's
// tenant. It lists what the source had rejected, and may have nothing at all. Each of others has something.
func (r *Rewriter) Done() (own *Batch, others []*Batch) {
	own = r.own
	own.Rejected = append(own.Rejected, r.src.Rejected...)
	if !r.described {
		own.Metadata = append(own.Metadata, r.src.Metadata...)
	}
	parts := len(r.others)
	if own.HasContent() {
		parts++
	}
	own.finishRewritten(parts)
	for _, b := range r.others {
		b.finishRewritten(parts)
	}
	return own, r.others
}

// HasContent reports whether b has anything: a series, metadata, or something that was rejected.
func (b *Batch) HasContent() bool { return len(b.Series)+len(b.Metadata)+len(b.Rejected) > 0 }

// finishRewritten makes one series of those that became one by the rewriting. parts is how many batches the source
// became.
func (b *Batch) finishRewritten(parts int) {
	b.parts = parts
	kept, _ := b.MergeDuplicates() // it has no Budget that could refuse
	for to, from := range kept {
		b.origins[to] = b.origins[from]
	}
	if kept != nil {
		b.origins = b.origins[:len(kept)]
	}
}

// of is the new batch of tenant id.
func (r *Rewriter) of(id tenant.ID) *Batch {
	if id == r.src.Tenant {
		return r.own
	}
	if r.last != nil && r.last.Tenant == id {
		return r.last
	}
	r.last = r.find(id)
	if r.last == nil {
		r.last = newRewritten(id, r.src)
		r.others = append(r.others, r.last)
		if r.byTenant != nil {
			r.byTenant[id] = r.last
		}
	}
	return r.last
}

// find is the new batch of another tenant, nil if it has none yet.
func (r *Rewriter) find(id tenant.ID) *Batch {
	if r.byTenant != nil {
		return r.byTenant[id]
	}
	if len(r.others) >= manyTenants {
		r.byTenant = make(map[tenant.ID]*Batch, 2*manyTenants)
		for _, b := range r.others {
			r.byTenant[b.Tenant] = b
		}
		return r.byTenant[id]
	}
	i := slices.IndexFunc(r.others, func(b *Batch) bool { return b.Tenant == id })
	if i < 0 {
		return nil
	}
	return r.others[i]
}

// rewritten is the pool of rewritten batches. Their arenas hold labels only, so they are far smaller than those of
// decoded batches and have a pool of their own.
var rewritten = sync.Pool{New: func() any { return new(Batch) }}

func newRewritten(id tenant.ID, src *Batch) *Batch {
	src.Retain()
	b := rewritten.Get().(*Batch)
	b.Tenant, b.source, b.pool = id, src, recycleRewritten
	b.refs.Store(1)
	return b
}

func recycleRewritten(b *Batch) {
	src := b.source
	clear(b.Series) // they point into the source
	clear(b.Metadata)
	clear(b.Rejected)
	b.Series, b.Metadata, b.Rejected = reuse(b.Series), reuse(b.Metadata), reuse(b.Rejected)
	b.canonical, b.origins = reuse(b.canonical), reuse(b.origins)
	clear(b.histograms) // what MergeDuplicates brought together
	b.samples, b.histograms, b.exemplars = reuse(b.samples), reuse(b.histograms), reuse(b.exemplars)
	b.source = nil
	rewritten.Put(b)
	src.Release()
}

// Origin is the place that series i had in the batch that b was first rewritten from; i if b was decoded.
func (b *Batch) Origin(i int) int {
	if b.source == nil {
		return i
	}
	return int(b.origins[i])
}
