package wire

import (
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Rewriter makes new batches of the series of a decoded one: some under other labels, some for other tenants, some not at
// all. Samples are shared, not copied; the source stays as it is, and lives as long as the last of the new batches.
//
//	r := wire.Rewrite(b)
//	for i := range b.Series { r.Keep(i), r.Put(i, ...), r.Reject(i, ...), or nothing to leave it out }
//	for _, b := range r.Done() { ...; b.Release() }
//
// Series that become one under their new labels are one series of the new batch, with the place (Origin) of the first.
//
// It may be used by one goroutine, once. Rewritten batches may be rewritten again.
type Rewriter struct {
	src       *Batch
	last      *Batch // of the series before
	outs      []*Batch
	byTenant  map[tenant.ID]*Batch // when there are many
	described bool
}

// manyTenants is from how many tenants on a map finds a batch faster than looking at each.
const manyTenants = 8

// Rewrite begins a rewriting of src, which needs no reference of its own meanwhile but the caller's.
func Rewrite(src *Batch) *Rewriter { return &Rewriter{src: src} }

// Keep takes series i as it is.
func (r *Rewriter) Keep(i int) {
	b := r.of(r.src.Tenant)
	b.Series = append(b.Series, r.src.Series[i])
	b.origins = append(b.origins, int32(r.src.Origin(i)))
}

// Put takes series i for tenant id, with the canonical labels that parts are in a row; they are copied. Who calls makes
// sure that they are canonical: sorted, each name once, no part of a label empty, UTF-8, with a metric name.
func (r *Rewriter) Put(i int, id tenant.ID, parts ...[]byte) {
	b := r.of(id)
	from := len(b.canonical)
	b.canonical = AppendTenant(b.canonical, id)
	prefix := len(b.canonical)
	for _, p := range parts {
		b.canonical = append(b.canonical, p...)
	}
	src := &r.src.Series[i] // what else it says is of the series that it was
	s := Series{labels: since(b.canonical, prefix), size: len(b.canonical) - prefix, Samples: src.Samples, Histograms: src.Histograms, Exemplars: src.Exemplars}
	s.Key, s.Hash = Identify(b.canonical[from:])
	b.Series = append(b.Series, s)
	b.origins = append(b.origins, int32(r.src.Origin(i)))
}

// Reject leaves series i out and lists it in the Rejected of the source's tenant, with its place (Origin) as
// Failure.Series. What series have in common may be said by one string for all of them.
func (r *Rewriter) Reject(i int, kind errs.Kind, reason string) {
	s := &r.src.Series[i]
	b := r.of(r.src.Tenant)
	b.Rejected = append(b.Rejected, Failure{
		Series: r.src.Origin(i), Kind: kind, Reason: reason,
		Samples: len(s.Samples), Histograms: len(s.Histograms), Exemplars: len(s.Exemplars),
	})
}

// Describe takes metadata i for tenant id. Where it is never called, all metadata stays with the source's tenant.
func (r *Rewriter) Describe(i int, id tenant.ID) {
	r.described = true
	b := r.of(id)
	b.Metadata = append(b.Metadata, r.src.Metadata[i])
}

// DescribeNone leaves out all metadata but what Describe takes.
func (r *Rewriter) DescribeNone() { r.described = true }

// Done ends the rewriting and gives the new batches, each with one reference, the caller's. The one of the source's tenant
// is among them when it has anything, and lists what the source had rejected. There may be none.
func (r *Rewriter) Done() []*Batch {
	if len(r.src.Rejected) > 0 {
		b := r.of(r.src.Tenant)
		b.Rejected = append(b.Rejected, r.src.Rejected...)
	}
	if !r.described && len(r.src.Metadata) > 0 {
		b := r.of(r.src.Tenant)
		b.Metadata = append(b.Metadata, r.src.Metadata...)
	}
	for _, b := range r.outs {
		b.parts = len(r.outs)
		kept, _ := b.Unite() // it has no Room that could refuse
		for to, from := range kept {
			b.origins[to] = b.origins[from]
		}
		if kept != nil {
			b.origins = b.origins[:len(kept)]
		}
	}
	return r.outs
}

// of is the new batch of tenant id.
func (r *Rewriter) of(id tenant.ID) *Batch {
	if r.last != nil && r.last.Tenant == id {
		return r.last
	}
	r.last = r.find(id)
	if r.last == nil {
		r.last = newRewritten(id, r.src)
		r.outs = append(r.outs, r.last)
		if r.byTenant != nil {
			r.byTenant[id] = r.last
		}
	}
	return r.last
}

func (r *Rewriter) find(id tenant.ID) *Batch {
	if r.byTenant != nil {
		return r.byTenant[id]
	}
	if len(r.outs) >= manyTenants {
		r.byTenant = make(map[tenant.ID]*Batch, 2*manyTenants)
		for _, b := range r.outs {
			r.byTenant[b.Tenant] = b
		}
		return r.byTenant[id]
	}
	i := slices.IndexFunc(r.outs, func(b *Batch) bool { return b.Tenant == id })
	if i < 0 {
		return nil
	}
	return r.outs[i]
}

// rewritten are of another size than decoded batches, and so is their pool: their arenas hold labels only.
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
	clear(b.histograms) // what Unite brought together
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
