package httpx

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func bcryptOf(t *testing.T, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func sha256Of(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

type authTest struct {
	*Auth
	t                *testing.T
	users, passwords string
	log              bytes.Buffer
}

func newAuthTest(t *testing.T, users, passwords string) *authTest {
	t.Helper()
	dir := t.TempDir()
	a := &authTest{t: t, users: filepath.Join(dir, "users.yaml"), passwords: filepath.Join(dir, "web.yaml")}
	write(t, a.users, users)
	write(t, a.passwords, passwords)
	a.Auth = NewAuth(slog.New(slog.NewTextHandler(&a.log, nil)), nil,
		AuthOptions{UsersFile: a.users, WebConfigFile: a.passwords, Interval: time.Hour})
	if err := a.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// server is one with a route of each class, at its name, that tells the user's name.
func (a *authTest) server() *Server {
	opts := testOptions()
	opts.Auth = a.Auth
	return classes(opts)
}

func classes(opts Options) *Server {
	s := New(quiet, nil, opts)
	for _, c := range []Class{Open, Tenant, Operator} {
		s.Add(Route{Pattern: "/" + c.String(), Class: c, Handler: HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if g := tenant.GrantFrom(r.Context()); g != nil {
				fmt.Fprint(w, g.User)
			}
		})})
	}
	return s
}

// ask sends a request with an Authorization header to a route of a class.
func (a *authTest) ask(class Class, authorization ...string) (int, string) {
	req := httptest.NewRequest(http.MethodGet, "/"+class.String(), nil)
	req.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	a.server().ServeHTTP(w, req)
	if (w.Code == http.StatusUnauthorized) != (w.Header().Get("WWW-Authenticate") != "") {
		a.t.Errorf("%d with WWW-Authenticate %q", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	return w.Code, strings.TrimSpace(w.Body.String())
}

func basic(user, password string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

func TestAuth(t *testing.T) {
	a := newAuthTest(t,
		"users:\n  alice: {tenants: [acme]}\n  robot: {tenants: ['*'], token_sha256: "+sha256Of("tok3n")+"}\n",
		"basic_auth_users:\n  alice: "+bcryptOf(t, "wonder")+"\n  guest: "+bcryptOf(t, "guest")+"\n")
	f := func(status int, body string, authorization ...string) {
		t.Helper()
		for range 2 { // the second time from memory
			if code, got := a.ask(
				Tenant,
				authorization...); code != status || status == 200 && got != body ||
				!strings.Contains(got, body) {
				t.Errorf("%q: %d %q, want %d %q", authorization, code, got, status, body)
			}
		}
	}
	f(200, "alice", basic("alice", "wonder"))
	f(200, "robot", "Bearer tok3n")
	f(200, "robot", "bearer  tok3n ")
	f(401, "wrong", basic("alice", "wonder2"))
	f(401, "wrong", basic("alice", ""))
	f(401, "wrong", basic("robot", "tok3n"))
	f(401, "wrong", basic("mallory", "wonder"))
	f(401, "wrong", basic("mallory", "fakepassword"))
	f(403, `"guest"`, basic("guest", "guest"))
	f(401, "not known", "Bearer wonder")
	f(401, "not known", "Bearer")
	f(401, "needed")
	f(401, "needed", "Digest x")
	f(401, "needed", basic("alice", "wonder"), "Bearer tok3n")

	if code, _ := a.ask(Operator, "Bearer tok3n"); code != 200 {
		t.Errorf("an operator: %d", code)
	}
	if code, _ := a.ask(Operator, basic("alice", "wonder")); code != 403 {
		t.Errorf("alice as an operator: %d", code)
	}
	if code, _ := a.ask(Operator); code != 401 {
		t.Errorf("nobody as an operator: %d", code)
	}
	for _, secret := range []string{"tok3n", "wonder", sha256Of("tok3n")} {
		if strings.Contains(a.log.String(), secret) {
			t.Errorf("the log shows %s: %s", secret, a.log.String())
		}
	}
}

func TestAuthReload(t *testing.T) {
	a := newAuthTest(t, "users: {alice: {tenants: [acme]}}", "basic_auth_users: {alice: '"+bcryptOf(t, "old")+"'}")
	check := func(password string, want int) {
		t.Helper()
		if code, body := a.ask(Tenant, basic("alice", password)); code != want {
			t.Fatalf("%s: %d %s, want %d", password, code, body, want)
		}
	}
	check("old", 200)
	write(t, a.passwords, "basic_auth_users: {alice: '"+bcryptOf(t, "new")+"'}")
	if err := a.Reload(); err != nil {
		t.Fatal(err)
	}
	check("old", 401)
	check("new", 200)
	write(t, a.users, "users: {alice: {}}")
	if err := a.Reload(); err == nil || !strings.Contains(err.Error(), "no tenants") {
		t.Fatal(err)
	}
	check("new", 200) // the last good file stays
	write(t, a.users, "users: {alice: {tenants: [acme]}}")
	write(t, a.passwords, "basic_auth_users: [s3cret]")
	if err := a.Reload(); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Fatal(err)
	}
	check("new", 200)
	write(t, a.users, "users: {bob: {tenants: [acme], token_sha256: "+sha256Of("t")+"}}")
	write(t, a.passwords, "basic_auth_users: {alice: '"+bcryptOf(t, "new")+"'}")
	if err := a.Reload(); err != nil {
		t.Fatal(err)
	}
	check("new", 403)
}

func TestAuthFollowsFiles(t *testing.T) {
	a := newAuthTest(t, "users: {alice: {tenants: [acme], token_sha256: "+sha256Of("t")+"}}", "")
	_ = a.Close()
	a.opts.Interval = time.Millisecond
	if err := a.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	write(t, a.users+".new", "users: {alice: {tenants: [acme], token_sha256: "+sha256Of("x")+"}}")
	if err := os.Rename(a.users+".new", a.users); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		if code, _ := a.ask(Tenant, "Bearer x"); code == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new file is not in force")
		}
	}
}

func TestAuthRefusesToOpen(t *testing.T) {
	dir := t.TempDir()
	users, web := filepath.Join(dir, "users.yaml"), filepath.Join(dir, "web.yaml")
	f := func(word string) {
		t.Helper()
		a := NewAuth(slog.New(slog.DiscardHandler), nil,
			AuthOptions{UsersFile: users, WebConfigFile: web, Interval: time.Hour})
		if err := a.Open(t.Context(), nil); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want %q", err, word)
		}
		w := httptest.NewRecorder()
		opts := testOptions()
		opts.Auth = a
		classes(opts).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/tenant", nil))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("without files: %d", w.Code)
		}
	}
	f("users.yaml")
	write(t, users, "users: {a: {tenants: [acme]}}")
	f("web.yaml")
	write(t, web, "")
	write(t, users, "users: {}")
	f("no users")
}

func TestNoAuth(t *testing.T) {
	s := classes(testOptions())
	for _, path := range []string{"/open", "/tenant", "/operator"} {
		if w := do(s, http.MethodGet, path); w.Code != 200 || w.Body.Len() != 0 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func BenchmarkAuth(b *testing.B) {
	hash, _ := bcrypt.GenerateFromPassword([]byte("wonder"), bcrypt.MinCost)
	users, _ := tenant.ParseUsers("u", []byte("users: {alice: {tenants: [acme], token_sha256: "+sha256Of("tok3n")+"}}"))
	a := NewAuth(slog.New(slog.DiscardHandler), nil, AuthOptions{})
	a.state.Store(&authState{users: users, web: &webConfig{passwords: map[string]string{"alice": string(hash)}}})
	for name, header := range map[string]string{"basic": basic("alice", "wonder"), "bearer": "Bearer tok3n"} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Authorization", header)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.admit(r, Tenant, lock{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
