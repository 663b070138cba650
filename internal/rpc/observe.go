package rpc

import (
	"context"

	"google.golang.org/grpc"
	grpcmd "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// ServerObserver follows the calls that a Server receives (internal/tracing). It is safe for concurrent use.
type ServerObserver interface {
	// Begin is called when a call begins; get returns the values of a key of the call's metadata. The call uses the
	// returned context. When it ends, the returned function is called with the number and the name of the gRPC code.
	Begin(ctx context.Context, method string, get func(key string) []string) (context.Context,
		func(code uint32, name string, err error))
	// Resume is called when a write begins that came on a stream with a stamp; name says what the write does. The returned
	// function is called when the write ends.
	Resume(ctx context.Context, stamp []byte, name string) (context.Context, func(error))
}

// ClientObserver ties the calls of a Client to the requests that they belong to. It is safe for concurrent use.
type ClientObserver interface {
	// Carry returns the metadata to send with a call for ctx's request: keys and values by turns, keys in lower case.
	Carry(ctx context.Context) []string
	// Stamp returns the stamp to send with a write on a stream for ctx's request; nil = none, since the request is not
	// sampled.
	Stamp(ctx context.Context) []byte
	// Start is called when a call begins; name says what the call does, and peer is the address that it goes to. The call
	// uses the returned context, and the returned function is called when it ends.
	Start(ctx context.Context, name, peer string) (context.Context, func(error))
}

// start tells the observer, if there is one, that a call begins.
func (c *Client) start(ctx context.Context, name string) (context.Context, func(error)) {
	if c.opts.Observer == nil {
		return ctx, func(error) {}
	}
	return c.opts.Observer.Start(ctx, name, c.addr)
}

// follow tells the observer, if there is one, that a call begins.
func (s *Server) follow(ctx context.Context, method string) (context.Context, func(error)) {
	if s.opts.Observer == nil {
		return ctx, func(error) {}
	}
	md, _ := grpcmd.FromIncomingContext(ctx)
	ctx, end := s.opts.Observer.Begin(ctx, method, md.Get)
	return ctx, func(err error) {
		code := status.Code(err)
		end(uint32(code), code.String(), err)
	}
}

// followedStream is a stream with the observer's context.
type followedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the observer's context.
func (s *followedStream) Context() context.Context { return s.ctx }

// tagStamp is the tag of the field stamp of WriteFrame.
const tagStamp = 4<<3 | 2

// maxStamps bounds the stamps that are sent with one frame, and those that are read of it. More writes may share a
// frame; the others have no span on the member.
const maxStamps = 16

// appendStamps appends the stamps of the calls that share a frame. Calls that are not sampled have none, so that nearly
// all frames have none.
func appendStamps(head []byte, calls []*writeCall) []byte {
	left := maxStamps
	for _, call := range calls {
		if len(call.stamp) > 0 && left > 0 {
			left--
			head = protowire.AppendBytes(append(head, tagStamp), call.stamp)
		}
	}
	return head
}

// writeFollowed stores the frame's batch and tells the observer about each stamp. The write uses the context of the
// first one.
func (in *inbound) writeFollowed(f *writeFrame) ([]wire.Failure, error) {
	ctx := in.ctx
	ends := make([]func(error), len(f.stamps))
	for i, stamp := range f.stamps {
		each, end := in.server.opts.Observer.Resume(in.ctx, stamp, "receive write")
		if ends[i] = end; i == 0 {
			ctx = each
		}
	}
	failures, err := in.write(ctx, f.batch)
	for _, end := range ends {
		end(err)
	}
	return failures, err
}
