package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

// ruleFile has all that rules can have, with results that need no data.
const ruleFile = `groups:
- name: first
  interval: 1s
  labels: {team: infra}
  rules:
  - {record: "one:sum", expr: "vector( 1 )", labels: {kind: sum}}
  - alert: Firing
    expr: vector(2) > 1
    keep_firing_for: 1m
    labels: {severity: "{{ $value }}"}
    annotations: {summary: "is {{ $value }}"}
  - {alert: Waiting, expr: vector(1), for: 1h}
  - {alert: Never, expr: vector(1) > 2}
- name: second
  limit: 5
  interval: 1s
  rules:
  - {record: fails, expr: 'label_replace(vector(1), "a", "$1", "b", "(.*)") + on() group_left() (vector(1) or on() vector(2))'}
`

// TestRulesAsPrometheus: the rules and alerts of a file are shown as a real Prometheus shows them.
func TestRulesAsPrometheus(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(ruleFile), 0o644); err != nil {
		t.Fatal(err)
	}
	_, base := startAll(t, t.TempDir(), "--rule-file="+file)
	_, prom := startPrometheus(t, func(string) string {
		return fmt.Sprintf("global: {evaluation_interval: 1s}\nrule_files: [%q]\n", file)
	})
	for _, path := range []string{
		"/api/v1/rules", "/api/v1/alerts", "/api/v1/rules?type=alert&exclude_alerts=true", "/api/v1/rules?type=record",
		`/api/v1/rules?match[]={team="infra",kind="sum"}`, "/api/v1/rules?rule_name[]=Never&rule_group[]=first",
		"/api/v1/rules?group_limit=1", "/api/v1/rules?file[]=none",
	} {
		eventually(t, 60*time.Second, func() error {
			want, got := rulesShape(t, prom+path), rulesShape(t, base+path)
			if want != got {
				return fmt.Errorf("%s: Prometheus\n%s\nHearth\n%s", path, want, got)
			}
			if path == "/api/v1/alerts" && !strings.Contains(want, `"firing"`) {
				return fmt.Errorf("nothing fires yet: %s", want)
			}
			return nil
		})
	}
}

// rulesShape is an answer in one form: without what Thanos adds, and without times, which are of each process.
func rulesShape(t *testing.T, url string) string {
	t.Helper()
	body, err := get(url, nil)
	if err != nil {
		return err.Error()
	}
	var answer any
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	var plain func(any) any
	plain = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "partialResponseStrategy")
			for key, item := range v {
				switch key {
				case "evaluationTime":
					v[key] = fmt.Sprintf("%T", item)
				case "lastEvaluation", "activeAt":
					if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(item)); err != nil {
						t.Errorf("%s: %s %v: %v", url, key, item, err)
					}
					v[key] = ""
				case "alerts": // Prometheus says null where alerts are left out, which clients may take amiss
					if item == nil {
						v[key] = []any{}
					} else {
						v[key] = plain(item)
					}
				default:
					v[key] = plain(item)
				}
			}
			return v
		case []any:
			for i := range v {
				v[i] = plain(v[i])
			}
			if len(v) > 0 {
				if first, ok := v[0].(map[string]any); ok && first["annotations"] != nil { // alerts come in any order
					sort.Slice(v, func(i, j int) bool { return fmt.Sprint(v[i]) < fmt.Sprint(v[j]) })
				}
			}
			return v
		}
		return v
	}
	out, err := json.MarshalIndent(plain(answer), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestRulesAPI: a rule that a tenant stores by Mimir's API runs, is there after a restart, and ends when it is deleted.
func TestRulesAPI(t *testing.T) {
	t.Parallel()
	n := newPlainNode(t, "all", "all", "--self-scrape.interval=0s")
	n.start()
	n.waitReady()
	do := func(method, path, body string, want int) string {
		t.Helper()
		req, err := http.NewRequest(method, n.url(path), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Scope-OrgID", "acme")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s %s: %d %s, %v; want %d", method, path, resp.StatusCode, raw, err, want)
		}
		return string(raw)
	}
	const config = "/prometheus/config/v1/rules"
	if text := do("GET", "/api/v1/status/buildinfo", "", 200); !strings.Contains(text, `"ruler_config_api":"true"`) {
		t.Errorf("build information: %s", text)
	}
	do("POST", config+"/a%2Fb", "name: g\ninterval: 1s\nrules:\n- {record: stored, expr: vector(7)}\n", 202)
	acme := n.api("acme")
	acme.has(t, "stored", 7)
	n.kill()
	n.start()
	n.waitReady()
	if text := do("GET", config, "", 200); !strings.HasPrefix(text, "a/b:\n    - name: g\n") {
		t.Errorf("after a crash: %s", text)
	}
	acme.has(t, "sum(count_over_time(stored[1h])) > bool 0", 1)
	if text := do("GET", "/api/v1/rules", "", 200); !strings.Contains(text, `"file":"a/b"`) {
		t.Errorf("rules: %s", text)
	}
	body, err := get(n.url("/api/v1/rules"), nil)
	if err != nil || !bytes.Contains(body, []byte(`"groups":[]`)) {
		t.Errorf("another tenant sees %s, %v", body, err)
	}
	do("DELETE", config+"/a%2Fb/g", "", 202)
	eventually(t, 30*time.Second, func() error {
		if text := do("GET", "/api/v1/rules", "", 200); !strings.Contains(text, `"groups":[]`) {
			return fmt.Errorf("the group is still there: %s", text)
		}
		return nil
	})
	do("GET", config+"/a%2Fb/g", "", 404)
}
