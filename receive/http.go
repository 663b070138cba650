package receive

import (
	"net/http"

	"github.com/hearth-metrics/hearth/internal/httpx"
)

// HandleFlush serves POST /api/v1/admin/flush: it cuts heads into blocks, ships them, and answers 204 when that is done.
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
