package tracing

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Observer follows the requests that a process takes and makes.
type Observer struct {
	log    *slog.Logger
	tracer *Tracer  // nil = no spans
	rules  LogRules // of the log's lines
}

// NewObserver follows requests with t's spans, nil for none, and the lines that rules ask for.
func NewObserver(log *slog.Logger, t *Tracer, rules LogRules) *Observer {
	return &Observer{log: log, tracer: t, rules: rules}
}

// start begins the span of a request that comes in. Its parent is what propagation has found in ctx; force samples it.
// The span is nil where there is nothing to record; the context still says so to the processes that are called.
func (o *Observer) start(ctx context.Context, name string, force bool) (context.Context, trace.Span) {
	if o.tracer == nil || o.tracer.tracer == nil {
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

// HTTP makes the requests of a route followed: each has an id, which its answer names, and the span and the lines that
// the configuration asks for. The ResponseWriter that it is given says by Status which status was answered.
func (o *Observer) HTTP(route string, next http.Handler) http.Handler {
	name, quiet := "HTTP "+route, quietRoute(route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &record{id: requestID(r.Header.Get(HeaderRequestID))}
		w.Header().Set(HeaderRequestID, rec.id)
		ctx := context.WithValue(r.Context(), recordKey{}, rec)
		var span trace.Span
		if o.tracer != nil {
			force := r.Header.Get(HeaderForce) != ""
			ctx = traceContext.Extract(ctx, propagation.HeaderCarrier(r.Header))
			if force || !quiet || trace.SpanContextFromContext(ctx).IsSampled() {
				ctx, span = o.start(ctx, name, force)
			}
		}
		wanted := o.rules.ofHTTP(r.URL.Path, localPort(r))
		if span == nil && !wanted.end {
			next.ServeHTTP(w, r.WithContext(ctx)) // nobody wants to know more
			return
		}
		c := call{observer: o, record: rec, span: span, lines: wanted, began: time.Now(), attrs: []any{"protocol", "http",
			"method", r.Method, "path", clip(r.URL.Path), "remote", r.RemoteAddr, "user_agent", clip(r.UserAgent())}}
		if span != nil {
			w.Header().Set(HeaderTraceID, span.SpanContext().TraceID().String())
			span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route),
				attribute.String("url.path", clip(r.URL.Path)), attribute.String("request_id", rec.id))
		}
		c.start(ctx)
		done := false
		defer func() {
			status := http.StatusInternalServerError // of a handler that panics
			if s, ok := w.(interface{ Status() int }); ok && done {
				status = s.Status()
			}
			c.endHTTP(ctx, status)
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
		done = true
	})
}

// quietRoute reports whether requests of a route begin no trace of their own: probes and scrapes come all the time.
func quietRoute(route string) bool {
	return strings.HasPrefix(route, "/-/") || strings.HasPrefix(route, "/debug/") || route == "/metrics"
}

// localPort is the port at which r came in, 0 when it is not known.
func localPort(r *http.Request) uint16 {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return uint16(a.Port)
	}
	return 0
}

// call is a request whose end is of interest.
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

func (c *call) endHTTP(ctx context.Context, status int) {
	failed := status < 200 || status >= 500
	if c.span != nil {
		c.span.SetAttributes(attribute.Int("http.response.status_code", status))
		if failed {
			c.span.SetStatus(codes.Error, http.StatusText(status))
		}
		c.span.End()
	}
	c.finish(ctx, failed, "status", status)
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
