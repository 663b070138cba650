package distributor

import (
	"fmt"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// shownFailures is how many failures an error names.
const shownFailures = 10

// severity orders kinds of failures: the request as a whole fails with the most severe. What can be sent again comes first,
// so that a sender that retries loses nothing; a kind that is missing is as severe as Unavailable.
var severity = map[errs.Kind]int{errs.Invalid: 1, errs.Conflict: 2, errs.TooLarge: 1, errs.Forbidden: 1, errs.Limited: 3}

// taken is what a sender needs not send again: what was written, and what was left out on purpose.
func (r Result) taken() Dropped {
	return Dropped{
		Samples:    r.Samples + r.Dropped.Samples + r.Duplicates.Samples,
		Histograms: r.Histograms + r.Dropped.Histograms + r.Duplicates.Histograms,
		Exemplars:  r.Exemplars + r.Dropped.Exemplars + r.Duplicates.Exemplars,
	}
}

// Kind is the kind of the whole request: OK if nothing failed, else the most severe of its failures.
func (r Result) Kind() errs.Kind {
	kind, worst := errs.OK, 0
	for _, f := range r.Failures {
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

// Err is nil when nothing failed, else an error of kind Kind whose text names the first failures, one to a line.
func (r Result) Err() error {
	kind := r.Kind()
	if kind == errs.OK {
		return nil
	}
	var text strings.Builder
	metadata := 0 // failures that concern no series
	for _, f := range r.Failures {
		if f.Series < 0 && f.Samples+f.Histograms+f.Exemplars == 0 {
			metadata++
		}
	}
	of := ""
	if r.Tenant != "" {
		of = "tenant " + string(r.Tenant) + ": "
	}
	fmt.Fprintf(&text, "%s%d of %d series not stored, or not wholly", of, len(r.Failures)-metadata, r.Series)
	if metadata > 0 {
		fmt.Fprintf(&text, ", and metadata of %d families", metadata)
	}
	for i, f := range r.Failures {
		if i == shownFailures {
			fmt.Fprintf(&text, "\n... and %d more", len(r.Failures)-i)
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
