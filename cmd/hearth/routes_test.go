package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/httpx"
)

// roleArgs are arguments of every role, as a member of a cluster, so that it has all the routes that it can have.
func roleArgs(t *testing.T, role string) []string {
	dir := t.TempDir()
	bucket := fmt.Sprintf("--objstore.config={type: FILESYSTEM, config: {directory: %q}}", filepath.Join(dir, "bucket"))
	args := []string{role, "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--gossip.address=127.0.0.1:0",
		"--gossip.instance-id=" + role, "--log.level=error"}
	switch role {
	case "all":
		args = append(args, "--remote-write.address=127.0.0.1:0", "--data-dir="+dir, "--self-scrape.interval=0s",
			"--compact.block-upload")
	case "receive":
		args = append(args, "--remote-write.address=127.0.0.1:0", "--tsdb.path="+filepath.Join(dir, "tsdb"), bucket)
	case "distributor":
		args = append(args, "--remote-write.address=127.0.0.1:0")
	case "store":
		args = append(args, "--data-dir="+filepath.Join(dir, "store"), bucket)
	case "rule":
		args = append(args, "--data-dir="+filepath.Join(dir, "rule"), "--rule-file="+filepath.Join(dir, "*.yml"),
			"--query=127.0.0.1:1", bucket)
	case "compact":
		args = append(args, "--data-dir="+filepath.Join(dir, "compact"), bucket, "--wait", "--compact.block-upload")
	}
	app, _ := commands()
	has := flagsByName(app, role)
	return slices.DeleteFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		return arg != role && has[name] == nil
	})
}

// roles are the names of all commands that are no tools.
var roles = func() (names []string) {
	for _, c := range allCommands() {
		if !c.tool() {
			names = append(names, c.name)
		}
	}
	return names
}()

// startRole runs a role in this process until the end of the test.
func startRole(t *testing.T, args []string) *process {
	t.Helper()
	app, setups := commands()
	command, err := app.Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p := newProcess(app, command, io.Discard, &log)
	if err := setups[command](p); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.run() }()
	t.Cleanup(func() {
		p.end()
		if err := <-done; err != nil && err != context.Canceled {
			t.Errorf("%s ended with %v\n%s", command, err, &log)
		}
	})
	select {
	case <-p.serving:
	case err := <-done:
		done <- nil
		t.Fatalf("%s: %v\n%s", command, err, &log)
	case <-time.After(time.Minute):
		t.Fatalf("%s does not start", command)
	}
	return p
}

func tokenHash(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// usersFile has users alice of tenant acme, reader of all tenants, root and ops; their tokens are their names.
func usersFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.yml")
	text := "users:\n"
	for user, may := range map[string]string{"alice": "tenants: [acme]", "reader": "tenants: ['*'], operator: false",
		"root": "tenants: ['*']", "ops": "operator: true"} {
		text += fmt.Sprintf("  %s: {%s, token_sha256: %s}\n", user, may, tokenHash(user))
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// raw sends a request just as it is written, and returns the status and the whole answer. No client corrects its path.
func raw(t *testing.T, address, method, target, token string, more ...string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	text := method + " " + target + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n"
	if token != "" {
		text += "Authorization: Bearer " + token + "\r\n"
	}
	for _, h := range more {
		text += h + "\r\n"
	}
	fmt.Fprint(conn, text+"\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return resp.StatusCode, string(body)
}

// requestsOf are requests to a route: all methods, and spellings of its path that a router might take for it.
func requestsOf(pattern string) (requests [][2]string) {
	path := pattern
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW"}
	if method, rest, ok := strings.Cut(pattern, " "); ok {
		path = rest
		methods = append(methods, method)
	}
	path = strings.NewReplacer("{name}", "job", "{$}", "").Replace(path)
	for _, m := range methods {
		requests = append(requests, [2]string{m, path})
	}
	if path == "/" {
		return requests
	}
	last := strings.LastIndexByte(strings.TrimSuffix(path, "/"), '/')
	for _, p := range []string{
		path + "/", "/" + path, path + "?x=y", path + "/.", path + "/x/..", "/x/.." + path, "/-/healthy/.." + path, "/ui/.." + path,
		"/ui/%2e%2e" + path, path[:last] + "/" + path[last:], path[:last] + "%2F" + path[last+1:], path[:last] + "/%2e" + path[last:],
		path[:last+1] + strings.ToUpper(path[last+1:]), path + "%00", path + ";x=y", path + "%20", "/prometheus" + path,
		fmt.Sprintf("%s/%%%02x%s", path[:last], (path + "-")[last+1], (path + "-")[min(last+2, len(path)):]),
	} {
		requests = append(requests, [2]string{"GET", p}, [2]string{"POST", p}, [2]string{"CONNECT", p})
	}
	return requests
}

// TestRoutesByClass walks the routes of every port of every role, as the role makes them, by every method and spelling:
// strangers get nothing but open routes, a tenant's user nothing for operators, operators everything.
func TestRoutesByClass(t *testing.T) {
	users := usersFile(t)
	for _, role := range roles {
		t.Run(role, func(t *testing.T) {
			p := startRole(t, append(roleArgs(t, role), "--auth.tenants-file="+users))
			want := 1
			if slices.Contains([]string{"all", "receive", "distributor"}, role) {
				want = 2
			}
			if len(p.listeners) != want {
				t.Fatalf("%d ports that speak HTTP, want %d", len(p.listeners), want)
			}
			for i, s := range p.listeners {
				walk(t, s, i > 0)
			}
		})
	}
}

// telling are words of which an answer to somebody who may not have it would hold one.
var telling = []string{"goroutine", "hearth_build_info", "auth.tenants-file", "heartbeat", "memberlist", "GOMAXPROCS",
	"future_window", "\"storageRetention\"", "labelSets"}

func walk(t *testing.T, s *httpx.Server, writes bool) {
	classes := map[httpx.Class]int{}
	for _, route := range s.Routes() {
		classes[route.Class]++
		path := route.Pattern
		if _, rest, ok := strings.Cut(path, " "); ok {
			path = rest
		}
		if writes && route.Class != httpx.Open &&
			!slices.Contains([]string{"/api/v1/receive", "/api/v1/write", "/api/v1/push",
				"/api/v1/otlp", "/api/v1/otlp/v1/metrics", "/otlp/v1/metrics"}, path) {
			t.Errorf("the remote-write port serves %s", path)
		}
		lasts := path == "/debug/pprof/profile" || path == "/debug/pprof/trace"
		for _, req := range requestsOf(route.Pattern) {
			method, target := req[0], req[1]
			exact := target == strings.NewReplacer("{name}", "job", "{$}", "").Replace(path)
			override := []string{"X-HTTP-Method-Override: GET", "X-Forwarded-User: root", "X-Original-URL: /-/healthy",
				"Content-Length: 0"}
			for _, token := range []string{"", "nobody", "alice", "reader"} {
				code, body := raw(t, s.Addr(), method, target, token, override...)
				known := token == "alice" || token == "reader"
				refusal := code == 401 || code == 403 || code == 404 || code == 405 || code == 400 || code/100 == 3
				switch {
				case route.Class == httpx.Open:
					if exact && method == "GET" && code != 200 && code != 503 && code != 302 {
						t.Errorf("%s %s by %q: %d, want an answer", method, target, token, code)
					}
				case route.Class == httpx.Tenant && known:
					if code == 401 || exact && code == 403 && path == "/metrics" {
						t.Errorf("%s %s by %q: %d %s", method, target, token, code, body)
					}
				case !refusal:
					t.Errorf("%s %s, %s, by %q: %d %.200s, want a refusal", method, target, route.Class, token, code, body)
				case exact && route.Class == httpx.Operator && known && code != 403 && code != 405 && code != 404,
					exact && !known && code != 401 && code != 405 && code != 404:
					t.Errorf("%s %s, %s, by %q: %d", method, target, route.Class, token, code)
				}
				if route.Class == httpx.Operator || !known {
					for _, w := range telling {
						if strings.Contains(body, w) && code/100 == 2 && route.Class != httpx.Open {
							t.Errorf("%s %s by %q tells %q", method, target, token, w)
						}
					}
				}
			}
			if !exact || lasts ||
				method != "GET" && (strings.HasPrefix(path, "/ring/") || strings.HasPrefix(path, "/api/v1/admin")) {
				continue // an operator's request would do something
			}
			for _, token := range []string{"ops", "root"} { // ops has no tenants, and needs none for what concerns the process
				mayAll := token == "root" || route.Class == httpx.Operator
				if code, body := raw(t, s.Addr(), method, target, token, override...); code == 401 || code == 403 && mayAll {
					t.Errorf("%s %s by %s: %d %s", method, target, token, code, body)
				}
			}
		}
	}
	if writes {
		return
	}
	if classes[httpx.Open] == 0 || classes[httpx.Tenant] == 0 || classes[httpx.Operator] == 0 {
		t.Errorf("routes by class: %v: the walk shows nothing", classes)
	}
}

// Every role has the same flags of authentication, and a path has the same class in all of them.
func TestRolesAgree(t *testing.T) {
	app, _ := commands()
	byRole := map[string][]string{}
	for _, c := range app.Model().Commands {
		for _, f := range c.Flags {
			if strings.HasPrefix(f.Name, "auth.") || strings.HasPrefix(f.Name, "http.") || strings.HasPrefix(f.Name, "http-") {
				byRole[c.Name] = append(byRole[c.Name], f.Name)
			}
		}
		slices.Sort(byRole[c.Name])
	}
	for _, role := range roles {
		if !slices.Contains(byRole[role], "auth.tenants-file") || !slices.Equal(byRole[role], byRole["all"]) {
			t.Errorf("%s has %v, all has %v", role, byRole[role], byRole["all"])
		}
	}
	classes := map[string]httpx.Class{}
	for _, role := range roles {
		app, setups := commands()
		args := roleArgs(t, role)
		if _, err := app.Parse(args); err != nil {
			t.Fatal(err)
		}
		p := newProcess(app, role, io.Discard, io.Discard)
		p.log = slog.New(slog.DiscardHandler)
		if err := setups[role](p); err != nil {
			t.Fatal(err)
		}
		for _, s := range p.listeners {
			for _, r := range s.Routes() {
				if before, ok := classes[r.Pattern]; ok && before != r.Class {
					t.Errorf("%s is %s and %s", r.Pattern, before, r.Class)
				}
				classes[r.Pattern] = r.Class
			}
		}
	}
	for _, path := range []string{"/ring", "/ring/forget", "/ring/drain", "/memberlist", "/-/reload", "/api/v1/admin/flush", "/debug/pprof/",
		"GET /debug/pprof/cmdline", "/api/v1/status/limits", "/api/v1/status/flags", "/prometheus/api/v1/status/flags"} {
		if classes[path] != httpx.Operator {
			t.Errorf("%s is %s; there are %v", path, classes[path], slices.Sorted(maps.Keys(classes)))
		}
	}
}

// Without any authentication everything is open, as a test or a laptop wants it.
func TestNoAuthIsOpen(t *testing.T) {
	p := startRole(t, roleArgs(t, "all"))
	ready := func() bool {
		code, _ := raw(t, p.listeners[0].Addr(), "GET", "/-/ready", "")
		return code == 200
	}
	for deadline := time.Now().Add(time.Minute); !ready() && time.Now().Before(deadline); { // its gateway settles first
		time.Sleep(50 * time.Millisecond)
	}
	for path, want := range map[string]int{"/debug/pprof/cmdline": 200, "/metrics": 200, "/ring": 200, "/memberlist": 200, "/api/v1/status/flags": 200,
		"/api/v1/stores": 200, "/api/v1/query?query=1": 200, "/prometheus/api/v1/labels": 200, "/": 200, "/-/ready": 200, "/api/v1/status/limits": 200} {
		if code, body := raw(t, p.listeners[0].Addr(), "GET", path, ""); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for path, want := range map[string]int{"/debug/pprof/": 404, "/metrics": 404, "/-/reload": 404, "/-/healthy": 200, "/-/ready": 200} {
		if code, body := raw(t, p.listeners[1].Addr(), "GET", path, ""); code != want {
			t.Errorf("remote-write port: %s: %d %s", path, code, body)
		}
	}
}

// The page on security has every route with its class, and the bounds as they are.
func TestSecurityPage(t *testing.T) {
	raw, err := os.ReadFile("../../docs/operate/security.md")
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 2 {
			continue
		}
		for i, path := range strings.Split(cells[0], "`") {
			if i%2 == 1 && strings.HasPrefix(path, "/") {
				classes[path] = strings.TrimSpace(cells[1])
			}
		}
	}
	known := map[string]bool{}
	for _, role := range roles {
		app, setups := commands()
		if _, err := app.Parse(roleArgs(t, role)); err != nil {
			t.Fatal(err)
		}
		p := newProcess(app, role, io.Discard, io.Discard)
		if err := setups[role](p); err != nil {
			t.Fatal(err)
		}
		for _, s := range p.listeners {
			for _, r := range s.Routes() {
				path := r.Pattern[strings.IndexByte(r.Pattern, '/'):]
				path = strings.TrimPrefix(path, "/prometheus")
				known[path] = true
				if classes[path] != r.Class.String() {
					t.Errorf("%s is %s, and %q on the page", path, r.Class, classes[path])
				}
			}
		}
	}
	for path := range classes {
		if !known[path] {
			t.Errorf("the page has %s, and nobody serves it", path)
		}
	}
	o := httpx.DefaultOptions()
	for _, bound := range []string{
		fmt.Sprintf("(`--http.max-connections`) | %d |", o.MaxConnections), fmt.Sprintf("%d KiB, 200 lines, %s |", o.MaxHeaderBytes>>10, o.HeaderTimeout),
		fmt.Sprintf("| %d KiB or its end every %s, %dm in all |", o.BodyRate*int64(o.BodyWindow.Seconds())>>10, o.BodyWindow, int(o.BodyTimeout.Minutes())),
		fmt.Sprintf("nothing of it for %s, or behind a rate of %d MiB per %[1]s by as much |", o.AnswerTimeout, httpx.SlowestClient>>20), fmt.Sprintf("| a connection without a request | %dm |", int(o.IdleTimeout.Minutes())),
		fmt.Sprintf("HTTP/2 connection | %d |", o.MaxStreams),
	} {
		if !strings.Contains(string(raw), bound) {
			t.Errorf("the page does not say %q", bound)
		}
	}
}

// TestNoAdminInEveryRole: any process that gossips could forget a member for all, so each role that gossips has the
// flag.
func TestNoAdminInEveryRole(t *testing.T) {
	app, _ := commands()
	for _, role := range roles {
		if flagsByName(app, role)["gossip.address"] == nil {
			continue
		}
		t.Run(role, func(t *testing.T) {
			p := startRole(t, append(roleArgs(t, role), "--disable-admin-operations"))
			for _, target := range []string{"/ring/forget?instance=x", "/ring/drain", "/api/v1/admin/flush"} {
				code, body := raw(t, p.listeners[0].Addr(), "POST", target, "")
				if code != 403 && (code != 404 || strings.HasPrefix(target, "/ring/forget")) {
					t.Errorf("POST %s: %d %s, want a refusal", target, code, body)
				}
			}
		})
	}
}
