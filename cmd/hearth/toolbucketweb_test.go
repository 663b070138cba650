package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// TestToolWeb: the page and its API below a prefix, with marks and without.
func TestToolWeb(t *testing.T) {
	dir := toolBucket(t)
	start := func(args ...string) (get func(method, target string, more ...string) (int, string)) {
		p := startRole(t, append([]string{"tools", "bucket", "web", "--http-address=127.0.0.1:0", "--log.level=error", bucketFlag(dir)}, args...))
		return func(method, target string, more ...string) (int, string) {
			return raw(t, p.listeners[0].Addr(), method, target, "", more...)
		}
	}
	type answer struct {
		Data struct {
			Label  string
			Err    *string
			Blocks []struct{ ULID string }
		}
	}
	list := func(get func(string, string, ...string) (int, string), target string) (a answer) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			_, body := get("GET", target)
			if err := json.Unmarshal([]byte(body), &a); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if a.Data.Err == nil {
				return a
			}
			if time.Now().After(deadline) {
				t.Fatalf("not listed: %s", body)
			}
			a = answer{}
		}
	}
	get := start("--label=tenant_id", "--web.external-prefix=/a/b/", "--max-time=2025-12-10T00:00:00Z", "--disable-admin-operations")
	if a := list(get, "/a/b/api/v1/blocks?view=global"); a.Data.Label != "tenant_id" || len(a.Data.Blocks) != 14 ||
		a.Data.Blocks[0].ULID != toolID(23).String() {
		t.Errorf("%+v", a)
	}
	for target, want := range map[string]int{"/": 302, "/a/b": 302, "/a/b/": 200, "/a/b/blocks": 200, "/a/b/ui/blocks.js": 200, "/-/ready": 200, "/metrics": 200,
		"/api/v1/blocks": 404, "/a/": 404, "/a/b/api/v1/blocks/meta?id=" + toolID(1).String(): 200} {
		if code, body := get("GET", target); code != want {
			t.Errorf("%s: %d %.100s", target, code, body)
		}
	}
	mark := []string{"Content-Length: 0", "Content-Type: application/x-www-form-urlencoded"}
	target := "/api/v1/blocks/mark?id=" + toolID(1).String() + "&action=NO_COMPACTION&detail=d"
	if code, body := get("POST", "/a/b"+target, mark...); code != 403 || !strings.Contains(body, "Admin operations are disabled") {
		t.Errorf("%d %s", code, body)
	}
	if tree(t, dir)[block.Object(toolID(1), block.NoCompactMarkName)] != "" {
		t.Error("it was marked")
	}
	get = start()
	list(get, "/api/v1/blocks")
	if code, body := get("POST", target, mark...); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if tree(t, dir)[block.Object(toolID(1), block.NoCompactMarkName)] == "" {
		t.Error("it was not marked")
	}
	if code, body := get("GET", "/"); code != 200 || !strings.Contains(body, "ui/blocks.js") {
		t.Errorf("%d %.200s", code, body)
	}
}
