package distributor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// shownFailures is how many failures an error names.
const shownFailures = 10

// Result is the outcome of a batch.
type Result struct {
	// Tenant is "" when a request was for several tenants. Failures then name theirs.
	Tenant tenant.ID
	// Series is how many series the request had, the rejected ones included.
	Series int
	// Samples, Histograms and Exemplars are how many a quorum has stored. Exemplars that a quorum lacks are no failure.
	Samples, Histograms, Exemplars int
	// Dropped is what rules of this process took out of the request: neither stored nor a failure.
	Dropped Counts
	// Duplicates is what came from HA replicas that are not elected: the samples of the elected one are stored.
	Duplicates Counts
	// Failures are the series that were not stored, or not wholly: those that were rejected while the batch was decoded,
	// those that a stage refused, then others in the order of the batch. Failure.Series is the place in the pushed batch;
	// a metadata entry has -1. Only the first shownFailures reasons name the labels of a series when the cause is not the
	// series.
	Failures []wire.Failure

	wait time.Duration // after which the sender should come again; 0 = not known
}

// severity orders kinds of failures: the request as a whole fails with the most severe one. Kinds that can be sent
// again are more severe, so that a sender that retries loses nothing. A kind that is not listed is as severe as
// Unavailable.
var severity = map[errs.Kind]int{
	errs.Invalid: 1, errs.Conflict: 2, errs.TooLarge: 1, errs.Forbidden: 1, errs.Limited: 3,
}

// taken is what a sender need not send again: what was written, and what was left out on purpose.
func (r Result) taken() Counts {
	return Counts{
		Samples:    r.Samples + r.Dropped.Samples + r.Duplicates.Samples,
		Histograms: r.Histograms + r.Dropped.Histograms + r.Duplicates.Histograms,
		Exemplars:  r.Exemplars + r.Dropped.Exemplars + r.Duplicates.Exemplars,
	}
}

// isExtra reports whether f is only about what comes with samples: exemplars, or the metadata of a family.
func isExtra(f wire.Failure) bool {
	return f.Samples+f.Histograms == 0 && (f.Exemplars > 0 || f.Series < 0)
}

// hasSamples reports whether the request had samples, stored or not.
func (r Result) hasSamples() bool {
	taken := r.taken()
	return taken.Samples+taken.Histograms > 0 ||
		slices.ContainsFunc(r.Failures, func(f wire.Failure) bool { return f.Samples+f.Histograms > 0 })
}

// decisive are the failures that decide on the request. Missing exemplars and metadata fail no samples: they are in the
// counts and in metrics. Where a request has nothing else, they decide if it can help to send them again.
func (r Result) decisive() []wire.Failure {
	if !slices.ContainsFunc(r.Failures, isExtra) {
		return r.Failures
	}
	samples := r.hasSamples()
	return slices.DeleteFunc(slices.Clone(r.Failures), func(f wire.Failure) bool {
		return isExtra(f) && (samples || !f.Kind.Retryable())
	})
}

// Kind is the kind of the whole request: OK if nothing failed that decides, else the most severe of its failures.
func (r Result) Kind() errs.Kind { return kindOf(r.decisive()) }

func kindOf(failures []wire.Failure) errs.Kind {
	kind, worst := errs.OK, 0
	for _, f := range failures {
		s, known := severity[f.Kind]
		if !known {
			return errs.Unavailable
		}
		if s > worst {
			kind, worst = f.Kind, s
		}
	}
	return kind
}

// Err is nil when nothing failed that decides. Else it is an error of kind Kind whose text names the first failures,
// one to a line.
func (r Result) Err() error {
	failures := r.decisive()
	kind := kindOf(failures)
	if kind == errs.OK {
		return nil
	}
	var text strings.Builder
	series, exemplars, metadata := 0, 0, 0
	for _, f := range failures {
		switch {
		case f.Whole > 0:
			series += f.Whole
		case f.Samples+f.Histograms > 0:
			series++
		case f.Exemplars > 0:
			exemplars++
		case f.Series < 0:
			metadata++
		default:
			series++
		}
	}
	of := ""
	if r.Tenant != "" {
		of = "tenant " + string(r.Tenant) + ": "
	}
	fmt.Fprintf(&text, "%s%d of %d series not stored, or not wholly", of, min(series, r.Series), r.Series)
	if exemplars > 0 {
		fmt.Fprintf(&text, ", and exemplars of %d series", exemplars)
	}
	if metadata > 0 {
		fmt.Fprintf(&text, ", and metadata of %d families", metadata)
	}
	for i, f := range failures {
		if i == shownFailures {
			fmt.Fprintf(&text, "\n... and %d more", len(failures)-i)
			break
		}
		fmt.Fprintf(&text, "\n%s%s: %s", of, f.Kind, f.Reason)
	}
	err := errs.E(kind, "%s", text.String())
	if r.wait > 0 {
		err = errs.WithRetryAfter(err, r.wait)
	}
	return err
}

// result is the outcome of r for its sender. Here, and nowhere else, failures get the places that series had in the
// request.
func (r *request) result() (Result, error) {
	sum := Result{Series: r.batch.Named(), Dropped: r.dropped}
	several := len(r.parts) > 1
	if !several {
		p := r.parts[0]
		if p.err != nil {
			return Result{}, p.err
		}
		sum.Tenant = p.batch.Tenant
	}
	for _, p := range r.parts {
		sum.include(p, several)
	}
	return sum, nil
}

// include adds the outcome of one tenant's part. With several parts failures name their tenant.
func (r *Result) include(p *part, several bool) {
	r.Samples += p.stored.Samples
	r.Histograms += p.stored.Histograms
	r.Exemplars += p.stored.Exemplars
	r.Duplicates.add(p.duplicates)
	if p.err != nil {
		r.wait = max(r.wait, errs.RetryAfter(p.err))
		p.loseAll()
	}
	add := func(in *wire.Batch, f wire.Failure) {
		if in != nil && f.Series >= 0 {
			f.Series = in.Origin(f.Series)
		}
		if several && len(r.Failures) < shownFailures && p.err == nil { // an error names the tenant itself
			f.Reason = "tenant " + string(p.batch.Tenant) + ": " + f.Reason
		}
		r.Failures = append(r.Failures, f)
	}
	for _, f := range p.batch.Rejected { // they have no place
		add(nil, f)
	}
	for _, f := range p.refused {
		add(f.in, f.Failure)
	}
	for _, f := range p.lost {
		add(p.batch, f)
	}
}

// loseAll makes p.err the failure of all that is left of p.
func (p *part) loseAll() {
	kind, reason := errs.KindOf(p.err), p.err.Error()
	p.stored, p.lost = Counts{}, nil
	for i := range p.batch.Series {
		if p.in(i) {
			p.lost = append(p.lost, failureOf(&p.batch.Series[i], i, kind, reason))
		}
	}
	if len(p.batch.Series) == 0 && len(p.batch.Metadata) > 0 {
		p.lost = append(p.lost, wire.Failure{Series: -1, Kind: kind, Reason: reason})
	}
}
