package receive

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// HandleFlush serves POST /api/v1/admin/flush: it cuts all heads, ships all blocks, and answers 204 when that is
// done.
func (r *Receiver) HandleFlush(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST flushes", http.StatusMethodNotAllowed)
		return
	}
	if err := r.Flush(req.Context()); err != nil {
		httpx.WriteError(w, req, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// HandleDrain serves /ring/drain: GET shows the progress, POST begins a drain, unless one has begun, and answers 202.
// It answers 409 if the other members could not take the writes; the form value force=true begins a drain all the
// same.
func (d *Drainer) HandleDrain(w http.ResponseWriter, req *http.Request) {
	status := http.StatusOK
	switch req.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		if err := d.request(req); err != nil {
			httpx.WriteError(w, req, err)
			return
		}
		status = http.StatusAccepted
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "GET shows a drain, POST begins one", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(d.Status()) // an error means that the client is gone
}

// request begins the drain that req asks for.
func (d *Drainer) request(req *http.Request) error {
	if d.opts.Refuse {
		return errs.E(errs.Forbidden, "admin operations are disabled")
	}
	if err := httpx.SameOrigin(req); err != nil {
		return err
	}
	if err := d.ring.Spare(); err != nil && !d.begun() && !strings.EqualFold(req.FormValue("force"), "true") {
		return errs.E(errs.Conflict, "%w; force=true drains all the same", err)
	}
	return d.Begin()
}
