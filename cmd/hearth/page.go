package main

import (
	"net/http"

	"github.com/prometheus/common/version"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/web"
)

// pageRoutes serve the page for people. writeURL is where to send samples, nil where none are taken. The page is open
// to everybody: it holds nothing of tenants, and what it shows comes from routes that have their own class.
func (b *builder) pageRoutes(writeURL func(*http.Request) string) []httpx.Route {
	page := web.New(web.Options{Version: version.Version, RemoteWriteURL: writeURL, Parts: b.parts})
	return []httpx.Route{{Pattern: "/", Class: httpx.Open, Early: true, Handler: page.Handler()}}
}

// writeURL is where the sender of r reaches this process's remote write.
func writeURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + "/api/v1/receive"
}

// parts are the process's parts as the page shows them to the sender of r.
func (p *process) parts(r *http.Request) []web.Part {
	var parts []web.Part
	for _, s := range p.health.StatesFor(r) {
		part := web.Part{Name: s.Name, State: "ready"}
		if s.Err != nil {
			part.State, part.Detail = "not ready", s.Err.Error()
		}
		if s.Err != nil && s.Advisory {
			part.State = "impaired"
		}
		parts = append(parts, part)
	}
	return parts
}
