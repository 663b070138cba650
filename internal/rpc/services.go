package rpc

import (
	"context"

	"google.golang.org/grpc"
)

// Full names of the services, as on the wire.
const (
	serviceStore     = "thanos.Store"
	serviceWriteable = "thanos.WriteableStore"
	serviceExemplars = "thanos.Exemplars"
	serviceMetadata  = "thanos.Metadata"
	serviceRules     = "thanos.Rules"
	serviceTargets   = "thanos.Targets"
	serviceStatus    = "thanos.Status"
	serviceInfo      = "thanos.info.Info"
	serviceWriter    = "hearth.Writer"
	serviceServed    = "hearth.Served"
	serviceArrivals  = "hearth.Arrivals"
	serviceRulers    = "hearth.Rulers"
)

// service describes a gRPC service by its methods; file is its .proto, for reflection.
func service(name, file string, methods []grpc.MethodDesc, streams ...grpc.StreamDesc) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: name,
		HandlerType: (*any)(nil),
		Methods:     methods,
		Streams:     streams,
		Metadata:    file,
	}
}

// unaryMethod is a method with one request and one response. The S that the service was registered with handles it.
func unaryMethod[S, Req, Resp any](
	service, name string, call func(S, context.Context, *Req) (*Resp, error),
) grpc.MethodDesc {
	handler := func(
		srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor,
	) (any, error) {
		req := new(Req)
		if err := receive(ctx, func() error { return decode(req) }); err != nil {
			return nil, err
		}
		info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + service + "/" + name}
		return intercept(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			return call(srv.(S), ctx, req.(*Req))
		})
	}
	return grpc.MethodDesc{MethodName: name, Handler: handler}
}

// streamMethod is a method with one request and a stream of responses.
func streamMethod[S, Req any](name string, call func(S, *Req, grpc.ServerStream) error) grpc.StreamDesc {
	handler := func(srv any, ss grpc.ServerStream) error {
		req := new(Req)
		if err := receive(ss.Context(), func() error { return ss.RecvMsg(req) }); err != nil {
			return err
		}
		return call(srv.(S), req, ss)
	}
	return grpc.StreamDesc{StreamName: name, Handler: handler, ServerStreams: true}
}
