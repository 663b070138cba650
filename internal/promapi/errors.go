package promapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// Types of errors of Prometheus's API, which its clients know.
const (
	BadData     = "bad_data"
	Canceled    = "canceled"
	Execution   = "execution"
	Internal    = "internal"
	NotFound    = "not_found"
	Timeout     = "timeout"
	Unavailable = "unavailable"
)

// ErrorType is the type of err in an answer: by the end of a context, or else by the kind of err.
func ErrorType(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	switch errs.KindOf(err) {
	case errs.Invalid, errs.Conflict, errs.Unauthenticated, errs.Forbidden:
		return BadData
	case errs.TooLarge, errs.Limited, errs.Unsupported:
		return Execution
	case errs.NotFound:
		return NotFound
	case errs.Exhausted, errs.Unavailable:
		return Unavailable
	}
	return Internal
}

// Status is the status code of an error with a kind. It is false for an error without a kind, or of kind Internal: then
// the API chooses the status. A query that asks for too much is 422 and not 413 or 429, since it fails again when it is
// sent again.
func Status(err error) (int, bool) {
	var e *errs.Error
	if !errors.As(err, &e) {
		return 0, false
	}
	switch e.Kind {
	case errs.Limited, errs.TooLarge, errs.Unsupported:
		return http.StatusUnprocessableEntity, true
	case errs.Internal, errs.OK:
		return 0, false
	}
	return e.Kind.HTTPStatus(), true
}

// WriteError answers with err. The answer has Retry-After if err says when to try again.
func WriteError(w http.ResponseWriter, err error) {
	status, ok := Status(err)
	if !ok {
		status = errs.KindOf(err).HTTPStatus()
	}
	SetRetryAfter(w, err)
	httpx.WriteErrorType(w, status, ErrorType(err), err)
}

// SetRetryAfter sets the header Retry-After, in seconds, if err says when to try again.
func SetRetryAfter(w http.ResponseWriter, err error) {
	if n := errs.RetrySeconds(err); n > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(n))
	}
}
