package httpx

import (
	"context"
	"net/http"

	"github.com/hearth-metrics/hearth/internal/tracing"
)

// observe is h with an observer of its requests, if the options have one.
func (s *Server) observe(route string, h http.Handler) http.Handler {
	if s.opts.Observer == nil {
		return h
	}
	return s.opts.Observer.HTTP(route, h)
}

// NoteTenant adds the tenants of ctx's request to its line in the log and its span.
func NoteTenant(ctx context.Context, names string) { tracing.Note(ctx, tracing.NoteTenant, names) }

// NoteQuery adds the query of ctx's request to its line in the log and its span. Of a long text only the beginning is
// kept.
func NoteQuery(ctx context.Context, text string) { tracing.Note(ctx, tracing.NoteQuery, text) }
