package compact

import (
	"bytes"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// Routes are what operators ask a compactor.
func (c *Compactor) Routes() []httpx.Route {
	return []httpx.Route{
		{Pattern: "/compact", Class: httpx.Operator, Early: true, Handler: httpx.HandlerFunc(c.handleStatus)},
		{Pattern: "POST /compact/release", Class: httpx.Operator, Handler: httpx.HandlerFunc(c.handleRelease)},
	}
}

// maxForm bounds the form of a release, in bytes.
const maxForm = 4 << 10

// handleRelease releases the block or job that the parameter id names.
func (c *Compactor) handleRelease(w http.ResponseWriter, r *http.Request) {
	if err := c.release(w, r); err != nil {
		httpx.WriteError(w, r, err)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Location", "../compact") // relative: the server may be behind a path prefix
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	httpx.WriteData(w, nil)
}

func (c *Compactor) release(w http.ResponseWriter, r *http.Request) error {
	if err := httpx.ReadChange(w, r, c.opts.Refuse, maxForm); err != nil {
		return err
	}
	id, err := ulid.ParseStrict(r.FormValue("id"))
	if err != nil {
		return errs.E(errs.Invalid, "id %q: %w", r.FormValue("id"), err)
	}
	return c.Release(r.Context(), id)
}

// handleStatus shows what the compactor does: as a page to browsers, else as JSON.
func (c *Compactor) handleStatus(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		httpx.WriteStatus(w, r, http.StatusMethodNotAllowed, errs.E(errs.Unsupported, "method %s", r.Method))
		return
	}
	s := c.Status()
	if !strings.Contains(r.Header.Get("Accept"), "text/html") || r.URL.Query().Get("format") == "json" {
		httpx.WriteData(w, s)
		return
	}
	var b bytes.Buffer
	if err := page.Execute(&b, s); err != nil {
		httpx.WriteError(w, r, errs.E(errs.Internal, "page of the compactor: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}

// page is the page at /compact. All that comes from the bucket is escaped by the template.
var page = template.Must(template.New("compact").Funcs(template.FuncMap{
	"ms": func(t int64) string { return time.UnixMilli(t).UTC().Format("2006-01-02 15:04") },
	"at": func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format("2006-01-02 15:04:05")
	},
	"unix": func(t int64) string { return time.Unix(t, 0).UTC().Format("2006-01-02 15:04:05") },
	"mb":   func(n int64) int64 { return n >> 20 },
	"rate": func(n float64) int64 { return int64(n) >> 20 },
	"seconds": func(n float64) string {
		if n <= 0 {
			return "-"
		}
		return (time.Duration(n) * time.Second).String()
	},
	"resolution": func(ms int64) string {
		if ms == 0 {
			return "raw"
		}
		return strings.TrimSuffix(strings.TrimSuffix((time.Duration(ms)*time.Millisecond).String(), "0s"), "0m")
	},
}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hearth: compactor</title>
<style>body{font:14px sans-serif;margin:1.5em}table{border-collapse:collapse;margin:.5em 0 1.5em}
th,td{border:1px solid #bbb;padding:.2em .6em;text-align:left;vertical-align:top}.bad{color:#a00}</style></head><body>
<h1>Compactor</h1>
{{with .Rests}}<p class="bad">Nothing is compacted, marked or deleted: {{.}}</p>{{end}}
<p>View {{.View}}: {{.Blocks}} blocks, {{.Marked}} of them marked for deletion. Times are in UTC.
<a href="?format=json">JSON</a></p>
{{with .Deletions}}<h2>Tenants that are deleted</h2>
<table><tr><th>request<th>tenant<th>state<th>asked<th>by<th>why<th>can be undone until<th>due<th>blocks left<th>MiB</tr>
{{range .}}<tr><td>{{.ID}}<td>{{.Tenant}}<td{{if eq .State "held"}} class="bad"{{end}}>{{.State}} {{.Fault}}` +
	`<td>{{ms .Asked}}<td>{{.By}}<td>{{.Reason}}<td>{{ms .UndoUntil}}<td>{{ms .Due}}<td>{{.Blocks}}<td>{{mb .Bytes}}` +
	`</tr>{{end}}</table>{{end}}
<h2>Passes</h2>
<table><tr><th>pass<th>began<th>ended<th>left undone</tr>
{{range .Passes}}<tr><td>{{.Name}}<td>{{at .Began}}<td>{{at .Ended}}<td class="bad">{{.Fault}}</tr>{{end}}</table>
<h2>Running jobs</h2>
<table><tr><th>output<th>kind<th>stream<th>resolution<th>from<th>to<th>inputs<th>MiB<th>step<th>MiB/s<th>left</tr>
{{range .Running}}<tr><td>{{.ID}}<td>{{.Kind}}<td>{{.Stream}}<td>{{resolution .Resolution}}<td>{{ms .MinTime}}` +
	`<td>{{ms .MaxTime}}<td>{{len .Inputs}}<td>{{mb .Read}} of {{mb .Bytes}}<td>{{.Step}}<td>{{rate .BytesPerSecond}}` +
	`<td>{{seconds .Left}}</tr>{{end}}</table>
<h2>Planned jobs</h2>
<table><tr><th>output<th>kind<th>stream<th>resolution<th>from<th>to<th>inputs<th>MiB<th>why</tr>
{{range .Planned}}<tr><td>{{.ID}}<td>{{.Kind}}<td>{{.Stream}}<td>{{resolution .Resolution}}<td>{{ms .MinTime}}` +
	`<td>{{ms .MaxTime}}<td>{{len .Inputs}}<td>{{mb .Bytes}}<td>{{.Reason}}</tr>{{end}}</table>
<h2>Failed jobs and quarantined blocks</h2>
<table><tr><th>what<th>id<th>since<th>tries<th>next try<th>error<th></tr>
{{range .Failed}}<tr><td>{{.Kind}}<td>{{.ID}}<td>{{unix .Since}}<td>{{.Tries}}<td>{{if .Next}}{{unix .Next}}{{else}}` +
	`never{{end}}<td class="bad">{{.Error}}<td><form method="post" action="compact/release">` +
	`<input type="hidden" name="id" value="{{.ID}}"><button>try again</button></form></tr>{{end}}</table>
</body></html>
`))
