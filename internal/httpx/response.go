package httpx

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// defaultRetrySeconds is sent with 429 and 503 when the error names no time. It is short, since a full queue drains
// fast.
const defaultRetrySeconds = 1

// envelope is the form of all answers of Prometheus's HTTP API.
type envelope struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// WriteData answers 200 with data and warnings in Prometheus's envelope.
func WriteData(w http.ResponseWriter, data any, warnings ...string) {
	writeJSON(w, http.StatusOK, envelope{Status: "success", Data: data, Warnings: warnings})
}

// WriteErrorType answers with status and the text of err in Prometheus's envelope. Clients decide by errorType what to
// do about the error.
func WriteErrorType(w http.ResponseWriter, status int, errorType string, err error) {
	writeJSON(w, status, envelope{Status: "error", ErrorType: errorType, Error: err.Error()})
}

// WriteError answers with err's status and text. 429 and 503 carry Retry-After. The body is Prometheus's JSON error for
// clients that accept JSON and for /api/ routes. It is text for all others, also for senders of remote write.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	kind := errs.KindOf(err)
	WriteStatus(w, r, kind.HTTPStatus(), err)
}

// WriteStatus is WriteError for a handler whose protocol needs another status than err's kind has. One version of
// remote write, for example, needs 409 where the other one needs 400.
func WriteStatus(w http.ResponseWriter, r *http.Request, status int, err error) {
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(max(errs.RetrySeconds(err), defaultRetrySeconds)))
	}
	if wantsJSON(r) {
		WriteErrorType(w, status, errorType(errs.KindOf(err)), err)
		return
	}
	http.Error(w, err.Error(), status)
}

func wantsJSON(r *http.Request) bool {
	switch {
	case strings.Contains(r.Header.Get("Accept"), "application/json"):
		return true
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-protobuf"):
		return false
	}
	return strings.Contains(r.URL.Path, "/api/")
}

// errorType is the word of Prometheus's API for errors of kind k.
func errorType(k errs.Kind) string {
	switch k {
	case errs.Invalid, errs.Conflict, errs.TooLarge, errs.Unsupported:
		return "bad_data"
	case errs.Unauthenticated:
		return "unauthorized"
	case errs.Forbidden:
		return "forbidden"
	case errs.NotFound:
		return "not_found"
	case errs.Limited, errs.Exhausted, errs.Unavailable:
		return "unavailable"
	}
	return "internal"
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}
