package distributor

import (
	"context"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

type unsplitKey struct{}

// Unsplit is the context of a Push whose series are all of the batch's tenant, whatever label they have. Results of
// rules are: a tenant that chooses their labels must not write for another one.
func Unsplit(ctx context.Context) context.Context { return context.WithValue(ctx, unsplitKey{}, true) }

// split divides a part where a label names the tenant of a series: the part becomes one for each tenant, and the label
// is taken off. A series without the label stays with the request's tenant. A series is refused when its tenant is not
// valid, or when the sender may not write for that tenant.
func (d *Distributor) split(r *request, p *part) error {
	label := d.opts.SplitLabel
	if label == "" || r.ctx.Value(unsplitKey{}) != nil {
		return nil
	}
	var (
		grant = tenant.GrantFrom(r.ctx)
		b     = p.batch
		rw    = wire.Rewrite(b)
		value string // of the series before
		id    tenant.ID
		fault error
	)
	families := newFamilies(b)
	for i := range b.Series {
		labels := b.Series[i].Labels()
		from, to, found := findLabel(labels, label)
		if found == "" {
			rw.Keep(i)
			families.see(labels, b.Tenant)
			continue
		}
		if found != value {
			value = strings.Clone(found)
			if id, fault = tenant.Parse(value); fault == nil {
				fault = grant.Check(id)
			}
		}
		if fault != nil {
			p.refuse(i, errs.KindOf(fault), "label "+label+": "+fault.Error())
			rw.Drop(i)
			continue
		}
		rw.Put(i, id, labels[:from], labels[to:])
		families.see(labels, id)
	}
	if rw.Changed() {
		families.describe(&rw, b.Tenant)
		d.divide(r, p, &rw)
	}
	return nil
}

// divide makes a part of r of each batch that the batch of p was rewritten to. p stays if anything is left or refused
// of its tenant.
func (d *Distributor) divide(r *request, p *part, rw *wire.Rewriter) {
	own, others := rw.Done()
	parts := make([]*part, 0, 1+len(others))
	p.become(own)
	if own.HasContent() || len(p.refused) > 0 {
		parts = append(parts, p)
	} else {
		own.Release()
	}
	made := make([]part, len(others))
	for i, b := range others {
		d.newPart(&made[i], b)
		parts = append(parts, &made[i])
	}
	r.parts = parts
}

// findLabel is where label is in canonical label bytes, and its value, "" if it is not there.
func findLabel(labels []byte, label string) (from, to int, value string) {
	for rest := labels; len(rest) > 0; {
		name, value, after := wire.NextLabel(rest)
		switch {
		case name == label:
			return len(labels) - len(rest), len(labels) - len(after), value
		case name > label:
			return 0, 0, ""
		}
		rest = after
	}
	return 0, 0, ""
}

// families notes which tenants of a request have series of which of its metric families. A tenant gets the metadata of
// its own families only: no tenant may learn what others measure.
type families struct {
	metadata []wire.Metadata
	index    map[string]int
	tenants  []map[tenant.ID]struct{} // by metadata
}

// newFamilies is nil for a batch without metadata.
func newFamilies(b *wire.Batch) *families {
	if len(b.Metadata) == 0 {
		return nil
	}
	f := &families{metadata: b.Metadata, index: make(map[string]int, len(b.Metadata))}
	f.tenants = make([]map[tenant.ID]struct{}, len(b.Metadata))
	for i := range b.Metadata {
		f.index[b.Metadata[i].Family] = i
	}
	return f
}

// familySuffixes are what the series of one family may add to its name.
var familySuffixes = []string{"_bucket", "_count", "_sum", "_total", "_created", "_info", "_gcount", "_gsum"}

// see notes that a tenant has a series of these labels.
func (f *families) see(labels []byte, id tenant.ID) {
	if f == nil {
		return
	}
	_, _, name := findLabel(labels, "__name__")
	f.note(name, id)
	for _, suffix := range familySuffixes {
		if family, ok := strings.CutSuffix(name, suffix); ok {
			f.note(family, id)
		}
	}
}

func (f *families) note(family string, id tenant.ID) {
	i, ok := f.index[family]
	if !ok {
		return
	}
	if f.tenants[i] == nil {
		f.tenants[i] = map[tenant.ID]struct{}{}
	}
	f.tenants[i][id] = struct{}{}
}

// describe gives the metadata of each family to the tenants that have it, and to the request's own tenant if no tenant
// has it.
func (f *families) describe(r *wire.Rewriter, own tenant.ID) {
	if f == nil {
		return
	}
	r.DescribeNone()
	for i, tenants := range f.tenants {
		if len(tenants) == 0 {
			r.Describe(i, own)
		}
		for id := range tenants {
			r.Describe(i, id)
		}
	}
}
