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

// scope is the name of this program in its spans.
const scope = "github.com/hearth-metrics/hearth"

// Span is a part of the work for a request. The zero Span does nothing.
type Span struct{ span trace.Span }

// Start begins a span below the span of ctx. That one may have ended, since some work goes on after the answer. If it
// is not sampled, Start returns ctx and the zero Span, and costs a few nanoseconds. The caller ends the span with
// Span.End.
func Start(ctx context.Context, name string) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.SpanContext().IsSampled() {
		return ctx, Span{}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name)
	return ctx, Span{span}
}

// Recorded reports whether the span is recorded. If not, the caller need not make texts for it.
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

// End ends the span. With an error, the span has the status error and the beginning of its text.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, clip(err.Error()))
	}
	s.span.End()
}

// traceContext reads and writes W3C's headers traceparent and tracestate.
var traceContext propagation.TraceContext

// Below is a TracerProvider for libraries that make spans of their own, such as PromQL's engine and clients of object
// stores. Their spans are recorded only below a span that is recorded: a library never begins a trace. Below has no
// state, so it serves any number of Tracers.
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
