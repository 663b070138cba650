package httpx

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Probes are the routes /-/healthy and /-/ready. health nil = always ready.
func Probes(health *Health) []Route {
	if health == nil {
		health = &Health{}
	}
	healthy := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") }
	return []Route{
		{Pattern: "GET /-/healthy", Class: Open, Early: true, Handler: HandlerFunc(healthy)},
		{Pattern: "GET /-/ready", Class: Open, Early: true, Handler: HandlerFunc(health.serveReady)},
	}
}

// Metrics is the route /metrics. A user who is no operator sees no series of other users' tenants.
func Metrics(log *slog.Logger, from prometheus.Gatherer) Route {
	opts := promhttp.HandlerOpts{
		ErrorLog:          errorLog{log},
		ErrorHandling:     promhttp.ContinueOnError, // one broken collector must not hide the rest; it is logged
		EnableOpenMetrics: true,
	}
	serve := func(w http.ResponseWriter, r *http.Request) {
		seen := from
		if g := tenant.GrantFrom(r.Context()); !g.Operator() {
			seen = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
				all, err := from.Gather()
				return visible(all, g), err
			})
		}
		promhttp.HandlerFor(seen, opts).ServeHTTP(w, r)
	}
	return Route{Pattern: "GET /metrics", Class: Tenant, Early: true, Handler: HandlerFunc(serve)}
}

// tenantLabel names the tenant in metrics.
const tenantLabel = "tenant"

// visible removes from all what a user may not see. It changes all, which belongs to this one gathering.
func visible(all []*dto.MetricFamily, g *tenant.Grant) []*dto.MetricFamily {
	foreign := func(m *dto.Metric) bool {
		return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
			return l.GetName() == tenantLabel && l.GetValue() != "" && !g.Sees(tenant.ID(l.GetValue()))
		})
	}
	for _, f := range all {
		f.Metric = slices.DeleteFunc(f.Metric, foreign)
	}
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 })
}

// Profiles are the routes below /debug/pprof/. commandLine is what /debug/pprof/cmdline shows, without secrets.
func Profiles(commandLine []string) []Route {
	route := func(pattern string, h http.HandlerFunc) Route {
		return Route{Pattern: pattern, Class: Operator, Early: true, Handler: h}
	}
	return []Route{
		route("/debug/pprof/", pprof.Index),
		route("GET /debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			fmt.Fprint(w, strings.Join(commandLine, "\x00"))
		}),
		route("GET /debug/pprof/profile", pprof.Profile),
		route("/debug/pprof/symbol", pprof.Symbol),
		route("GET /debug/pprof/trace", pprof.Trace),
	}
}

// StatusRoutes are /api/v1/status/{buildinfo,flags,runtimeinfo}, for a role that does not serve Prometheus's whole API
// itself.
func StatusRoutes(s *Status) []Route {
	route := func(name string, c Class, data func() any) Route {
		serve := func(w http.ResponseWriter, _ *http.Request) { WriteData(w, data()) }
		return Route{Pattern: "GET /api/v1/status/" + name, Class: c, Early: true, Handler: HandlerFunc(serve)}
	}
	return []Route{
		route("buildinfo", Tenant, func() any { return s.Build() }),
		route("flags", Operator, func() any { return s.FlagValues }),
		route("runtimeinfo", Operator, func() any { return s.Runtime() }),
	}
}

// errorLog is the log of promhttp.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Println(v ...any) { l.log.Error("gathering metrics", "err", fmt.Sprint(v...)) }
