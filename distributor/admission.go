package distributor

import (
	"context"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// stages are what a request passes before it is placed, in this order. A stage that refuses stops the stages after it,
// so that a request refused for its size, say, does not use up its tenant's rate.
var stages = []stage{
	(*Distributor).relabel,
	(*Distributor).split,
	(*Distributor).refuseTenant,
	(*Distributor).limitRequest,
	(*Distributor).dedupePairs,
	(*Distributor).limitSeries,
	(*Distributor).limitRate,
}

// stage decides about p, which is one tenant's part of r. It may refuse single series (part.refuse), take series out,
// give p another batch (part.become), or divide it by tenants (request.parts). An error refuses all of p.
type stage func(d *Distributor, r *request, p *part) error

// request is a pushed batch on its way through the stages, to the members, and to its Result.
type request struct {
	ctx     context.Context
	batch   *wire.Batch // as it was pushed; the caller's
	rules   *rules      // of relabelling, the same for all of the request; nil = none
	parts   []*part     // one until a stage divides it
	dropped Counts      // by rules of relabelling

	whole part     // the first part
	only  [1]*part // parts, as long as there is one
}

// part is what one tenant has of a request.
type part struct {
	tenant *tenantState
	limits *tenant.Limits // of the tenant, the same for all stages; nil = none are kept
	// batch is what is left of the tenant's series, with a reference of the part. The batches that it was rewritten from
	// live as long as it does.
	batch *wire.Batch
	// skip marks series of batch that were refused by a stage that does not rewrite it; nil = none.
	skip    []bool
	skipped int
	// refused are the failures of series that stages took out.
	refused []batchFailure
	// duplicates are samples of HA pairs whose other replica's are stored: no failures.
	duplicates Counts
	// elected are the series that were let in because their replica of an HA pair is elected.
	elected []electedRun

	// err refuses all of the part: nothing of it was tried.
	err error
	// stored and lost are the outcome of writing batch to its members. lost are failures by their index in batch, in
	// order.
	stored Counts
	lost   []wire.Failure
}

// batchFailure is a Failure whose Series is an index into in. Request.result gives it the place that the series has in
// the request, by which the sender knows it.
type batchFailure struct {
	in *wire.Batch
	wire.Failure
}

// Counts are samples, native histograms and exemplars.
type Counts struct{ Samples, Histograms, Exemplars int }

// countsOf is what s has.
func countsOf(s *wire.Series) Counts {
	return Counts{Samples: len(s.Samples), Histograms: len(s.Histograms), Exemplars: len(s.Exemplars)}
}

func (c *Counts) add(more Counts) {
	c.Samples += more.Samples
	c.Histograms += more.Histograms
	c.Exemplars += more.Exemplars
}

// samplesOf counts what limits and rates count: samples of both kinds.
func samplesOf(s *wire.Series) int { return len(s.Samples) + len(s.Histograms) }

// newRequest begins the request of b. It is to be released.
func (d *Distributor) newRequest(ctx context.Context, b *wire.Batch) *request {
	r := d.requests.Get().(*request)
	r.ctx, r.batch, r.rules = ctx, b, d.rules.Load()
	b.Retain()
	d.newPart(&r.whole, b)
	r.only[0] = &r.whole
	r.parts = r.only[:]
	return r
}

// release gives up the batches of r.
func (d *Distributor) release(r *request) {
	for _, p := range r.parts {
		p.batch.Release()
	}
	*r = request{}
	d.requests.Put(r)
}

// newPart begins the part of b's tenant, which takes over the caller's reference to b.
func (d *Distributor) newPart(p *part, b *wire.Batch) {
	p.tenant, p.limits, p.batch = d.tenants.of(b.Tenant), d.limitsOf(b.Tenant), b
}

// admit takes r through the stages.
func (d *Distributor) admit(r *request) {
	for _, admit := range stages {
		for _, p := range r.parts { // those that this stage adds are the next one's
			if p.err == nil && !p.nothing() {
				p.err = admit(d, r, p)
			}
		}
	}
}

// refuseTenant refuses all of a tenant that takes no writes.
func (d *Distributor) refuseTenant(_ *request, p *part) error {
	if d.opts.Refusal == nil {
		return nil
	}
	return d.opts.Refusal(p.batch.Tenant)
}

// become makes own, which p.batch was rewritten to, the batch of p.
func (p *part) become(own *wire.Batch) {
	before := p.batch
	p.batch = own
	before.Release()
}

// refuse notes that series i of p.batch fails with kind. The caller takes it out. The first failures name their labels.
func (p *part) refuse(i int, kind errs.Kind, reason string) {
	s := &p.batch.Series[i]
	if len(p.refused) < shownFailures {
		reason = s.Text() + ": " + reason
	}
	p.refused = append(p.refused, batchFailure{p.batch, failureOf(s, i, kind, reason)})
}

// failureOf says that nothing of s, which is series i of its batch, is stored.
func failureOf(s *wire.Series, i int, kind errs.Kind, reason string) wire.Failure {
	return wire.Failure{
		Series: i, Kind: kind, Reason: reason,
		Samples: len(s.Samples), Histograms: len(s.Histograms), Exemplars: len(s.Exemplars),
	}
}

// leave takes series i out without rewriting the batch.
func (p *part) leave(i int) {
	if p.skip == nil {
		p.skip = make([]bool, len(p.batch.Series))
	}
	p.skip[i] = true
	p.skipped++
}

// in reports whether series i is to be placed.
func (p *part) in(i int) bool { return p.skip == nil || !p.skip[i] }

// samples counts what is to be placed.
func (p *part) samples() (n int) {
	for i := range p.batch.Series {
		if p.in(i) {
			n += samplesOf(&p.batch.Series[i])
		}
	}
	return n
}

// nothing reports whether there is nothing to place.
func (p *part) nothing() bool {
	return p.skipped == len(p.batch.Series) && len(p.batch.Metadata) == 0
}
