package httpx

import (
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxHeaderLines bounds the memory of a header, since a line of a few bytes takes more than a hundred bytes. Clients
// send fewer lines than this.
const maxHeaderLines = 200

// ServeHTTP answers a request within the bounds that hold for every route: the lines of its header, the time in which
// its body must come, and the time in which its client must take the answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := newRecorder(w, r, s.opts.AnswerTimeout)
	defer rec.end()
	if headerLines(r.Header) > maxHeaderLines {
		s.metrics.cutOff.WithLabelValues("header").Inc()
		r.Header = http.Header{} // frees it now: the request stays in memory until the client has taken the answer
		rec.Header().Set("Connection", "close")
		http.Error(rec, "too many header lines", http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	if s.opts.WebConfig {
		c := s.opts.Auth.webConfig() // not nil: Open has checked that
		if c.limiter != nil && !c.limiter.Allow() {
			WriteError(rec, r, errs.E(errs.Limited, "over the rate limit of the web configuration"))
			return
		}
		for name, value := range c.file.HTTPConfig.Header {
			rec.Header().Set(name, value)
		}
	}
	s.boundBody(rec, r)
	s.mux.ServeHTTP(rec, r)
	if rec.late {
		s.metrics.cutOff.WithLabelValues("answer").Inc()
	}
}

func headerLines(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// instrument counts and times the requests of a route, and keeps a panic of its handler to that request.
func (s *Server) instrument(name string, h http.Handler) http.Handler {
	inflight, seconds := s.metrics.inflight.WithLabelValues(name), s.metrics.seconds.WithLabelValues(name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s.running.Add(1)
		inflight.Inc()
		rec, ok := w.(*recorder)
		if !ok {
			rec = newRecorder(w, r, 0)
		}
		defer func() {
			abort := s.recovered(recover(), name, rec, r)
			seconds.Observe(time.Since(start).Seconds())
			s.metrics.requests.WithLabelValues(name, methodName(r.Method), strconv.Itoa(rec.Status())).Inc()
			inflight.Dec()
			s.running.Add(-1)
			if abort {
				panic(http.ErrAbortHandler) // net/http drops the connection and logs nothing
			}
		}()
		h.ServeHTTP(rec, r)
	})
}

// recovered turns a panic into an answer of 500. If an answer had begun, it reports that the connection must be cut
// instead: the client could take half an answer for a whole one.
func (s *Server) recovered(v any, name string, rec *recorder, r *http.Request) (abort bool) {
	switch v {
	case nil:
		return false
	case http.ErrAbortHandler:
		return true
	}
	s.metrics.panics.Inc()
	s.log.Error("panic in an HTTP handler", "handler", name, "method", r.Method, "panic", v,
		"stack", string(debug.Stack()))
	if rec.code != 0 {
		return true
	}
	http.Error(rec, "internal error: the request was abandoned, see the log of the server", http.StatusInternalServerError)
	return false
}

// methodName is m as a label value. Other methods share one value, since clients may invent any number of them.
func methodName(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}
