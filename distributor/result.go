package distributor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// shownFailures is how many failures an error names.
const shownFailures = 10

// severity orders kinds of failures: the request as a whole fails with the most severe. What can be sent again comes
// first, so that a sender that retries loses nothing; a kind that is missing is as severe as Unavailable.
var severity = map[errs.Kind]int{errs.Invalid: 1, errs.Conflict: 2, errs.TooLarge: 1, errs.Forbidden: 1, errs.Limited: 3}

// taken is what a sender needs not send again: what was written, and what was left out on purpose.
func (r Result) taken() Dropped {
	return Dropped{
		Samples:    r.Samples + r.Dropped.Samples + r.Duplicates.Samples,
		Histograms: r.Histograms + r.Dropped.Histograms + r.Duplicates.Histograms,
		Exemplars:  r.Exemplars + r.Dropped.Exemplars + r.Duplicates.Exemplars,
	}
}

// besides reports whether f concerns only what comes beside samples: exemplars, or the metadata of a family.
func besides(f wire.Failure) bool {
	return f.Samples+f.Histograms == 0 && (f.Exemplars > 0 || f.Series < 0)
}

// hasSamples reports whether the request had samples, stored or not.
func (r Result) hasSamples() bool {
	taken := r.taken()
	return taken.Samples+taken.Histograms > 0 ||
		slices.ContainsFunc(r.Failures, func(f wire.Failure) bool { return f.Samples+f.Histograms > 0 })
}

// decisive are the failures that decide on the request. Exemplars and metadata are kept as well as can be, and fail
// nobody's samples: what is missing of them is in the counts and in metrics. Where a request has nothing else, they
// decide when sending them again can help.
func (r Result) decisive() []wire.Failure {
	if !slices.ContainsFunc(r.Failures, besides) {
		return r.Failures
	}
	samples := r.hasSamples()
	return slices.DeleteFunc(slices.Clone(r.Failures), func(f wire.Failure) bool {
		return besides(f) && (samples || !f.Kind.Retryable())
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

// Err is nil when nothing failed that decides, else an error of kind Kind whose text names the first failures, one to a
// line.
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
