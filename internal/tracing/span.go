package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
)

// scope names this program as what made a span.
const scope = "github.com/hearth-metrics/hearth"

// Span is a piece of work of a request. The zero Span does nothing.
type Span struct{ span trace.Span }

// Start begins a piece of work below the one of ctx, which may have ended: work goes on after an answer. Where that one is
// not sampled it gives back ctx and the zero Span, and costs a few nanoseconds. The work ends with Span.End.
func Start(ctx context.Context, name string) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.SpanContext().IsSampled() {
		return ctx, Span{}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name)
	return ctx, Span{span}
}

// Recorded reports whether the span is recorded: what a text for it costs is spent only then.
func (s Span) Recorded() bool { return s.span != nil }

// Text adds an attribute.
func (s Span) Text(key, value string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(key, clip(value)))
	}
}

// Number adds an attribute.
func (s Span) Number(key string, value int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int(key, value))
	}
}

// End ends the work. A span that ends with an error says so.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, clip(err.Error()))
	}
	s.span.End()
}

// traceContext is W3C's headers traceparent and tracestate.
var traceContext propagation.TraceContext

// Below is a TracerProvider for libraries that make spans of their own (PromQL's engine, clients of object stores): their
// spans are recorded below one that is recorded, and nowhere else. It keeps nothing, so it serves any number of Tracers.
type Below struct{ embedded.TracerProvider }

// Tracer makes the library's spans.
func (Below) Tracer(name string, options ...trace.TracerOption) trace.Tracer {
	return below{name: name, options: options}
}

type below struct {
	embedded.Tracer
	name    string
	options []trace.TracerOption
}

// Start begins a span below the one of ctx.
func (b below) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.SpanContext().IsSampled() {
		return ctx, noop.Span{}
	}
	return parent.TracerProvider().Tracer(b.name, b.options...).Start(ctx, name, options...)
}
