package httpx

import (
	"net/http"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// SameOrigin is the error, of kind Forbidden, of a request that a page of another server made a browser send. What
// changes something asks for it: the browser adds the credentials that it has for this server.
func SameOrigin(r *http.Request) error {
	return errs.Wrap(errs.Forbidden, http.NewCrossOriginProtection().Check(r))
}
