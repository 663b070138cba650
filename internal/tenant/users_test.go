package tenant

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func hashOf(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

var usersYAML = `
users:
  alice: {tenants: [acme, "team-*"]}
  bob: {tenants: [acme], token_sha256: ` + hashOf("s3cret") + `}
  root:
    tenants: ["*"]
    token_sha256: [` + hashOf("one") + `, ` + hashOf("two") + `]
`

func users(t *testing.T) *Users {
	t.Helper()
	u, err := ParseUsers("users.yaml", []byte(usersYAML))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestGrants(t *testing.T) {
	u := users(t)
	if n, tokens := u.Len(); n != 3 || tokens != 3 {
		t.Fatal(n, tokens)
	}
	f := func(g *Grant, id ID, want bool) {
		t.Helper()
		if got := g.Allows(id); got != want {
			t.Errorf("%q: %v, want %v", id, got, want)
		}
		if err := g.Check(id); (err == nil) != want || err != nil && errs.KindOf(err) != errs.Forbidden {
			t.Errorf("%q: %v", id, err)
		}
	}
	alice := u.Named("alice")
	f(alice, "acme", true)
	f(alice, "acme2", false)
	f(alice, "team-a", true)
	f(alice, "team-", true)
	f(alice, "team-*", true)
	f(alice, "team", false)
	f(alice, "x team-a", false)
	f(u.Bearer("s3cret"), "acme", true)
	f(u.Bearer("s3cret"), "team-a", false)
	f(u.Bearer("two"), "anything", true)
	f(nil, "anything", true)
	if u.Named("mallory") != nil || u.Bearer("") != nil || u.Bearer(hashOf("s3cret")) != nil {
		t.Error("a grant for nobody")
	}
	if _, ok := alice.Only(); ok {
		t.Error("alice has several")
	}
	if id, ok := u.Named("bob").Only(); !ok || id != "acme" {
		t.Error(id, ok)
	}
	if _, ok := u.Named("root").Only(); ok || !u.Named("root").Operator() || alice.Operator() {
		t.Error("root")
	}
}

func TestParseUsersFaults(t *testing.T) {
	f := func(raw string, words ...string) {
		t.Helper()
		_, err := ParseUsers("users.yaml", []byte(raw))
		if errs.KindOf(err) != errs.Invalid {
			t.Fatalf("%q: %v", raw, err)
		}
		for _, w := range append(words, "users.yaml") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in: %v", w, err)
			}
		}
	}
	f("", "no users")
	f("users: {}", "no users")
	f("users: {a: }", `"a"`, "no tenants")
	f("users: {a: {tenants: []}, b: {tenants: [x/y]}}", `"a"`, "no tenants", `"b"`, "x/y")
	f("users: {a: {tenants: [x], password: y}}", "users.yaml:1", `user "a": password: there is no such key here`)
	f("users:\n  a: {tenants: [x], tokn: y}", "users.yaml:2", "tokn", "did you mean token_sha256?")
	f("users:\n  a: {tenants: x}", "users.yaml:2", "tenants: a list is expected")
	f("users:\n  a: {tenants: [x]}\n  a: {tenants: [y]}", "users.yaml:3", "already set in line 2")
	f("users:\n\ta: {tenants: [x]}", "users.yaml:2", "tab")
	f("users: {a: {operator: perhaps}}", "operator: true or false is expected")
	f("users: {a: {tenants: [x], token_sha256: {}}}", "a text or a list of texts is expected")
	f("user: {a: {tenants: [x]}}", "user", "did you mean users?")
	f("users: {'a:b': {tenants: [x]}}", "a:b")
	f("users: {a: {tenants: [x], token_sha256: s3cret}}", "64 hexadecimal")
	f("users: {a: {tenants: [x], token_sha256: "+hashOf("t")+"}, b: {tenants: [y], token_sha256: "+hashOf("t")+"}}", `"a"`,
		`"b"`)
	f("users: [", "not YAML")
	if _, err := ParseUsers("u",
		[]byte("users: {a: {tenants: [x], token_sha256: s3cret}}")); strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a token is shown: %v", err)
	}
}

func TestResolverWithUsers(t *testing.T) {
	u := users(t)
	f := func(user, header string, want ID, kind errs.Kind) {
		t.Helper()
		req := httptest.NewRequest(http.MethodPost, "/", nil)
		if header != "" {
			req.Header.Set(HeaderOrgID, header)
		}
		req = req.WithContext(WithGrant(req.Context(), u.Named(user)))
		got, err := Resolver{}.Write(req)
		if errs.KindOf(err) != kind || err == nil && got != want {
			t.Errorf("%s, %q: %q, %v; want %q, %v", user, header, got, err, want, kind)
		}
	}
	f("alice", "acme", "acme", errs.OK)
	f("alice", "team-x", "team-x", errs.OK)
	f("alice", "other", "", errs.Forbidden)
	f("alice", "", "", errs.Forbidden) // the default tenant is not hers
	f("bob", "", "acme", errs.OK)
	f("bob", "other", "", errs.Forbidden)
	f("root", "", Default, errs.OK)

	read := func(user, header string, kind errs.Kind, want ...ID) {
		t.Helper()
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set(HeaderOrgID, header)
		got, err := Resolver{}.Read(req.WithContext(WithGrant(req.Context(), u.Named(user))))
		if errs.KindOf(err) != kind || !slices.Equal(got, want) {
			t.Errorf("%s, %q: %q, %v", user, header, got, err)
		}
	}
	read("alice", "acme|team-x", errs.OK, "acme", "team-x")
	read("alice", "acme|other", errs.Forbidden)
	read("bob", "", errs.OK, "acme")
}

func TestResolverWithCertificate(t *testing.T) {
	f := func(field string, subject *pkix.Name, want ID, kind errs.Kind) {
		t.Helper()
		req := httptest.NewRequest(http.MethodPost, "/", nil)
		req.Header.Set(HeaderThanos, "by-header")
		req.TLS = nil
		if subject != nil {
			chain := []*x509.Certificate{{Subject: *subject}}
			req.TLS = &tls.ConnectionState{PeerCertificates: chain, VerifiedChains: [][]*x509.Certificate{chain}}
		}
		got, err := Resolver{Certificate: field}.Write(req)
		if errs.KindOf(err) != kind || err == nil && got != want {
			t.Errorf("%s of %v: %q, %v; want %q, %v", field, subject, got, err, want, kind)
		}
	}
	full := &pkix.Name{Organization: []string{"acme", "second"}, OrganizationalUnit: []string{"ops"}, CommonName: "prom-1"}
	f("", full, "by-header", errs.OK)
	f("organization", full, "acme", errs.OK)
	f("organizationalUnit", full, "ops", errs.OK)
	f("commonName", full, "prom-1", errs.OK)
	f("commonName", &pkix.Name{Organization: []string{"acme"}}, "", errs.Invalid)
	f("organization", &pkix.Name{CommonName: "x"}, "", errs.Invalid)
	f("commonName", &pkix.Name{CommonName: "../x"}, "", errs.Invalid)
	f("commonName", nil, "", errs.Unauthenticated)
	f("serialNumber", full, "", errs.Invalid)
	req := httptest.NewRequest(http.MethodPost, "/", nil)
	unverified := []*x509.Certificate{{Subject: *full}} // anybody can make such a one
	for _, state := range []*tls.ConnectionState{{}, {PeerCertificates: unverified}} {
		req.TLS = state
		if id, err := (Resolver{Certificate: "commonName"}).Write(req); errs.KindOf(err) != errs.Unauthenticated {
			t.Errorf("%d certificates: %q %v", len(state.PeerCertificates), id, err)
		}
	}
}

// A user who can prove to nobody who they are is a mistake.
func TestUnprovable(t *testing.T) {
	u, err := ParseUsers("users.yaml",
		[]byte("users:\n  a: {tenants: [x]}\n  b: {tenants: [x]}\n  c: {tenants: [x], token_sha256: "+hashOf("t")+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = u.Unprovable("users.yaml", "--http.config", func(user string) bool { return user == "b" })
	if errs.KindOf(err) != errs.Invalid ||
		!strings.HasPrefix(err.Error(), `users.yaml:2: user "a": has neither a token nor a password`) ||
		strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if err := u.Unprovable("users.yaml", "", func(string) bool { return true }); err != nil {
		t.Error(err)
	}
}
