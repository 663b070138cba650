package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
)

//go:embed app
var app embed.FS

// Part is one part of the process as the page shows it.
type Part struct {
	// Name of the part: "tsdb", "ring".
	Name string `json:"name"`
	// State is one word: "ready" or what it is instead.
	State string `json:"state"`
	// Detail says why, or more; it may be empty.
	Detail string `json:"detail,omitempty"`
}

// Options of the page. Every field may be zero.
type Options struct {
	// Version of Hearth.
	Version string
	// RemoteWriteURL is where a Prometheus sends samples, as the sender of the request reaches this process; nil = this
	// process takes none.
	RemoteWriteURL func(*http.Request) string
	// Parts returns the process's parts as the sender of the request may see them. It must return at once.
	Parts func(*http.Request) []Part
	// OnlyBlocks says that the process answers no queries, and lists blocks: the page of blocks is the first one.
	OnlyBlocks bool
}

// Web serves the page.
type Web struct {
	opts   Options
	assets map[string]asset // by path below /ui/
}

type asset struct {
	body        []byte
	contentType string
	tag         string // entity tag: the content's hash
}

// New returns the page. It panics only when the binary was built without it.
func New(opts Options) *Web {
	w := &Web{opts: opts, assets: map[string]asset{}}
	err := fs.WalkDir(app, "app", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := app.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		w.assets[name[len("app/"):]] = asset{body, contentType(name), `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	if err != nil {
		panic("BUG: embedded page: " + err.Error())
	}
	return w
}

// contentType is the type of a file. For types about which browsers are strict, it does not use the machine's MIME
// tables, since these may be wrong.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(path.Ext(name))
}
