package httpx

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Endpoints is what the endpoints that every role has answer from.
type Endpoints struct {
	// Health answers /-/ready; nil = always ready.
	Health *Health
	// Gatherer answers /metrics; nil = no such route.
	Gatherer prometheus.Gatherer
	// Status answers /api/v1/status/{buildinfo,flags,runtimeinfo}; nil = no such routes, for a role that serves
	// Prometheus's whole API itself.
	Status *Status
}

// Mount routes /-/healthy, /-/ready, /metrics, /debug/pprof/ and the status routes.
func (s *Server) Mount(e Endpoints) {
	if e.Health == nil {
		e.Health = &Health{}
	}
	s.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	s.HandleFunc("GET /-/ready", e.Health.serveReady)
	if e.Gatherer != nil {
		s.Handle("GET /metrics", promhttp.HandlerFor(e.Gatherer, promhttp.HandlerOpts{
			ErrorLog:          errorLog{s},
			ErrorHandling:     promhttp.ContinueOnError, // one broken collector must not hide the rest; it is logged
			EnableOpenMetrics: true,
		}))
	}
	s.HandleFunc("/debug/pprof/", pprof.Index)
	s.HandleFunc("GET /debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, strings.Join(redactArgs(os.Args), "\x00"))
	})
	s.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	s.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if e.Status != nil {
		s.HandleFunc("GET /api/v1/status/buildinfo", func(w http.ResponseWriter, _ *http.Request) { WriteData(w, e.Status.Build()) })
		s.HandleFunc("GET /api/v1/status/flags", func(w http.ResponseWriter, _ *http.Request) { WriteData(w, e.Status.Flags()) })
		s.HandleFunc("GET /api/v1/status/runtimeinfo", func(w http.ResponseWriter, _ *http.Request) { WriteData(w, e.Status.Runtime()) })
	}
}

// redactArgs is a command line as it may be shown: --name=value and --name value alike.
func redactArgs(args []string) []string {
	out := make([]string, len(args))
	before := "" // a flag whose value may come next
	for i, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case !strings.HasPrefix(arg, "-"):
			out[i] = Redact(strings.TrimLeft(before, "-"), arg)
			before = ""
		case ok:
			out[i] = name + "=" + Redact(strings.TrimLeft(name, "-"), value)
			before = ""
		default:
			out[i], before = arg, arg
		}
	}
	return out
}

// errorLog gives promhttp a log.
type errorLog struct{ s *Server }

func (l errorLog) Println(v ...any) { l.s.log.Error("gathering metrics", "err", fmt.Sprint(v...)) }
