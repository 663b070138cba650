package tracing

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// metadata carries W3C's keys in gRPC metadata. get reads the metadata of a call that came in; pairs collects keys for
// a call that goes out.
type metadata struct {
	get   func(key string) []string
	pairs []string
}

// Get is the value of a key, "" without one.
func (m *metadata) Get(key string) string {
	if values := m.get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set adds a key.
func (m *metadata) Set(key, value string) { m.pairs = append(m.pairs, key, value) }

// Keys are the keys of W3C's trace context. The library asks for no others.
func (m *metadata) Keys() []string { return traceContext.Fields() }

// quietServices are services whose calls begin no trace of their own, since other processes call them every few
// seconds.
var quietServices = map[string]bool{
	"thanos.info.Info": true, "hearth.Served": true, "grpc.health.v1.Health": true,
	"grpc.reflection.v1.ServerReflection": true, "grpc.reflection.v1alpha.ServerReflection": true,
	"hearth.Writer": true, // a stream lives for long; the writes on it may have spans (Resume)
}

// Begin follows a call from another process. method is /service/name, and get returns the values of a key of its
// metadata. The caller ends the call with the function returned, with the number and the name of its gRPC code.
func (o *Observer) Begin(ctx context.Context, method string, get func(string) []string) (context.Context,
	func(code uint32, name string, err error)) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	wanted := o.rules.ofGRPC(service, name)
	md := &metadata{get: get}
	given := md.Get(strings.ToLower(HeaderRequestID))
	if o.tracer == nil && !wanted.end && given == "" {
		return ctx, func(uint32, string, error) {}
	}
	rec := &record{id: requestID(given)}
	ctx = context.WithValue(ctx, recordKey{}, rec)
	var span trace.Span
	if o.tracer != nil {
		ctx = traceContext.Extract(ctx, md)
		remote := trace.SpanContextFromContext(ctx)
		forced := md.Get(strings.ToLower(HeaderForce)) != ""
		undecided := !remote.IsValid() || !o.tracer.config.Sampler.follows()
		if forced || remote.IsSampled() || undecided && !quietServices[service] {
			ctx, span = o.start(ctx, "gRPC "+method, forced)
		}
	}
	if span == nil && !wanted.end {
		return ctx, func(uint32, string, error) {}
	}
	if span != nil {
		span.SetAttributes(attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service),
			attribute.String("rpc.method", name), attribute.String("request_id", rec.id))
	}
	c := call{observer: o, record: rec, span: span, lines: wanted, began: time.Now(), attrs: []any{"protocol", "grpc",
		"service", service, "method", name}}
	c.start(ctx)
	return ctx, func(code uint32, codeName string, err error) { c.endGRPC(ctx, code, codeName, err) }
}

func (c *call) endGRPC(ctx context.Context, code uint32, name string, err error) {
	if c.span != nil {
		c.span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(code)))
		if err != nil {
			c.span.SetStatus(codes.Error, clip(err.Error()))
		}
		c.span.End()
	}
	// Unknown, Unimplemented, Internal and DataLoss count as failures, as in Thanos.
	failed := code == 2 || code == 12 || code == 13 || code == 15
	c.finish(ctx, failed, "code", name)
}

// Carry returns the metadata that makes a call to another process a part of ctx's request: a key, its value, the next
// key and so on.
func (o *Observer) Carry(ctx context.Context) []string {
	var md metadata
	if o.tracer != nil {
		traceContext.Inject(ctx, &md)
	}
	if id := RequestID(ctx); id != "" {
		md.Set(strings.ToLower(HeaderRequestID), id)
	}
	return md.pairs
}

// Start begins the span of a call to another process, below the span of ctx if that one is sampled. name is what the
// call does, peer the process that is called. The function returned ends the span.
func (o *Observer) Start(ctx context.Context, name, peer string) (context.Context, func(error)) {
	ctx, span := Start(ctx, name)
	if !span.Recorded() {
		return ctx, endNothing
	}
	span.Text("peer", peer)
	return ctx, span.End
}

func endNothing(error) {}

// stampSize is the size of a stamp without a request id: version, trace id, span id, flags.
const stampSize = 1 + 16 + 8 + 1

// Stamp makes one write on a stream a part of ctx's request. It is nil if the request is not sampled.
// docs/format/rpc.md describes its bytes.
func (o *Observer) Stamp(ctx context.Context) []byte {
	s := trace.SpanContextFromContext(ctx)
	if !s.IsSampled() {
		return nil
	}
	trace, span := s.TraceID(), s.SpanID()
	stamp := append(make([]byte, 0, stampSize+32), 0)
	stamp = append(append(stamp, trace[:]...), span[:]...)
	return append(append(stamp, byte(s.TraceFlags())), RequestID(ctx)...)
}

// Resume follows a write that came on a stream with a stamp. name is what is done. A stamp of an unknown form is
// ignored. The function returned ends the span.
func (o *Observer) Resume(ctx context.Context, stamp []byte, name string) (context.Context, func(error)) {
	if o.tracer == nil || len(stamp) < stampSize || stamp[0] != 0 {
		return ctx, endNothing
	}
	config := trace.SpanContextConfig{Remote: true, TraceFlags: trace.TraceFlags(stamp[25])}
	copy(config.TraceID[:], stamp[1:])
	copy(config.SpanID[:], stamp[17:])
	remote := trace.NewSpanContext(config)
	if !remote.IsValid() || !remote.IsSampled() {
		return ctx, endNothing
	}
	ctx, span := o.start(trace.ContextWithRemoteSpanContext(ctx, remote), name, false)
	if span == nil {
		return ctx, endNothing
	}
	if id := string(stamp[stampSize:]); validID(id) {
		span.SetAttributes(attribute.String("request_id", id))
		ctx = context.WithValue(ctx, recordKey{}, &record{id: id})
	}
	return ctx, Span{span}.End
}
