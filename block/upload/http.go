package upload

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Routes are those of Mimir's compactor. tenantOf finds the tenant of a request.
func (r *Receiver) Routes(tenantOf func(*http.Request) (tenant.ID, error)) []httpx.Route {
	const prefix = "/api/v1/upload/block/{block}/"
	route := func(pattern string, do func(http.ResponseWriter, *http.Request, ulid.ULID, tenant.ID) error) httpx.Route {
		return httpx.Route{Pattern: pattern, Class: httpx.Operator, Handler: httpx.HandlerFunc(
			func(w http.ResponseWriter, req *http.Request) {
				id, err := r.admit(req)
				var t tenant.ID
				if err == nil {
					t, err = tenantOf(req)
				}
				if err == nil {
					err = do(w, req, id, t)
				}
				if err != nil {
					httpx.WriteError(w, req, err)
				}
			})}
	}
	return []httpx.Route{
		route("POST "+prefix+"start", r.serveStart),
		route("POST "+prefix+"files", r.serveFiles),
		route("POST "+prefix+"finish", r.serveFinish),
		route("GET "+prefix+"check", r.serveCheck),
	}
}

// admit returns the block of a request that may be answered. Errors: Forbidden; Invalid.
func (r *Receiver) admit(req *http.Request) (id ulid.ULID, err error) {
	if r.opts.Refuse && req.Method != http.MethodGet {
		return id, errs.E(errs.Forbidden, "this process takes no changes from operators (--disable-admin-operations)")
	}
	if err := httpx.SameOrigin(req); err != nil {
		return id, err
	}
	text := req.PathValue("block")
	id, ok := block.ParseID(text)
	if !ok || text != id.String() {
		return id, errs.E(errs.Invalid, "%q is no id of a block", text)
	}
	return id, nil
}

func (r *Receiver) serveStart(w http.ResponseWriter, req *http.Request, id ulid.ULID, t tenant.ID) error {
	raw, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxSession))
	if large := new(http.MaxBytesError); errors.As(err, &large) {
		return errs.E(errs.TooLarge, "a meta.json of more than %d bytes", large.Limit)
	}
	if err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	return r.start(req.Context(), id, t, raw)
}

func (r *Receiver) serveFiles(_ http.ResponseWriter, req *http.Request, id ulid.ULID, t tenant.ID) error {
	httpx.LongBody(req, r.opts.Lifetime)
	return r.put(req.Context(), id, t, req.URL.Query().Get("path"), req.Body, req.ContentLength)
}

func (r *Receiver) serveFinish(_ http.ResponseWriter, req *http.Request, id ulid.ULID, t tenant.ID) error {
	return r.finish(req.Context(), id, t)
}

func (r *Receiver) serveCheck(w http.ResponseWriter, req *http.Request, id ulid.ULID, t tenant.ID) error {
	state, fault, err := r.check(req.Context(), id, t)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// An error means that the client is gone.
	_ = json.NewEncoder(w).Encode(struct {
		Result string `json:"result"`
		Error  string `json:"error,omitempty"`
	}{state, fault})
	return nil
}
