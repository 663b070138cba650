// Package errs is Hearth's error vocabulary: a small set of kinds on which callers act, carried by any wrapped error.
//
// Flow: an error is classified once, where its cause is known (E, Wrap), travels through fmt.Errorf("...: %w", err) and
// over gRPC, and is translated once at the edge by the table in this package (Kind.HTTPStatus, Kind.GRPCCode).
//
// Invariants: KindOf never guesses. An error that nobody classified is Internal, never a success and never the client's
// fault.
package errs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Kind says what a caller can do about an error. The zero Kind is OK: no error.
type Kind uint8

// The kinds, from no error to the unclassified one. Their numbers travel between Hearth processes: append, never
// reorder.
const (
	OK              Kind = iota // no error
	Invalid                     // the request is wrong in itself; sending it again cannot help
	Conflict                    // valid, but contradicts what is stored: out of order, duplicate timestamp, too old
	TooLarge                    // over a size limit of one request
	Limited                     // over a tenant's limit or rate; later or with a raised limit it may pass
	Exhausted                   // this process lacks memory, disk or concurrency at the moment
	Unauthenticated             // the caller did not say who it is
	Forbidden                   // the caller is known, and not allowed to do this
	Unsupported                 // a content type, version or feature this process does not know
	NotFound                    // what was named does not exist
	Unavailable                 // the part that should answer cannot now; try again
	Internal                    // a fault of Hearth, or an unknown one
	numKinds
)

// kindTable is the one translation of kinds. gRPC codes are google.golang.org/grpc/codes numbers.
var kindTable = [numKinds]struct {
	name string
	http int
	grpc uint32
}{
	OK:              {"ok", 200, 0},
	Invalid:         {"invalid", 400, 3},
	Conflict:        {"conflict", 409, 6},
	TooLarge:        {"too large", 413, 11},
	Limited:         {"limited", 429, 8},
	Exhausted:       {"exhausted", 503, 8},
	Unauthenticated: {"unauthenticated", 401, 16},
	Forbidden:       {"forbidden", 403, 7},
	Unsupported:     {"unsupported", 415, 12},
	NotFound:        {"not found", 404, 5},
	Unavailable:     {"unavailable", 503, 14},
	Internal:        {"internal", 500, 13},
}

// String is the kind's word in logs, metrics labels and answers.
func (k Kind) String() string { return k.row().name }

// HTTPStatus is the status code of an HTTP answer that fails with k.
func (k Kind) HTTPStatus() int { return k.row().http }

// GRPCCode is the number of the gRPC status code of an answer that fails with k.
func (k Kind) GRPCCode() uint32 { return k.row().grpc }

// Retryable reports whether the same request may succeed later although nobody changes anything.
func (k Kind) Retryable() bool {
	return k == Limited || k == Exhausted || k == Unavailable || k == Internal
}

func (k Kind) row() struct {
	name string
	http int
	grpc uint32
} {
	if k >= numKinds {
		k = Internal
	}
	return kindTable[k]
}

// FromGRPC is the kind for a gRPC status code of a peer that sent no kind of its own.
func FromGRPC(code uint32) Kind {
	switch code {
	case 0:
		return OK
	case 1, 4, 14: // Canceled, DeadlineExceeded, Unavailable
		return Unavailable
	case 8: // ResourceExhausted: a peer's limit, see the table
		return Limited
	}
	for k := Invalid; k < Internal; k++ {
		if kindTable[k].grpc == code {
			return k
		}
	}
	return Internal
}

// Error is an error with a kind. Text is for people, Kind for programs.
type Error struct {
	Kind Kind
	// RetryAfter, when positive, is how long the caller should wait before it tries again.
	RetryAfter time.Duration
	err        error
}

// Error is the text of the wrapped error.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives errors.Is and errors.As what e wraps.
func (e *Error) Unwrap() error { return e.err }

// E makes an error of kind k; format and args as in fmt.Errorf (with %w).
func E(k Kind, format string, args ...any) error {
	return &Error{Kind: k, err: fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k; nil stays nil. The new kind hides a kind that err already has.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, err: err}
}

// WithRetryAfter adds the time a caller should wait, keeping err's kind.
func WithRetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), RetryAfter: d, err: err}
}

// KindOf is the kind of the outermost classified error in err's chain; nil is OK, a context that ended is Unavailable,
// anything else Internal.
func KindOf(err error) Kind {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// RetrySeconds is RetryAfter in whole seconds. It is rounded up, since a client that comes too early is refused again.
func RetrySeconds(err error) int { return int(math.Ceil(RetryAfter(err).Seconds())) }

// RetryAfter is the wait the error asks for, 0 when it asks for none.
func RetryAfter(err error) time.Duration {
	var e *Error
	for errors.As(err, &e) {
		if e.RetryAfter > 0 {
			return e.RetryAfter
		}
		err = e.err
	}
	return 0
}
