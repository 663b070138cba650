package promapi

import (
	"errors"
	"net/http"

	"github.com/grafana/regexp"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// AnyOrigin are the origins of pages that may read answers, as Prometheus's API has it by default.
var AnyOrigin = regexp.MustCompile("^(?:.*)$")

// BoundForm bounds the body of a request whose form has an expression of at most maxExpression bytes. A form may need
// three bytes for one of an expression.
func BoundForm(w http.ResponseWriter, r *http.Request, maxExpression int) {
	const others = 64 << 10
	r.Body = http.MaxBytesReader(w, r.Body, int64(3*maxExpression+others))
}

// ParseForm is r.ParseForm, with an error of kind Invalid, or TooLarge beyond the bound of BoundForm.
func ParseForm(r *http.Request) error {
	err := r.ParseForm()
	if err == nil {
		return nil
	}
	kind := errs.Invalid
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		kind = errs.TooLarge
	}
	return errs.E(kind, "form: %w", err)
}
