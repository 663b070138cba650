package httpx

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// A route without a class cannot be added, however it is written.
func TestRouteNeedsClass(t *testing.T) {
	h := http.NotFoundHandler()
	f := func(r Route, ok bool) {
		t.Helper()
		defer func() {
			if p := recover(); (p == nil) != ok {
				t.Errorf("%q of class %s: %v, want allowed=%v", r.Pattern, r.Class, p, ok)
			}
		}()
		New(quiet, nil, testOptions()).Add(r)
	}
	f(Route{Pattern: "/x", Handler: h}, false)
	f(Route{Pattern: "/x", Class: Operator + 1, Handler: h}, false)
	f(Route{Pattern: "/x", Class: Open}, false)
	f(Route{Pattern: "host/x", Class: Open, Handler: h}, false)
	f(Route{Pattern: "", Class: Open, Handler: h}, false)
	f(Route{Pattern: "GET /x", Class: Operator, Handler: h}, true)
}

// Who gets what status of which class, by what is configured.
func TestClasses(t *testing.T) {
	dir := t.TempDir()
	users, web := filepath.Join(dir, "users.yaml"), filepath.Join(dir, "web.yaml")
	write(t, users, `users:
  alice: {tenants: [acme], token_sha256: `+sha256Of("alice")+`}
  reader: {tenants: ["*"], operator: false, token_sha256: `+sha256Of("reader")+`}
  root: {tenants: ["*"], token_sha256: `+sha256Of("root")+`}
  ops: {operator: true, token_sha256: `+sha256Of("ops")+`}
`)
	hash := bcryptOf(t, "wonder")
	write(t, web, "basic_auth_users: {alice: '"+hash+"', guest: '"+hash+"'}\n")
	server := func(o AuthOptions, webConfig bool, clientCA string) *Server {
		t.Helper()
		o.Interval = time.Hour
		opts := testOptions()
		opts.Auth, opts.WebConfig, opts.TLS.ClientCAFile = NewAuth(quiet, nil, o), webConfig, clientCA
		if err := opts.Auth.Reload(); err != nil {
			t.Fatal(err)
		}
		return classes(opts)
	}
	ask := func(s *Server, class Class, authorization string, cert *x509.Certificate) (int, string) {
		r := httptest.NewRequest(http.MethodGet, "/"+class.String(), nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		if cert != nil {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert},
				VerifiedChains: [][]*x509.Certificate{{cert}}}
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	f := func(name string, s *Server, authorization string, cert *x509.Certificate, open, tenant, operator int) {
		t.Helper()
		for class, want := range map[Class]int{Open: open, Tenant: tenant, Operator: operator} {
			if code, body := ask(s, class, authorization, cert); code != want {
				t.Errorf("%s, %q: %s is %d %s, want %d", name, authorization, class, code, body, want)
			}
		}
	}
	tokens := server(AuthOptions{UsersFile: users}, false, "")
	f("users", tokens, "", nil, 200, 401, 401)
	f("users", tokens, "Bearer nobody", nil, 200, 401, 401)
	f("users", tokens, "Bearer alice", nil, 200, 200, 403)
	f("users", tokens, "Bearer reader", nil, 200, 200, 403)
	f("users", tokens, "Bearer root", nil, 200, 200, 200)
	f("users", tokens, "Bearer ops", nil, 200, 200, 200)

	both := server(AuthOptions{UsersFile: users, WebConfigFile: web}, true, "")
	f("users and passwords", both, "", nil, 401, 401, 401)
	f("users and passwords", both, basic("alice", "wonder"), nil, 200, 200, 403)
	f("users and passwords", both, basic("alice", "wrong"), nil, 401, 401, 401)
	f("users and passwords", both, basic("guest", "wonder"), nil, 200, 403, 403)
	f("users and passwords", both, "Bearer ops", nil, 200, 200, 200)
	beside := server(AuthOptions{UsersFile: users, WebConfigFile: web}, false, "")
	f("the other port", beside, "", nil, 200, 401, 401)
	f("the other port", beside, basic("alice", "wonder"), nil, 200, 200, 403)

	passwords := server(AuthOptions{WebConfigFile: web}, true, "")
	f("passwords", passwords, "", nil, 401, 401, 401)
	f("passwords", passwords, "Bearer ops", nil, 401, 401, 401)
	f("passwords", passwords, basic("guest", "wonder"), nil, 200, 200, 200)
	f("passwords, the other port", server(AuthOptions{WebConfigFile: web}, false, ""), "", nil, 200, 200, 200)

	acme := &x509.Certificate{Subject: pkix.Name{CommonName: "*", Organization: []string{"acme"}}}
	f("certificates", server(AuthOptions{}, false, "ca.pem"), "", acme, 200, 200, 200)
	named := server(AuthOptions{CertificateFields: []string{"", "organization"}}, false, "ca.pem")
	f("certificates of tenants", named, "", acme, 200, 200, 403)
	f("a port without certificates", server(AuthOptions{CertificateFields: []string{"organization"}}, false, ""), "", nil,
		200, 200, 200)
	// A certificate is of the tenant that it names, though * means all in the file of users.
	star := server(AuthOptions{CertificateFields: []string{"commonName"}}, false, "ca.pem")
	f("a certificate of *", star, "", acme, 200, 200, 403)
	g := tenant.CertificateGrant(&http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{acme},
		VerifiedChains: [][]*x509.Certificate{{acme}}}}, "commonName")
	if g.Allows("acme") || !g.Allows("*") {
		t.Error("a certificate of the tenant * is one of another tenant")
	}
}

func TestRoutesWait(t *testing.T) {
	started := make(chan struct{})
	opts := testOptions()
	opts.Started = started
	s := New(quiet, nil, opts)
	h := HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	s.Add(Route{Pattern: "/late", Class: Open, Handler: h}, Route{Pattern: "/early", Class: Open, Handler: h, Early: true})
	f := func(path string, want int) {
		t.Helper()
		if w := do(s, "GET", path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	f("/early", 200)
	f("/late", 503)
	close(started)
	f("/late", 200)
}

// Series of a tenant are shown to those who may know of it.
func TestMetricsOfTenants(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "samples_total"}, []string{"tenant"})
	alone := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "only_total"}, []string{"tenant"})
	reg.MustRegister(c, alone, prometheus.NewCounter(prometheus.CounterOpts{Name: "process_things_total"}))
	for _, id := range []string{"acme", "rival", ""} {
		c.WithLabelValues(id).Inc()
	}
	alone.WithLabelValues("rival").Inc()
	route := Metrics(quiet, reg)
	f := func(g *tenant.Grant, want ...string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		if g != nil {
			r = r.WithContext(tenant.WithGrant(r.Context(), g))
		}
		w := httptest.NewRecorder()
		route.Handler.ServeHTTP(w, r)
		var got []string
		for _, line := range strings.Split(w.Body.String(), "\n") {
			if line != "" && !strings.HasPrefix(line, "#") || strings.Contains(line, "only_total") {
				got = append(got, line)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v sees %q, want %q", g, got, want)
		}
	}
	all := []string{`# HELP only_total `, `# TYPE only_total counter`, `only_total{tenant="rival"} 1`,
		`process_things_total 0`, `samples_total{tenant=""} 1`, `samples_total{tenant="acme"} 1`,
		`samples_total{tenant="rival"} 1`}
	f(nil, all...)
	f(tenant.Exactly("alice", "acme"), `process_things_total 0`, `samples_total{tenant=""} 1`,
		`samples_total{tenant="acme"} 1`)
	f(tenant.Stranger, `process_things_total 0`, `samples_total{tenant=""} 1`)
}
