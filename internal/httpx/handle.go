package httpx

import (
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Handle routes pattern (net/http.ServeMux's syntax) to h, instrumented under the pattern's path. All routes are set
// before Open. It panics on a pattern that conflicts with another: "GET /" does with "/api/", since each matches what the
// other does not; "/" does not.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.mux.Handle(pattern, s.instrument(handlerName(pattern), h))
}

// HandleFunc is Handle for a function.
func (s *Server) HandleFunc(pattern string, h http.HandlerFunc) { s.Handle(pattern, h) }

// handlerName is the path of a pattern: "POST /a/{b}" gives "/a/{b}".
func handlerName(pattern string) string {
	if i := strings.IndexByte(pattern, '/'); i >= 0 {
		return pattern[i:]
	}
	return pattern
}

func (s *Server) instrument(name string, h http.Handler) http.Handler {
	inflight, seconds := s.metrics.inflight.WithLabelValues(name), s.metrics.seconds.WithLabelValues(name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s.running.Add(1)
		inflight.Inc()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			abort := s.recovered(recover(), name, rec, r)
			seconds.Observe(time.Since(start).Seconds())
			s.metrics.requests.WithLabelValues(name, methodName(r.Method), strconv.Itoa(rec.status())).Inc()
			inflight.Dec()
			s.running.Add(-1)
			if abort {
				panic(http.ErrAbortHandler) // net/http drops the connection and logs nothing
			}
		}()
		s.boundBody(w, r)
		h.ServeHTTP(rec, r)
	})
}

// recovered turns a panic into an answer of 500, or, where an answer had begun, reports that the connection must be cut
// so that the client cannot take half an answer for a whole one.
func (s *Server) recovered(v any, name string, rec *recorder, r *http.Request) (abort bool) {
	switch v {
	case nil:
		return false
	case http.ErrAbortHandler:
		return true
	}
	s.metrics.panics.Inc()
	s.log.Error("panic in an HTTP handler", "handler", name, "method", r.Method, "panic", v, "stack", string(debug.Stack()))
	if rec.code != 0 {
		return true
	}
	http.Error(rec, "internal error: the request was abandoned, see the log of the server", http.StatusInternalServerError)
	return false
}

// methodName keeps clients from inventing label values.
func methodName(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	code int // 0 = nothing written yet
}

func (w *recorder) WriteHeader(code int) {
	if w.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Flush is here for handlers that ask for an http.Flusher.
func (w *recorder) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap lets http.ResponseController reach the server's writer.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) status() int {
	if w.code == 0 {
		return http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	return w.code
}

// boundBody puts a deadline on reading the body. It is lifted at the body's end, so that it never ends the work itself.
func (s *Server) boundBody(w http.ResponseWriter, r *http.Request) {
	if s.opts.BodyTimeout <= 0 || r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(s.opts.BodyTimeout)) == nil {
		r.Body = &timedBody{ReadCloser: r.Body, rc: rc}
	}
}

type timedBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && b.rc != nil {
		_ = b.rc.SetReadDeadline(time.Time{})
		b.rc = nil
	}
	return n, err
}
