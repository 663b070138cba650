package rpc

import (
	"context"

	"google.golang.org/grpc"
	grpcmd "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// ServerObserver follows the calls that a Server takes (internal/tracing). It is safe for concurrent use.
type ServerObserver interface {
	// Begin is called for each call; get gives the values of a key of its metadata. The call goes on with the context, and
	// the function is called at its end with the number and the name of the gRPC code.
	Begin(ctx context.Context, method string, get func(key string) []string) (context.Context,
		func(code uint32, name string, err error))
	// Resume is called for a write on a stream that came with a stamp; name is what is done with it. The function is called
	// at its end.
	Resume(ctx context.Context, stamp []byte, name string) (context.Context, func(error))
}

// ClientObserver makes the calls of a Client parts of the requests that they are for. It is safe for concurrent use.
type ClientObserver interface {
	// Carry is the metadata to send with a call for ctx's request: a key and its value in turn, keys in lower case.
	Carry(ctx context.Context) []string
	// Stamp is what a write on a stream for ctx's request is sent with; nil = nothing, as for all that are not sampled.
	Stamp(ctx context.Context) []byte
	// Start is called where the work on a call begins: name is what is done, peer the address of who is asked. The call is
	// made with the context, and the function is called at its end.
	Start(ctx context.Context, name, peer string) (context.Context, func(error))
}

// start begins the work on a call, if somebody follows requests.
func (c *Client) start(ctx context.Context, name string) (context.Context, func(error)) {
	if c.opts.Observer == nil {
		return ctx, func(error) {}
	}
	return c.opts.Observer.Start(ctx, name, c.addr)
}

// follow follows a call, if somebody follows calls.
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

// followedStream is a stream whose call is followed.
type followedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is the one to work with.
func (s *followedStream) Context() context.Context { return s.ctx }

// tagStamp is the field stamp of WriteFrame.
const tagStamp = 4<<3 | 2

// maxStamps bounds the stamps that are read of one frame: more writes may share a frame, and go without.
const maxStamps = 16

// appendStamps appends the stamps of the calls that share a frame. Calls that are not sampled have none, so that nearly all
// frames are as they were.
func appendStamps(head []byte, calls []*writeCall) []byte {
	for _, call := range calls {
		if len(call.stamp) > 0 {
			head = protowire.AppendBytes(append(head, tagStamp), call.stamp)
		}
	}
	return head
}

// writeFollowed stores the frame's batch. The requests of its stamps are followed; the first one's context goes with the write.
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
