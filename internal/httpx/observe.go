package httpx

import (
	"context"
	"net/http"

	"github.com/hearth-metrics/hearth/internal/tracing"
)

// observe is h with its requests followed, if the options say so.
func (s *Server) observe(route string, h http.Handler) http.Handler {
	if s.opts.Observer == nil {
		return h
	}
	return s.opts.Observer.HTTP(route, h)
}

// Status is the status of the answer so far, for the observer.
func (w *recorder) Status() int { return w.status() }

// NoteTenant says whose ctx's request is, for its line in the log and its span.
func NoteTenant(ctx context.Context, names string) { tracing.Note(ctx, tracing.NoteTenant, names) }

// NoteQuery says what ctx's request asks for, for its line in the log and its span. Of a long text the beginning is kept.
func NoteQuery(ctx context.Context, text string) { tracing.Note(ctx, tracing.NoteQuery, text) }
