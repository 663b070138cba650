package rpc

import (
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
)

// toStatus makes the gRPC status of err: the code of its kind, and the kind itself as a detail. An error that is a gRPC
// status already (of the gRPC library) stays as it is.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	var classified *errs.Error
	if s, ok := status.FromError(err); ok && !errors.As(err, &classified) {
		return s.Err()
	}
	e := toError(err)
	s := status.New(codes.Code(errs.Kind(e.Kind).GRPCCode()), e.Text)
	if detailed, derr := s.WithDetails(e); derr == nil {
		s = detailed
	}
	return s.Err()
}

// toError makes a message of err.
func toError(err error) *hearthpb.Error {
	kind := errs.KindOf(err)
	if kind == errs.OK { // an error must not become a success on the wire
		kind = errs.Internal
	}
	e := &hearthpb.Error{Kind: uint32(kind), Text: err.Error(), RetryAfterMs: errs.RetryAfter(err).Milliseconds()}
	var v *versionError
	if errors.As(err, &v) {
		e.Versions = v.supported
	}
	return e
}

// fromStatus makes an error with a kind of err, which gRPC returned for a call. The kind is the one that the peer
// sent, or else that of the status code. The end of a stream, io.EOF, is an error here. Callers that expect it test
// for it first.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errs.E(errs.Unavailable, "the stream ended")
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, d := range s.Details() {
		if e, ok := d.(*hearthpb.Error); ok {
			return fromError(e)
		}
	}
	return errs.E(errs.FromGRPC(uint32(s.Code())), "%s (%s)", plainMessage(s.Message()), s.Code())
}

// fromError makes an error of the message that a peer sent. A kind that this process does not know becomes Internal.
func fromError(e *hearthpb.Error) error {
	kind := errs.Kind(e.Kind)
	if e.Kind == uint32(errs.OK) || e.Kind > uint32(errs.Internal) {
		kind = errs.Internal
	}
	err := errs.E(kind, "%s", e.Text)
	if len(e.Versions) > 0 {
		err = errs.Wrap(kind, &versionError{text: e.Text, supported: e.Versions})
	}
	if e.RetryAfterMs > 0 {
		err = errs.WithRetryAfter(err, time.Duration(e.RetryAfterMs)*time.Millisecond)
	}
	return err
}

// versionError refuses a version of the write format and names the versions that are supported.
type versionError struct {
	text      string
	supported []uint32
}

func (e *versionError) Error() string { return e.text }

func refuseVersion(asked uint32, supported ...uint32) error {
	return errs.Wrap(errs.Unsupported, &versionError{
		text: fmt.Sprintf("write format version %d is not known here; supported: %v", asked, supported), supported: supported,
	})
}
