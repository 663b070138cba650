package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
	"github.com/hearth-metrics/hearth/rule/definition/objects"
)

// client speaks to an API as mimirtool and cortextool do: names are escaped for a path, and groups are YAML.
type client struct {
	t     *testing.T
	url   string // with the path of the API
	id    tenant.ID
	grant *tenant.Grant
	// refusal is why the tenant stores no rules.
	refusal error
}

// serve returns a client of an API over an empty bucket.
func serve(t *testing.T, l *tenant.Limits) *client {
	t.Helper()
	c := &client{t: t, id: "acme"}
	store := objects.New(slog.New(slog.DiscardHandler), objstore.NewInMemBucket(), objects.Options{Interval: 1})
	a := New(slog.New(slog.DiscardHandler), store, Options{Limits: tenant.Fixed(*l),
		Refusal: func(tenant.ID) error { return c.refusal }})
	mux := http.NewServeMux()
	for _, r := range a.Routes() {
		mux.Handle(r.Pattern, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if c.grant != nil {
				req = req.WithContext(tenant.WithGrant(req.Context(), c.grant))
			}
			r.Handler.ServeHTTP(w, req)
		}))
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	c.url = server.URL + mimirPath
	return c
}

func (c *client) do(method, path, body string) (status int, answer string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set(tenant.HeaderOrgID, string(c.id))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(raw))
}

// expect makes a request, and compares the status and the beginning of the answer.
func (c *client) expect(method, path, body string, status int, answer string) {
	c.t.Helper()
	got, text := c.do(method, path, body)
	if got != status || !strings.HasPrefix(text, answer) {
		c.t.Errorf("%s %s: %d %s, want %d %s", method, path, got, text, status, answer)
	}
}

func group(name string) string {
	return fmt.Sprintf("name: %q\ninterval: 1m\nrules:\n- {record: r, expr: up}\n- {alert: A, expr: up == 0, for: 5m}\n", name)
}

const accepted = `{"status":"success"`

// TestTools: what mimirtool and cortextool do to load, list, get, change and delete rules.
func TestTools(t *testing.T) {
	l := tenant.DefaultLimits()
	c := serve(t, &l)
	base := strings.TrimSuffix(c.url, mimirPath)
	for _, path := range []string{mimirPath, cortexPath, oldPath} {
		c.url = base + path
		if path == mimirPath {
			c.expect("GET", "", "", 200, "{}")
		} else {
			c.expect("GET", "/ns", "", 404, "no rule groups found")
		}
		c.expect("GET", "/ns/g", "", 404, "group does not exist")
		c.expect("DELETE", "/ns/g", "", 404, "group does not exist")
		c.expect("DELETE", "/ns", "", 404, "group namespace does not exist")
		c.expect("POST", "/ns", group("g"), 202, accepted)
		c.expect("POST", "/ns", group("h"), 202, accepted)
		c.expect("POST", "/other", group("g"), 202, accepted)
		if path != cortexPath {
			_, text := c.do("GET", "", "")
			var all map[string][]map[string]any
			if err := yaml.Unmarshal([]byte(text), &all); err != nil || len(all) != 2 || len(all["ns"]) != 2 ||
				all["ns"][0]["name"] != "g" || all["ns"][0]["interval"] != "1m" {
				t.Errorf("%v: %s", err, text)
			}
		}
		c.expect("GET", "/ns", "", 200, "ns:\n    - name: g\n      interval: 1m\n      rules:\n        - record: r\n          expr: up")
		c.expect("GET", "/ns/g", "", 200, "name: g\ninterval: 1m\nrules:\n    - record: r\n      expr: up\n    - alert: A")
		c.expect("POST", "/ns", "name: g\nrules: []\n", 202, accepted)
		c.expect("GET", "/ns/g", "", 200, "name: g\nrules: []")
		c.expect("DELETE", "/ns/g", "", 202, accepted)
		c.expect("GET", "/ns/g", "", 404, "group does not exist")
		c.expect("DELETE", "/ns", "", 202, accepted)
		c.expect("DELETE", "/other", "", 202, accepted)
	}
	c.url = base + cortexPath
	c.expect("GET", "", "", 404, "404 page not found") // Prometheus's API has it
}

// TestNames: any name is a name, and none of them a path.
func TestNames(t *testing.T) {
	l := tenant.DefaultLimits()
	c := serve(t, &l)
	for _, name := range []string{"a/b", "../x", "%2F", "a b", "a%", "?", "#", "日本", "a//b", "a\nb"} {
		path := "/" + url.PathEscape(name)
		c.expect("POST", path, group(name), 202, accepted)
		c.expect("GET", path+path, "", 200, "name: ")
		c.expect("DELETE", path+path, "", 202, accepted)
		c.expect("GET", path+path, "", 404, "group does not exist")
	}
	c.expect("POST", "/%2E%2E", group("g"), 202, accepted)
	c.expect("POST", "/%FF", group("g"), 400, "the name of the namespace")
	c.expect("POST", "/"+strings.Repeat("x", 200), group("g"), 400, "the name of the namespace has 200 bytes")
	c.expect("POST", "/ns", "rules: []", 400, "a group has no name")
	c.expect("POST", "/ns", group(strings.Repeat("x", 200)), 400, "the name of the group has 200 bytes")
}

// TestRefused: what cannot be stored is refused, and the answer says why.
func TestRefused(t *testing.T) {
	l := tenant.DefaultLimits()
	l.RuleGroups, l.RulesPerGroup = 2, 2
	c := serve(t, &l)
	c.expect("POST", "/ns", "{", 400, "the group cannot be read")
	c.expect("POST", "/ns", "name: g\nrules: [{record: r, expr: 'sum('}]", 400, `2:27: group "g", rule 1, "r": could not parse`)
	c.expect("POST", "/ns", "name: g\nnonsense: 1", 400, "the group cannot be read")
	c.expect("POST", "/ns", "x: &a [*a]", 400, "the group cannot be read")
	c.expect("POST", "/ns", strings.Repeat("#", definition.MaxGroupBytes+1), 413, "the group has more than 1048576 bytes")
	c.expect("POST", "/ns", "name: g\nrules: [{record: a, expr: up}, {record: b, expr: up}, {record: c, expr: up}]", 400,
		`tenant acme, group "g" in "ns" has 3 rules`)
	for _, name := range []string{"a", "b", "a"} {
		c.expect("POST", "/ns", group(name), 202, accepted)
	}
	c.expect("POST", "/ns", group("c"), 400, "tenant acme has 3 groups of rules")
	c.expect("DELETE", "/ns/a", "", 202, accepted)
	c.expect("POST", "/ns", group("c"), 202, accepted)
	c.expect("PUT", "/ns", group("c"), 405, "")
	c.id = "a|b"
	c.expect("GET", "", "", 400, "tenant id")
}

// TestSourceTenants: rules read other tenants only if both a limit and the rights of the sender say so.
func TestSourceTenants(t *testing.T) {
	l := tenant.DefaultLimits()
	const federated = "name: g\nsource_tenants: [other]\nrules: [{record: r, expr: up}]\n"
	c := serve(t, &l)
	c.expect("POST", "/ns", federated, 403, `tenant acme, group "g" in "ns": its rules may not read tenant other`)
	l.RuleSourceTenants = []string{"o*"}
	c = serve(t, &l)
	c.expect("POST", "/ns", federated, 202, accepted)
	c.expect("GET", "/ns/g", "", 200, "name: g\nrules:\n    - record: r\n      expr: up\nsource_tenants:\n    - other")
	c.grant = tenant.Exactly("alice", "acme")
	c.expect("POST", "/ns", federated, 403, "")
	c.expect("POST", "/ns", group("own"), 202, accepted)
	c.grant = tenant.Exactly("alice", "acme", "other")
	c.expect("POST", "/ns", federated, 202, accepted)
	c.id = "rival"
	c.expect("POST", "/ns", group("g"), 403, "")
	c.expect("GET", "/ns/own", "", 403, "")
}

// TestTenantsApart: a tenant sees and changes nothing of another one.
func TestTenantsApart(t *testing.T) {
	l := tenant.DefaultLimits()
	c := serve(t, &l)
	c.expect("POST", "/ns", group("g"), 202, accepted)
	c.id = "rival"
	c.expect("GET", "", "", 200, "{}")
	c.expect("GET", "/ns/g", "", 404, "group does not exist")
	c.expect("DELETE", "/ns", "", 404, "group namespace does not exist")
	c.id = "acme"
	c.expect("GET", "/ns/g", "", 200, "name: g")
}

// TestRefusal: a tenant that is to be deleted stores nothing, and may still read and delete.
func TestRefusal(t *testing.T) {
	c := serve(t, &tenant.Limits{})
	group := "name: g\nrules: [{record: a, expr: b}]\n"
	if status, answer := c.do("POST", "/ns", group); status != 202 {
		t.Fatalf("%d %s", status, answer)
	}
	c.refusal = errs.E(errs.Invalid, "the tenant is to be deleted")
	if status, answer := c.do("POST", "/ns", group); status != 400 || !strings.Contains(answer, "is to be deleted") {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := c.do("GET", "/ns/g", ""); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := c.do("DELETE", "/ns/g", ""); status != 202 {
		t.Errorf("%d %s", status, answer)
	}
}
