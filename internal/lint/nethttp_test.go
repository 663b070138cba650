package lint

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// speakHTTP are the folders whose purpose is HTTP, or which wire it: every file of theirs may import net/http.
var speakHTTP = []string{"cmd/hearth", "internal/httpx", "internal/promapi", "bench", "test"}

// usesHTTP are single files elsewhere that import net/http, and why.
var usesHTTP = map[string]string{
	"distributor/body.go":        "it bounds and reads bodies of requests",
	"web/web.go":                 "its options are functions of a request",
	"block/refused.go":           "it tells errors of object stores apart by their status",
	"internal/tenant/resolve.go": "it finds tenants in headers and certificates",
}

// TestNetHTTP: in all other folders only http.go, or http_*.go, imports net/http. Whoever looks for what a component
// serves finds it there, and the rest of it can be used and tested without a request.
func TestNetHTTP(t *testing.T) {
	_, files := sources(t)
	used := map[string]bool{}
	for _, f := range files {
		name := filepath.Base(f.path)
		if f.test || name == "http.go" || strings.HasPrefix(name, "http_") || speaksHTTP(f.dir) {
			continue
		}
		if slices.Contains(f.imports(), "net/http") {
			if _, ok := usesHTTP[f.path]; !ok {
				t.Errorf("%s imports net/http: in its folder only http.go and http_*.go do", f.path)
			}
			used[f.path] = true
		}
	}
	for path := range usesHTTP {
		if !used[path] {
			t.Errorf("usesHTTP has %s, which does not import net/http", path)
		}
	}
}

func speaksHTTP(dir string) bool {
	return slices.ContainsFunc(speakHTTP, func(folder string) bool { return within(dir, folder) })
}
