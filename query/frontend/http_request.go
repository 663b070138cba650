package frontend

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// request is a range query that can be cut. The tag key of each field says whether the field is in the key of a cache
// entry, or why not; TestKeyHasEveryField checks it.
type request struct {
	tenants []tenant.ID `key:"yes"`
	// text is the expression.
	text string `key:"yes"`
	// from and to are the first and the last step, and step is the time between two, all in ms.
	from int64 `key:"its place between two steps, and its interval"`
	to   int64 `key:"no: an entry says which steps it has"`
	step int64 `key:"yes"`
	// reach says which samples a step needs.
	reach expr.Reach `key:"no: text has it"`

	dedup         string   `key:"yes"`
	replicaLabels []string `key:"yes"`
	partial       string   `key:"yes"`
	resolution    string   `key:"yes"`
	lookback      string   `key:"yes"`
	engine        string   `key:"yes"`

	timeout string `key:"no: it does not change an answer that was given in time"`
	// read and write say whether an answer may come from the cache, and whether it may go there.
	read  bool `key:"no: such a request does not read"`
	write bool `key:"no: such an answer is not written"`
}

// parameters are those that parse understands. A request with any other one is passed on as it is.
var parameters = []string{"query", "start", "end", "step", "timeout", "dedup", "replicaLabels[]", "partial_response",
	"max_source_resolution", "lookback_delta", "engine"}

// maxSteps is how many steps Prometheus answers.
const maxSteps = 11000

// parse reads a range query. ok is false for one that is not cut, as it is wrong, or asks for something else than
// values: whoever evaluates it says what is wrong. The form of r has been parsed.
func parse(r *http.Request, tenants []tenant.ID, p expr.Parser) (q request, ok bool) {
	for name, values := range r.Form {
		if !slices.Contains(parameters, name) || len(values) > 1 && name != "replicaLabels[]" {
			return q, false
		}
	}
	from, err1 := promapi.Time(r, "start", -1)
	to, err2 := promapi.Time(r, "end", -1)
	step, ok := duration(r.FormValue("step"))
	if err1 != nil || err2 != nil || !ok || from < 0 || to < from || step <= 0 || (to-from)/step > maxSteps {
		return q, false
	}
	e, err := p.ParseExpr(r.FormValue("query"))
	if err != nil {
		return q, false
	}
	if t := string(e.Type()); t != "vector" && t != "scalar" {
		return q, false
	}
	to -= (to - from) % step
	q = request{tenants: tenants, text: r.FormValue("query"), from: from, to: to, step: step,
		dedup: r.FormValue("dedup"), replicaLabels: r.Form["replicaLabels[]"], partial: r.FormValue("partial_response"),
		resolution: r.FormValue("max_source_resolution"), lookback: r.FormValue("lookback_delta"),
		engine: r.FormValue("engine"), timeout: r.FormValue("timeout")}
	q.reach, ok = expr.ReachOf(e)
	q.read, q.write = cacheControl(r.Header)
	return q, ok
}

// duration reads a step: seconds, or a duration as Prometheus writes it. It must be a whole number of ms.
func duration(text string) (ms int64, ok bool) {
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		d := s * 1000
		return int64(d), d >= 1 && d < float64(1<<53) && d == float64(int64(d))
	}
	d, err := model.ParseDuration(text)
	return time.Duration(d).Milliseconds(), err == nil
}

// cacheControl says what a client allows.
func cacheControl(h http.Header) (read, write bool) {
	read, write = true, true
	for _, d := range directives(h) {
		switch d {
		case "no-store":
			return false, false
		case "no-cache", "max-age=0":
			read = false
		}
	}
	return read, write
}

// form is what is asked for the steps from one time to another, both included, in ms.
func (q *request) form(from, to int64) url.Values {
	form := url.Values{"query": {q.text}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {seconds(q.step)}}
	for name, text := range map[string]string{"dedup": q.dedup, "partial_response": q.partial,
		"max_source_resolution": q.resolution, "lookback_delta": q.lookback, "engine": q.engine, "timeout": q.timeout} {
		if text != "" {
			form.Set(name, text)
		}
	}
	if len(q.replicaLabels) > 0 {
		form["replicaLabels[]"] = q.replicaLabels
	}
	return form
}

// seconds writes a time or a duration in ms as the API reads it.
func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64) }
