package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func get(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var reference = regexp.MustCompile(`(?:src|href)="([^"]*)"|from "\./([^"]*)"`)

// The page must load with what it refers to, and refer to nothing that is elsewhere or that its policy forbids.
func TestPageIsComplete(t *testing.T) {
	h := New(Options{}).Handler()
	page := get(h, "/")
	if page.Code != 200 ||
		!strings.Contains(page.Header().Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'") {
		t.Fatalf("page: %d %v", page.Code, page.Header())
	}
	if strings.Contains(page.Body.String(), "style=\"") ||
		regexp.MustCompile(`<script>|<style>| on[a-z]+="`).MatchString(page.Body.String()) {
		t.Error("inline script or style, which the policy forbids")
	}
	types := map[string]string{".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
	seen, queue := map[string]bool{}, []string{"/", "/blocks"}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		w := get(h, at)
		if w.Code != 200 {
			t.Errorf("%s: %d", at, w.Code)
		}
		if i := strings.LastIndexByte(at, '.'); i > 0 && !strings.HasPrefix(w.Header().Get("Content-Type"), types[at[i:]]) {
			t.Errorf("%s: content type %q", at, w.Header().Get("Content-Type"))
		}
		for _, m := range reference.FindAllStringSubmatch(w.Body.String(), -1) {
			next := "/" + m[1]
			if m[2] != "" {
				next = "/ui/" + m[2]
			}
			if strings.HasPrefix(m[1], "/") {
				t.Errorf("%s refers to %s: not relative, so it breaks under a path prefix", at, m[1])
			}
			if strings.HasPrefix(next, "/ui/") && !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	for name := range New(Options{}).assets {
		if !strings.HasSuffix(name, ".html") && !seen["/ui/"+name] {
			t.Errorf("%s is embedded and never used", name)
		}
	}
}

// Where there are only blocks, their page is the first one; Thanos's addresses of it are known, too.
func TestBlocksPage(t *testing.T) {
	blocks := get(New(Options{}).Handler(), "/blocks").Body.String()
	if !strings.Contains(blocks, "ui/blocks.js") {
		t.Fatal(blocks)
	}
	h := New(Options{OnlyBlocks: true}).Handler()
	for _, path := range []string{"/", "/global", "/loaded"} {
		if got := get(h, path).Body.String(); got != blocks {
			t.Errorf("%s: %.200s", path, got)
		}
	}
	if get(New(Options{}).Handler(), "/").Body.String() == blocks {
		t.Error("the first page is that of blocks")
	}
}

func TestNoExternalAddresses(t *testing.T) {
	for name, a := range New(Options{}).assets {
		for _, url := range regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]+[^\s"]*`).FindAllString(string(a.body), -1) {
			if url != "http://www.w3.org/2000/svg" { // a namespace: never fetched
				t.Errorf("%s names %s", name, url)
			}
		}
	}
}

func TestUnchangedAssetIsShort(t *testing.T) {
	h := New(Options{}).Handler()
	tag := get(h, "/ui/main.js").Header().Get("ETag")
	if w := get(h, "/ui/main.js", "If-None-Match", tag); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("same tag: %d, %d bytes", w.Code, w.Body.Len())
	}
	if w := get(h, "/ui/main.js", "If-None-Match", `"other"`); w.Code != 200 {
		t.Errorf("other tag: %d", w.Code)
	}
}

func TestUnknownPaths(t *testing.T) {
	h := New(Options{}).Handler()
	for _, p := range []string{"/nothing", "/ui/", "/ui/nothing.js", "/ui/../web.go", "/api/v1/nothing"} {
		if w := get(h, p); w.Code == 200 {
			t.Errorf("%s: %d", p, w.Code)
		}
	}
}

func TestState(t *testing.T) {
	h := New(Options{
		Version:        "1.2.3",
		RemoteWriteURL: func(r *http.Request) string { return "http://" + r.Host + "/api/v1/write" },
		Parts: func(*http.Request) []Part {
			return []Part{{"tsdb", "ready", ""}, {"ring", "opening", "1 of 3 <members>"}}
		},
	}).Handler()
	var got struct {
		Version, RemoteWriteURL string
		Parts                   []Part
	}
	if err := json.Unmarshal(get(h, "/ui/state").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := []Part{{"tsdb", "ready", ""}, {"ring", "opening", "1 of 3 <members>"}}
	if got.Version != "1.2.3" || got.RemoteWriteURL != "http://example.com/api/v1/write" ||
		!slices.Equal(got.Parts, want) {
		t.Errorf("%+v", got)
	}
	if w := get(New(Options{}).Handler(), "/ui/state"); !strings.Contains(w.Body.String(), `"parts":[]`) {
		t.Errorf("no options: %s", w.Body)
	}
}

func TestGraphRedirect(t *testing.T) {
	h := New(Options{}).Handler()
	f := func(target, want string) {
		t.Helper()
		if w := get(h, target); w.Code != 302 || w.Header().Get("Location") != want {
			t.Errorf("%s: %d %q, want %q", target, w.Code, w.Header().Get("Location"), want)
		}
	}
	f("/graph", "./")
	f("/graph?g0.expr=sum(up)&g0.range_input=6h&g0.tab=0", "./?expr=sum%28up%29&range=6h")
	f("/graph?g0.expr=up&g0.tab=1&g1.expr=down", "./?expr=up&tab=table")
	f("/query?g0.expr=up&g0.tab=table", "./?expr=up&tab=table")
}
