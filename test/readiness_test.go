package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// newRole is a process of a role that has what it needs to be ready, on its own.
func newRole(t *testing.T, role string) *node {
	t.Helper()
	n := newPlainNode(t, role, role)
	switch role {
	case "store":
		n.args = append(n.args, "--objstore.config=type: FILESYSTEM\nconfig: {directory: "+t.TempDir()+"}")
	case "distributor":
		n.args = append(n.args, fmt.Sprintf(`--receive.hashrings=[{"endpoints":[%q]}]`, addr(freePorts(t, 1)[0])))
	case "query":
		n.args = append(n.args, "--endpoint="+addr(freePorts(t, 1)[0]))
	}
	return n
}

// TestEndpoints: what every role answers.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, role := range roles {
		t.Run(role, func(t *testing.T) {
			n := newRole(t, role)
			n.start()
			n.waitReady()
			answers := func(listener, path, want string) {
				t.Helper()
				if body, err := get("http://"+listener+path, nil); err != nil || !strings.Contains(string(body), want) {
					t.Errorf("%s: %.200s %v, want %q", path, body, err, want)
				}
			}
			probes := map[string]string{"/-/healthy": "healthy", "/-/ready": "ready", "/-/ready?verbose": "[+] serving"}
			for path, want := range probes {
				answers(n.http, path, want)
			}
			answers(n.http, "/debug/pprof/", "goroutine")
			answers(n.http, "/debug/pprof/goroutine?debug=1", "goroutine profile")
			families := exposition(t, "http://"+n.http, nil)
			for _, name := range []string{"go_goroutines", "process_cpu_seconds_total", "hearth_build_info", "hearth_http_requests_total"} {
				if families[name] == 0 {
					t.Errorf("/metrics has no %s", name)
				}
			}
			if strings.Contains(strings.Join(n.args, " "), "--remote-write.address") {
				for path, want := range probes {
					answers(n.write, path, want)
				}
				for _, path := range []string{"/metrics", "/debug/pprof/", "/-/reload", "/ring", "/api/v1/query"} {
					if _, err := get("http://"+n.write+path, nil); status(err) != 404 {
						t.Errorf("the remote-write port has %s: %v", path, err)
					}
				}
			}
			checkStatus(t, n, role)
		})
	}
}

// TestReadyAnswers: an all-in-one of a gossiping cluster is ready when it answers without a warning, whether it names
// only itself, or others where nothing listens. Then it does not wait for the whole time that silent ones would get.
func TestReadyAnswers(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 2)
	for what, join := range map[string]string{"itself": addr(ports[0]), "nobody": addr(freePorts(t, 1)[0])} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			own := ports[0]
			if what == "nobody" {
				own = ports[1]
			}
			n := newPlainNode(t, "a", "all", "--gossip.address="+addr(own), "--gossip.join="+join,
				"--receive.replication-factor=1")
			n.start()
			n.waitReady()
			ans, err := n.api("default-tenant").get("query", url.Values{"query": {"up"}})
			if err != nil || len(ans.Warnings) > 0 {
				t.Errorf("the first answer: %v, warnings %q", err, ans.Warnings)
			}
		})
	}
}

// exposition parses /metrics in both forms and returns how many metrics each family of the text form has.
func exposition(t *testing.T, base string, header http.Header) map[string]int {
	t.Helper()
	if header == nil {
		header = http.Header{}
	}
	text, err := get(base+"/metrics", header)
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Errorf("/metrics is not the text format: %v", err)
	}
	families := map[string]int{}
	for name, f := range parsed {
		families[name] = len(f.Metric)
		if strings.HasPrefix(name, "hearth_") && f.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
	}
	header = header.Clone()
	header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	open, err := get(base+"/metrics", header)
	if err != nil || !bytes.HasSuffix(open, []byte("# EOF\n")) {
		t.Errorf("/metrics as OpenMetrics: %v, ends with %q", err, open[max(0, len(open)-20):])
	}
	return families
}

// statusOf is the data of /api/v1/status/<what>.
func statusOf(t *testing.T, n *node, what string, into any) {
	t.Helper()
	ans, err := n.api("default-tenant").get("status/"+what, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(ans.Data, into); err != nil {
		t.Fatalf("%s: %v in %s", what, err, ans.Data)
	}
}

func flagsOf(t *testing.T, n *node) map[string]string {
	t.Helper()
	flags := map[string]string{}
	statusOf(t, n, "flags", &flags)
	return flags
}

func checkStatus(t *testing.T, n *node, role string) {
	t.Helper()
	if flags := flagsOf(t, n); flags["http-address"] != n.http || flags["log.level"] != "info" {
		t.Errorf("flags are %v", flags)
	}
	var build struct{ GoVersion string }
	statusOf(t, n, "buildinfo", &build)
	if !strings.HasPrefix(build.GoVersion, "go1.") {
		t.Errorf("buildinfo: %+v", build)
	}
	var runtime struct {
		StartTime        time.Time
		GoroutineCount   int
		StorageRetention string
	}
	statusOf(t, n, "runtimeinfo", &runtime)
	if time.Since(runtime.StartTime) > time.Minute || runtime.GoroutineCount < 1 {
		t.Errorf("runtimeinfo: %+v", runtime)
	}
	if role == "receive" && runtime.StorageRetention == "" {
		t.Errorf("runtimeinfo says nothing of the retention")
	}
}

// TestNotReady: 503 and the reason while a role cannot do its work, and ready by itself when it can.
func TestNotReady(t *testing.T) {
	t.Parallel()
	notReady := func(n *node, want ...string) {
		t.Helper()
		eventually(t, 20*time.Second, func() error {
			_, err := get(n.url("/-/ready?verbose"), nil)
			if status(err) != 503 {
				return fmt.Errorf("%s: %w, want 503", n.name, err)
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					return fmt.Errorf("%s: %q is not in %w", n.name, w, err)
				}
			}
			return nil
		})
		if _, err := get(n.url("/-/healthy"), nil); err != nil {
			t.Errorf("%s is not ready, and not healthy either: %v", n.name, err)
		}
	}
	alone := newPlainNode(t, "query", "query")
	alone.start()
	notReady(alone, "[-] endpoints: ", "--endpoint", "[+] query")

	ports := freePorts(t, 2)
	join := "--gossip.join=" + addr(ports[0])
	d := newPlainNode(t, "distributor", "distributor", "--gossip.address="+addr(ports[1]), join)
	d.start()
	notReady(d, "[-] distributor: ", "no members", "[-] gossip: ", addr(ports[0]))
	_, err := do(http.MethodPost, d.url("/api/v1/receive"), writeHeader(nil), writeBody("x", 1, time.Now().UnixMilli()))
	if status(err) != 503 {
		t.Errorf("a write that nobody can take: %v, want 503", err)
	}
	r := newPlainNode(t, "receive", "receive", "--gossip.address="+addr(ports[0]))
	r.start()
	for _, n := range []*node{r, d} {
		n.waitReady()
	}
	_, err = do(http.MethodPost, d.url("/api/v1/receive"), writeHeader(nil), writeBody("x", 1, time.Now().UnixMilli()))
	if err != nil {
		t.Error(err)
	}
}

// TestPage: a browser finds a page at / of what answers queries, and nothing at paths that do not exist.
func TestPage(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"all", "query"} {
		n := newRole(t, role)
		n.start()
		n.waitReady()
		page, err := get(n.url("/"), nil)
		if err != nil || !bytes.Contains(bytes.ToLower(page), []byte("<!doctype html>")) ||
			!bytes.Contains(page, []byte("Hearth")) {
			t.Errorf("%s: %v %.300s", role, err, page)
		}
		if role == "all" && !strings.Contains(n.output(), "remote_write:") {
			t.Error("the first thing to do is not printed")
		}
		if _, err := get(n.url("/api/v1/nothing"), nil); status(err) != 404 {
			t.Errorf("%s: /api/v1/nothing: %v, want 404", role, err)
		}
	}
}

// metricIs looks for a line of /metrics whose name and labels match pattern and whose value is want.
func metricIs(n *node, pattern string, want float64) error {
	page, err := get(n.url("/metrics"), nil)
	if err != nil {
		return err
	}
	return metricOn(page, pattern, want)
}

// metricOn is metricIs for a page of /metrics. Metrics that must be so at one time must be from one page.
func metricOn(page []byte, pattern string, want float64) error {
	re := regexp.MustCompile(`(?m)^` + pattern + ` (\S+)$`)
	found := re.FindAllStringSubmatch(string(page), -1)
	for _, m := range found {
		if v, err := strconv.ParseFloat(m[1], 64); err == nil && v == want {
			return nil
		}
	}
	return fmt.Errorf("no %s is %v: %q", pattern, want, found)
}
