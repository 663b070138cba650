package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"golang.org/x/crypto/bcrypt"
)

// jobs are the values of label job that a client sees through the query API, sorted; code is the status of the answer.
func jobs(c *http.Client, base string, header http.Header) (code int, values []string, err error) {
	code, body, err := try(c, http.MethodGet, base+"/api/v1/label/job/values", header, nil)
	if err != nil || code != http.StatusOK {
		return code, nil, err
	}
	var ans struct{ Data []string }
	err = json.Unmarshal([]byte(body), &ans)
	return code, ans.Data, err
}

// wantJobs checks what a client sees.
func wantJobs(t *testing.T, c *http.Client, base string, header http.Header, code int, want ...string) {
	t.Helper()
	got, values, err := jobs(c, base, header)
	if err != nil || got != code || !slices.Equal(values, want) {
		t.Errorf("%v: status %d, jobs %q, %v; want %d, %q", header, got, values, err, code, want)
	}
}

// wantWrite sends a request and checks the status of its answer.
func wantWrite(t *testing.T, c *http.Client, base string, header http.Header, body []byte, code int, words ...string) {
	t.Helper()
	got, text, err := try(c, http.MethodPost, base+"/api/v1/receive", writeHeader(header), body)
	if err != nil || got != code {
		t.Errorf("write with %v: status %d %s, %v; want %d", header, got, text, err, code)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("write with %v: %q is not in: %s", header, w, text)
		}
	}
}

// TestTenantOfCertificate: the certificate names the tenant, whatever the headers say.
func TestTenantOfCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "hearth test")
	cert, key := ca.sign("server")
	now := time.Now().UnixMilli()
	for field, want := range map[string]string{"commonName": "acme", "organization": ""} {
		t.Run(field, func(t *testing.T) {
			n := newPlainNode(t, "all", "all", "--self-scrape.interval=0s", "--receive.tenant-certificate-field="+field,
				"--remote-write.server-tls-cert="+cert, "--remote-write.server-tls-key="+key,
				"--remote-write.server-tls-client-ca="+ca.file)
			n.start()
			n.waitReady()
			client := ca.client(ca.sign("acme"))
			secure, plain := "https://"+n.write, "http://"+n.http
			body := writeBody("certified", 1, now)
			if want == "" {
				wantWrite(t, client, secure, nil, body, 400, "organization")
			} else {
				wantWrite(t, client, secure, tenantHeader("other"), body, 204)
				wantWrite(t, ca.client(ca.sign("a-b_c")), secure, nil, writeBody("second", 1, now), 204)
				wantJobs(t, httpClient, plain, tenantHeader(want), 200, "certified")
				wantJobs(t, httpClient, plain, tenantHeader("a-b_c"), 200, "second")
				wantWrite(t, ca.client(ca.sign("a|b")), secure, nil, body, 400, "a|b")
			}
			wantWrite(t, httpClient, plain, nil, body, 401, "certificate") // the port without TLS cannot know who writes
			wantJobs(t, httpClient, plain, tenantHeader("other"), 200)
		})
	}
	refuses(t, nil, []string{"all", "--receive.tenant-certificate-field=serialNumber"}, "serialNumber")
}

// TestSplitTenants: one request of series for several tenants, by a label that is not stored.
func TestSplitTenants(t *testing.T) {
	t.Parallel()
	_, base := startAll(t, t.TempDir(), "--receive.split-tenant-label-name=team")
	now := time.Now().UnixMilli()
	body := encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		sample(now, 1, "__name__", "up", "job", "r", "team", "red"),
		sample(now, 2, "__name__", "up", "job", "b", "team", "blue"),
		sample(now, 3, "__name__", "up", "job", "none"),
	}})
	wantWrite(t, httpClient, base, tenantHeader("green"), body, 204)
	for id, job := range map[string]string{"red": "r", "blue": "b", "green": "none"} {
		wantJobs(t, httpClient, base, tenantHeader(id), 200, job)
		ans, err := api{base: base, header: tenantHeader(id)}.get("labels", url.Values{})
		if err != nil || strings.Contains(string(ans.Data), "team") {
			t.Errorf("tenant %s: labels %s, %v", id, ans.Data, err)
		}
	}
	bad := encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		sample(now, 1, "__name__", "up", "job", "bad", "team", "../etc"),
		sample(now, 1, "__name__", "up", "job", "good", "team", "red"),
	}})
	wantWrite(t, httpClient, base, nil, bad, 400, "team", "../etc")
	wantJobs(t, httpClient, base, tenantHeader("red"), 200, "good", "r")
	wantJobs(t, httpClient, base, nil, 200)
}

func tokenHash(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

func bearer(token, id string) http.Header {
	h := http.Header{"Authorization": {"Bearer " + token}}
	if id != "" {
		h.Set("X-Scope-OrgID", id)
	}
	return h
}

func withTenant(h http.Header, id string) http.Header {
	h.Set("X-Scope-OrgID", id)
	return h
}

// TestUsersByToken: bearer tokens on every port, writing and reading, and a file that changes.
func TestUsersByToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.yml")
	users := `
users:
  agent: {tenants: [acme], token_sha256: ` + tokenHash("agent-token") + `}
  team: {tenants: ["team-*"], token_sha256: ` + tokenHash("team-token") + `}
  root: {tenants: ["*"], token_sha256: ` + tokenHash("root-token") + `}
`
	writeFile(t, file, users)
	n := newPlainNode(t, "all", "all", "--self-scrape.interval=0s", "--auth.tenants-file="+file,
		"--receive.split-tenant-label-name=team")
	n.start()
	n.waitReady()
	now := time.Now().UnixMilli()
	for _, base := range []string{"http://" + n.http, "http://" + n.write} {
		body := writeBody("w", 1, now)
		wantWrite(t, httpClient, base, bearer("agent-token", ""), body, 204) // its one tenant
		wantWrite(t, httpClient, base, bearer("agent-token", "acme"), body, 204)
		wantWrite(t, httpClient, base, bearer("agent-token", "other"), body, 403, "agent", "other")
		wantWrite(t, httpClient, base, bearer("team-token", "team-a"), writeBody("a", 1, now), 204)
		wantWrite(t, httpClient, base, bearer("team-token", ""), body, 403, "default-tenant")
		wantWrite(t, httpClient, base, bearer("wrong", "acme"), body, 401)
		wantWrite(t, httpClient, base, tenantHeader("acme"), body, 401)
		wantWrite(t, httpClient, base, basicAuth("root", "root-token"), body, 401)
		stolen := encode(&prompb.WriteRequest{
			Timeseries: []prompb.TimeSeries{sample(now, 1, "__name__", "up", "job", "stolen", "team", "team-b")}})
		wantWrite(t, httpClient, base, bearer("agent-token", ""), stolen, 403, "agent", "team-b")
	}
	base := n.url("")
	wantJobs(t, httpClient, base, bearer("agent-token", ""), 200, "w")
	wantJobs(t, httpClient, base, bearer("agent-token", "team-a"), 403)
	wantJobs(t, httpClient, base, bearer("agent-token", "acme|team-a"), 403)
	wantJobs(t, httpClient, base, bearer("team-token", "team-a"), 200, "a")
	wantJobs(t, httpClient, base, bearer("root-token", "acme|team-a"), 200, "a", "w")
	wantJobs(t, httpClient, base, bearer("root-token", "team-b"), 200)
	wantJobs(t, httpClient, base, tenantHeader("acme"), 401)
	wantJobs(t, httpClient, base+"/prometheus", tenantHeader("acme"), 401)

	status := func(method, path string, header http.Header, want int) {
		t.Helper()
		if code, text, err := try(httpClient, method, base+path, header, nil); err != nil || code != want {
			t.Errorf("%s %s: status %d %s, %v; want %d", method, path, code, text, err, want)
		}
	}
	for path, done := range map[string]int{"/api/v1/admin/flush": 204, "/-/reload": 200} {
		status(http.MethodPost, path, nil, 401)
		status(http.MethodPost, path, bearer("agent-token", ""), 403)
		status(http.MethodPost, path, bearer("root-token", ""), done)
	}
	status(http.MethodGet, "/api/v1/status/limits", bearer("agent-token", ""), 403)
	status(http.MethodGet, "/api/v1/status/limits", bearer("root-token", ""), 200)
	status(http.MethodPost, "/api/v1/otlp/v1/metrics", nil, 401)
	status(http.MethodGet, "/-/ready", nil, 200)
	status(http.MethodGet, "/metrics", nil, 401)
	status(http.MethodGet, "/debug/pprof/cmdline", bearer("agent-token", ""), 403)
	for user, sees := range map[string]bool{"agent-token": false, "root-token": true} {
		code, text, err := try(httpClient, http.MethodGet, base+"/metrics", bearer(user, ""), nil)
		if err != nil || code != 200 || !strings.Contains(text, `tenant="acme"`) ||
			strings.Contains(text, `tenant="team-a"`) != sees {
			t.Errorf("/metrics of %s: %d, %v; it should show acme, and team-a: %v", user, code, err, sees)
		}
	}

	writeFile(t, file, strings.Replace(users, "agent: {tenants: [acme]", "agent: {tenants: [acme, team-a]", 1))
	eventually(t, 20*time.Second, func() error {
		if code, _, err := jobs(httpClient, base, bearer("agent-token", "team-a")); code != 200 {
			return fmt.Errorf("status %d, %v", code, err)
		}
		return nil
	})
	writeFile(t, file, "users: {agent: {}}")
	if code, text, _ := try(httpClient, http.MethodPost, base+"/-/reload", bearer("root-token", ""), nil); code != 400 ||
		!strings.Contains(text, "no tenants") {
		t.Errorf("reload of a bad file: %d %s", code, text)
	}
	wantJobs(t, httpClient, base, bearer("agent-token", "team-a"), 200, "a")
	for _, secret := range []string{"agent-token", tokenHash("agent-token")} {
		if strings.Contains(n.output(), secret) {
			t.Errorf("the log shows %s", secret)
		}
	}
	refuses(t, nil, []string{"all", "--auth.tenants-file=" + file, "--data-dir=" + t.TempDir()}, "--auth.tenants-file",
		"no tenants")
}

// TestUsersByPassword: passwords of --http.config count on the remote-write port too, with bearer tokens beside them.
func TestUsersByPassword(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte("wonder"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	web, file := filepath.Join(dir, "web.yml"), filepath.Join(dir, "users.yml")
	writeFile(t, web, fmt.Sprintf("basic_auth_users: {alice: '%s', guest: '%s'}\n", hash, hash))
	writeFile(t, file,
		"users:\n  alice: {tenants: [acme, default-tenant]}\n  agent: {tenants: [acme], token_sha256: "+tokenHash(
			"t0ken")+"}\n")
	n := newPlainNode(t, "all", "all", "--self-scrape.interval=0s", "--auth.tenants-file="+file, "--http.config="+web)
	n.start()
	eventually(t, 30*time.Second, func() error {
		_, err := get(n.url("/-/ready"), basicAuth("alice", "wonder"))
		return err
	})
	now := time.Now().UnixMilli()
	for _, base := range []string{"http://" + n.http, "http://" + n.write} {
		wantWrite(t, httpClient, base, withTenant(basicAuth("alice", "wonder"), "acme"), writeBody("w", 1, now), 204)
		wantWrite(t, httpClient, base, withTenant(basicAuth("alice", "wonder"), "other"), writeBody("w", 1, now), 403,
			"alice")
		wantWrite(t, httpClient, base, withTenant(basicAuth("alice", "wrong"), "acme"), writeBody("w", 1, now), 401)
		wantWrite(t, httpClient, base, withTenant(basicAuth("guest", "wonder"), "acme"), writeBody("w", 1, now), 403, "guest")
		wantWrite(t, httpClient, base, basicAuth("alice", "wonder"), writeBody("d", 1, now), 204)
		wantWrite(t, httpClient, base, nil, writeBody("w", 1, now), 401)
	}
	wantWrite(t, httpClient, "http://"+n.write, bearer("t0ken", ""), writeBody("agent", 1, now), 204)
	wantJobs(t, httpClient, n.url(""), withTenant(basicAuth("alice", "wonder"), "acme"), 200, "agent", "w")
	wantJobs(t, httpClient, n.url(""), basicAuth("alice", "wonder"), 200, "d")
	wantJobs(t, httpClient, n.url(""), withTenant(basicAuth("alice", "wonder"), "other"), 403)
	if strings.Contains(n.output(), " port=--remote-write.address secured_by=") {
		t.Error("the remote-write port is said to be open to everybody")
	}
}
