package httpx

import (
	"net/http"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// ReadChange reads the form of a request by which an operator changes something; most bounds it, in bytes. The error is
// Forbidden where refuse says that the process takes none (--disable-admin-operations), and where a page of another
// server makes the browser of an operator send it.
func ReadChange(w http.ResponseWriter, r *http.Request, refuse bool, most int64) error {
	if refuse {
		return errs.E(errs.Forbidden, "this process takes no changes from operators (--disable-admin-operations)")
	}
	if err := SameOrigin(r); err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, most)
	return errs.Wrap(errs.Invalid, r.ParseForm())
}
