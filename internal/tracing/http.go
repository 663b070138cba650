package tracing

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// HTTP follows the requests of a route. Each request has an id, which its answer carries in a header, and the span and
// the lines in the log that the configuration asks for. The ResponseWriter must have a method Status, which returns the
// status of the answer.
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
			next.ServeHTTP(w, r.WithContext(ctx)) // neither a span nor a line
			return
		}
		c := call{observer: o, record: rec, span: span, lines: wanted, began: time.Now(), attrs: []any{
			"protocol", "http", "method", r.Method, "path", clip(r.URL.Path),
			"remote", r.RemoteAddr, "user_agent", clip(r.UserAgent()),
		}}
		if span != nil {
			w.Header().Set(HeaderTraceID, span.SpanContext().TraceID().String())
			span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route),
				attribute.String("url.path", clip(r.URL.Path)), attribute.String("request_id", rec.id))
		}
		c.start(ctx)
		done := false
		defer func() {
			status := http.StatusInternalServerError // for a handler that panics
			if s, ok := w.(interface{ Status() int }); ok && done {
				status = s.Status()
			}
			c.endHTTP(ctx, status)
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
		done = true
	})
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

// quietRoute reports whether requests of a route begin no trace of their own. Probes and scrapes come every few
// seconds.
func quietRoute(route string) bool {
	return strings.HasPrefix(route, "/-/") || strings.HasPrefix(route, "/debug/") || route == "/metrics"
}

// localPort is the port at which r came in, 0 if it is not known.
func localPort(r *http.Request) uint16 {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return uint16(a.Port)
	}
	return 0
}

// Inject adds to h what makes an HTTP request to another process a part of ctx's request.
func Inject(ctx context.Context, h http.Header) {
	traceContext.Inject(ctx, propagation.HeaderCarrier(h))
	if r := recordOf(ctx); r != nil {
		h.Set(HeaderRequestID, r.id)
	}
}
