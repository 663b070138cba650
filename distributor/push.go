package distributor

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// partConcurrency is how many tenants' parts of one request are written at a time.
const partConcurrency = 16

// Push replicates b by the ring. It returns when the outcome of every series is certain and the members that keep up
// with the others have their copies, or after Options.WriteTimeout. The error says that nothing was tried (kind
// TooLarge or Limited: the whole request is over a limit of the tenant). The outcome of single series is in the Result,
// folded by Result.Err. The batch may be in use by slow members after Push returned: they hold references of their own.
func (d *Distributor) Push(ctx context.Context, b *wire.Batch) (Result, error) {
	return d.pushTo(ctx, &d.ring, b)
}

// pushTo is Push to the members of a destination.
func (d *Distributor) pushTo(ctx context.Context, to *destination, b *wire.Batch) (Result, error) {
	ctx, span := startPush(ctx, b)
	result, err := d.pushRequest(ctx, to, b)
	endPush(span, result, err)
	return result, err
}

// pushRequest takes b through all stages: admission, the members, the outcome.
func (d *Distributor) pushRequest(ctx context.Context, to *destination, b *wire.Batch) (Result, error) {
	r := d.newRequest(ctx, b)
	defer d.release(r)
	d.admit(r)
	d.storeParts(r, to)
	for _, p := range r.parts {
		d.pairs.settle(p)
		d.observe(p, to)
	}
	result, err := r.result()
	if err == nil {
		d.metrics.relabelDropped.Add(float64(r.dropped.Samples + r.dropped.Histograms))
	}
	return result, err
}

// startPush begins the span "distributor push" below the span of ctx, if that one is sampled. Otherwise it gives ctx
// back and a span that does nothing, and allocates nothing.
func startPush(ctx context.Context, b *wire.Batch) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.SpanContext().IsSampled() {
		return ctx, noop.Span{}
	}
	tracer := parent.TracerProvider().Tracer("github.com/hearth-metrics/hearth")
	return tracer.Start(ctx, "distributor push", trace.WithAttributes(attribute.Int("series", len(b.Series))))
}

// endPush ends the span. A push that did not store all samples ends with an error, which is the kind of its failures.
// Writes to members that outlive the push stay below this span.
func endPush(span trace.Span, result Result, err error) {
	if span.IsRecording() {
		kind := errs.KindOf(err)
		if err == nil {
			kind = result.Kind()
		}
		if kind != errs.OK {
			span.SetStatus(codes.Error, kind.String()) // the whole text has no bound
		}
	}
	span.End()
}

// storeParts writes what was let in.
func (d *Distributor) storeParts(r *request, to *destination) {
	if len(r.parts) == 1 {
		d.store(r.ctx, r.parts[0], to)
		return
	}
	var all sync.WaitGroup
	places := make(chan struct{}, partConcurrency)
	for _, p := range r.parts {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			defer d.recoverAs("push the series of tenant "+string(p.batch.Tenant), func(err error) { p.err = err })
			d.store(r.ctx, p, to)
		})
	}
	all.Wait()
}

// store writes what was let in of p.
func (d *Distributor) store(ctx context.Context, p *part, to *destination) {
	if p.err != nil || p.nothing() {
		return
	}
	route, err := d.acquire(to)
	if err != nil {
		p.err = err
		return
	}
	w := d.begin(p, route)
	w.span = trace.SpanFromContext(ctx)
	defer w.release()
	start := time.Now()
	if w.dispatch(route) {
		w.startLocal()
	}
	ended := w.wait(ctx)
	if ended == nil {
		w.waitForCopies(ctx, route.members, time.Since(start))
	}
	p.stored, p.lost = w.judge(ended)
	w.handOver()
}

// observe counts the outcome of a part. Whoever placed a series has counted its samples.
func (d *Distributor) observe(p *part, to *destination) {
	if p.err != nil {
		return
	}
	if to == &d.ring {
		p.tenant.stored(p.stored.Samples + p.stored.Histograms)
		d.metrics.samples.Add(float64(p.stored.Samples))
		d.metrics.histograms.Add(float64(p.stored.Histograms))
		d.metrics.exemplars.Add(float64(p.stored.Exemplars))
	}
	for i := range p.batch.Rejected {
		d.metrics.failures.WithLabelValues(p.batch.Rejected[i].Kind.String()).Inc()
	}
	for i := range p.refused { // the limits of these are counted where they are kept
		d.metrics.failures.WithLabelValues(p.refused[i].Kind.String()).Inc()
	}
	for i := range p.lost {
		f := &p.lost[i]
		d.metrics.failures.WithLabelValues(f.Kind.String()).Inc()
		if f.Kind == errs.Limited {
			p.tenant.lost(tenant.LimitNamed(f.Reason), f.Samples+f.Histograms)
		}
	}
}
