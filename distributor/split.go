package distributor

import (
	"context"
	"strings"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// splitConcurrency is how many tenants of one request are written at a time.
const splitConcurrency = 16

// pushSplit is Push where series name their tenant in a label: the request becomes one for each tenant, answered together.
func (d *Distributor) pushSplit(ctx context.Context, b *wire.Batch) (Result, error) {
	parts := split(tenant.GrantFrom(ctx), b, d.opts.SplitLabel)
	if parts == nil {
		return d.push(ctx, b)
	}
	results := make([]Result, len(parts))
	failed := make([]error, len(parts))
	var all sync.WaitGroup
	places := make(chan struct{}, splitConcurrency)
	for i := range parts {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			defer d.survive("push the series of tenant "+string(parts[i].Tenant), func(err error) { failed[i] = err })
			results[i], failed[i] = d.push(ctx, parts[i])
		})
	}
	all.Wait()
	sum := Result{Series: b.Named()}
	for i, part := range parts {
		sum.include(part, results[i], failed[i], len(parts) > 1)
	}
	var err error
	if len(parts) == 1 {
		sum.Tenant, err = parts[0].Tenant, failed[0]
	}
	for _, part := range parts {
		part.Release()
	}
	return sum, err
}

// include adds what became of one tenant's part of the request; err is that nothing of it was tried. With several parts
// failures name their tenant.
func (r *Result) include(part *wire.Batch, of Result, err error, several bool) {
	if err != nil {
		of = refusedWhole(part, err)
		r.wait = max(r.wait, errs.RetryAfter(err))
	}
	r.Samples += of.Samples
	r.Histograms += of.Histograms
	r.Exemplars += of.Exemplars
	r.Dropped.plus(of.Dropped)
	r.Duplicates.plus(of.Duplicates)
	for _, f := range of.Failures {
		if several && len(r.Failures) < shownFailures && err == nil { // an error names the tenant itself
			f.Reason = "tenant " + string(part.Tenant) + ": " + f.Reason
		}
		r.Failures = append(r.Failures, f)
	}
}

// refusedWhole is what became of a batch of which nothing was tried.
func refusedWhole(b *wire.Batch, err error) Result {
	var r Result
	r.Failures = append(r.Failures, b.Rejected...)
	kind, reason := errs.KindOf(err), err.Error()
	for i := range b.Series {
		s := &b.Series[i]
		r.Failures = append(r.Failures, wire.Failure{
			Series: b.Origin(i), Kind: kind, Reason: reason, Samples: len(s.Samples), Histograms: len(s.Histograms), Exemplars: len(s.Exemplars),
		})
	}
	if len(b.Series) == 0 && len(b.Metadata) > 0 {
		r.Failures = append(r.Failures, wire.Failure{Series: -1, Kind: kind, Reason: reason})
	}
	return r
}

func (d *Dropped) plus(e Dropped) {
	d.Samples += e.Samples
	d.Histograms += e.Histograms
	d.Exemplars += e.Exemplars
}

// split gives the batches that b becomes when label names the tenant of a series, without that label; nil when no series
// has it. A series without it stays with the tenant of b; one whose tenant is not valid, or not the sender's, is rejected.
func split(g *tenant.Grant, b *wire.Batch, label string) []*wire.Batch {
	var (
		rewriter *wire.Rewriter
		value    string // of the series before
		id       tenant.ID
		fault    error
	)
	families := newFamilies(b)
	for i := range b.Series {
		labels := b.Series[i].Labels()
		from, to, found := findLabel(labels, label)
		if found == "" {
			if rewriter != nil {
				rewriter.Keep(i)
			}
			families.see(labels, b.Tenant)
			continue
		}
		if rewriter == nil {
			rewriter = wire.Rewrite(b)
			for j := range i {
				rewriter.Keep(j)
			}
		}
		if found != value {
			value = strings.Clone(found)
			if id, fault = tenant.Parse(value); fault == nil {
				fault = g.Check(id)
			}
		}
		if fault != nil {
			rewriter.Reject(i, errs.KindOf(fault), "label "+label+": "+fault.Error())
			continue
		}
		rewriter.Put(i, id, labels[:from], labels[to:])
		families.see(labels, id)
	}
	if rewriter == nil {
		return nil
	}
	families.describe(rewriter, b.Tenant)
	return rewriter.Done()
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

// families tells which tenants of a request have series of which of its metric families: nobody is to learn what others
// measure.
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
	f := &families{metadata: b.Metadata, index: make(map[string]int, len(b.Metadata)), tenants: make([]map[tenant.ID]struct{}, len(b.Metadata))}
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

// describe gives each family's metadata to the tenants that have it, and to the request's own if nobody has.
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
