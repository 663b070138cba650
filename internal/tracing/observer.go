package tracing

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Observer follows the requests that a process gets, and the calls that it makes for them. It is safe for concurrent
// use.
type Observer struct {
	log    *slog.Logger
	tracer *Tracer  // nil = no spans
	rules  LogRules // of the log's lines
}

// NewObserver makes an Observer. t makes the spans; nil = there are none. rules decide which requests have lines in the
// log.
func NewObserver(log *slog.Logger, t *Tracer, rules LogRules) *Observer {
	return &Observer{log: log, tracer: t, rules: rules}
}

// start begins the span of a request that comes in. Its parent is the span that propagation has put into ctx. With
// force it is sampled in any case. The span is nil if the request is not sampled. The context says so to other
// processes that are called.
func (o *Observer) start(ctx context.Context, name string, force bool) (context.Context, trace.Span) {
	if o.tracer.tracer == nil { // it is not open
		return ctx, nil
	}
	if force {
		ctx = withForce(ctx)
	}
	ctx, span := o.tracer.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	if !span.IsRecording() {
		span = nil
	}
	return ctx, span
}

// call is a request that has a span or lines in the log.
type call struct {
	observer *Observer
	record   *record
	span     trace.Span // nil = none
	lines    lines
	began    time.Time
	attrs    []any // of its lines
}

func (c *call) start(ctx context.Context) {
	if c.lines.end {
		c.record.mu.Lock()
		c.record.notes = map[string]string{}
		c.record.mu.Unlock()
	}
	c.attrs = append(c.attrs, "request_id", c.record.id)
	if s := trace.SpanContextFromContext(ctx); s.IsSampled() {
		c.attrs = append(c.attrs, "trace_id", s.TraceID().String())
	}
	if c.lines.start && c.lines.least <= slog.LevelDebug {
		c.observer.log.DebugContext(ctx, "request started", c.attrs...)
	}
}

// finish writes the line of a request that has ended.
func (c *call) finish(ctx context.Context, failed bool, more ...any) {
	level := slog.LevelDebug
	if failed {
		level = slog.LevelError
	}
	if !c.lines.end || level < c.lines.least {
		return
	}
	attrs := append(c.attrs, more...)
	for _, key := range []string{NoteTenant, NoteQuery} {
		if note := c.record.noted(key); note != "" {
			attrs = append(attrs, key, note)
		}
	}
	c.observer.log.Log(ctx, level, "request ended", append(attrs, "took", time.Since(c.began))...)
}
