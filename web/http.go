package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// policy allows the page to use its own server and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// blocksPage is the page of the blocks of a bucket.
const blocksPage = "blocks.html"

// Handler serves the page at /, that of blocks at /blocks, its files and state below /ui/, and redirects from the
// addresses of Thanos's and Prometheus's graph pages. It is to be mounted on "/" (without a method) and answers 404
// for what it does not know.
func (w *Web) Handler() http.Handler {
	mux := http.NewServeMux()
	page := func(asset string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) { w.serveAsset(rw, r, asset) }
	}
	home := "index.html"
	if w.opts.OnlyBlocks {
		home = blocksPage
	}
	mux.HandleFunc("GET /{$}", page(home))
	for _, path := range []string{"/blocks", "/global", "/loaded"} { // the latter two are Thanos's
		mux.HandleFunc("GET "+path, page(blocksPage))
	}
	mux.HandleFunc("GET /ui/{name...}", func(rw http.ResponseWriter, r *http.Request) {
		w.serveAsset(rw, r, r.PathValue("name"))
	})
	mux.HandleFunc("GET /ui/state", w.serveState)
	mux.HandleFunc("GET /favicon.ico", page("icon.svg"))
	mux.HandleFunc("GET /graph", redirectGraph)
	mux.HandleFunc("GET /query", redirectGraph)
	return mux
}

func (w *Web) serveAsset(rw http.ResponseWriter, r *http.Request, name string) {
	a, ok := w.assets[name]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	h := rw.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "no-cache") // the browser asks each time, and gets no body if the tag is the same
	h.Set("ETag", a.tag)
	if strings.Contains(r.Header.Get("If-None-Match"), a.tag) {
		rw.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = rw.Write(a.body) // an error means that the client is gone
}

func (w *Web) serveState(rw http.ResponseWriter, r *http.Request) {
	state := struct {
		Version        string    `json:"version"`
		Now            time.Time `json:"now"`
		RemoteWriteURL string    `json:"remoteWriteURL,omitempty"`
		Parts          []Part    `json:"parts"`
	}{Version: w.opts.Version, Now: time.Now().UTC(), Parts: []Part{}}
	if w.opts.RemoteWriteURL != nil {
		state.RemoteWriteURL = w.opts.RemoteWriteURL(r)
	}
	if w.opts.Parts != nil {
		state.Parts = append(state.Parts, w.opts.Parts(r)...)
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(rw).Encode(state) // an error means that the client is gone
}

// redirectGraph turns a link to the first panel of a Thanos or Prometheus graph page into one to this page.
func redirectGraph(rw http.ResponseWriter, r *http.Request) {
	from, to := r.URL.Query(), url.Values{}
	for name, old := range map[string]string{"expr": "g0.expr", "range": "g0.range_input"} {
		if v := from.Get(old); v != "" {
			to.Set(name, v)
		}
	}
	if tab := from.Get("g0.tab"); tab == "1" || tab == "table" {
		to.Set("tab", "table")
	}
	location := "./" // relative: the server may be behind a path prefix
	if len(to) > 0 {
		location += "?" + to.Encode()
	}
	rw.Header().Set("Location", location)
	rw.WriteHeader(http.StatusFound)
}
