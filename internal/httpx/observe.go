package httpx

import "net/http"

// Observer follows the requests of a Server (internal/tracing).
type Observer interface {
	// HTTP is next, with the requests of a route followed. The ResponseWriter that the result is given has a method Status.
	HTTP(route string, next http.Handler) http.Handler
}

// observe is h with its requests followed, if somebody follows them.
func (s *Server) observe(route string, h http.Handler) http.Handler {
	if s.opts.Observer == nil {
		return h
	}
	return s.opts.Observer.HTTP(route, h)
}

// Status is the status of the answer so far.
func (w *recorder) Status() int { return w.status() }
