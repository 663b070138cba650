package httpx

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Class says which users may use a route, where there are users. The zero Class is invalid: a route must have a class.
type Class uint8

const (
	// Open routes are for every client that reaches the port. What they show of tenants depends on the sender
	// (tenant.GrantFrom).
	Open Class = iota + 1
	// Tenant routes are for known users. They concern the tenants that the request names, which must be tenants of the
	// user, and show nothing of other tenants.
	Tenant
	// Operator routes concern the process or all tenants, and are for users who are operators (tenant.Grant.Operator).
	Operator
)

// String is the class's name.
func (c Class) String() string {
	switch c {
	case Open:
		return "open"
	case Tenant:
		return "tenant"
	case Operator:
		return "operator"
	}
	return "none"
}

// Route is something that a Server serves.
type Route struct {
	// Pattern is in net/http.ServeMux's syntax, without a host. Its path is the label handler in metrics. A pattern that
	// ends in / covers all paths below it, so all of them must be of one class.
	Pattern string
	// Class says which users may use it.
	Class Class
	// Handler answers. The sender's grant is in the context of its requests.
	Handler http.Handler
	// Early routes answer while the process is starting (Options.Started); others answer 503 until then.
	Early bool
}

// HandlerFunc makes a Route's Handler from a function.
type HandlerFunc = http.HandlerFunc

// Add adds routes, before Open. It panics on a route without a class or a handler, and on a pattern that conflicts with
// another. "GET /" conflicts with "/api/", since each matches requests that the other does not match; "/" does not.
func (s *Server) Add(routes ...Route) {
	for _, r := range routes {
		path := routePath(r.Pattern)
		if r.Class < Open || r.Class > Operator || r.Handler == nil || path == "" {
			panic(fmt.Sprintf("route %q of class %s: a route needs a path, a class and a handler", r.Pattern, r.Class))
		}
		s.mux.Handle(r.Pattern, s.instrument(path, s.observe(path, s.guard(r))))
		s.routes = append(s.routes, r)
	}
}

// Routes are all routes, in the order in which they were added.
func (s *Server) Routes() []Route { return s.routes }

// routePath is the path of a pattern: "POST /a/{b}" gives "/a/{b}"; "" for a pattern of another form.
func routePath(pattern string) string {
	path := pattern
	if method, rest, ok := strings.Cut(pattern, " "); ok && !strings.Contains(method, "/") {
		path = strings.TrimLeft(rest, " ")
	}
	if !strings.HasPrefix(path, "/") {
		return ""
	}
	return path
}

// guard passes a request to the route's handler if its sender may use the route. No other place decides that.
func (s *Server) guard(route Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, err := s.opts.Auth.admit(r, route.Class, s.lock)
		if err != nil {
			if errs.KindOf(err) == errs.Unauthenticated {
				w.Header()["Www-Authenticate"] = []string{`Basic realm="hearth"`, `Bearer realm="hearth"`}
			}
			WriteError(w, r, err)
			return
		}
		if !route.Early && !s.started() {
			WriteError(w, r, errs.E(errs.Unavailable, "hearth is starting"))
			return
		}
		if g != nil {
			r = r.WithContext(tenant.WithGrant(r.Context(), g))
		}
		route.Handler.ServeHTTP(w, r)
	})
}

func (s *Server) started() bool {
	if s.opts.Started == nil {
		return true
	}
	select {
	case <-s.opts.Started:
		return true
	default:
		return false
	}
}
