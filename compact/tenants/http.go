package tenants

import (
	"net/http"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Routes are what operators ask.
func (t *Tenants) Routes() []httpx.Route {
	return []httpx.Route{
		{Pattern: "POST /compact/delete-tenant", Class: httpx.Operator, Handler: httpx.HandlerFunc(t.handleDelete)},
		{Pattern: "POST /compact/undelete-tenant", Class: httpx.Operator, Handler: httpx.HandlerFunc(t.handleUndelete)},
		{Pattern: "POST /compact/delete-series", Class: httpx.Operator, Handler: httpx.HandlerFunc(t.handleDeleteSeries)},
		{Pattern: "POST /compact/undelete-series", Class: httpx.Operator,
			Handler: httpx.HandlerFunc(t.handleUndeleteSeries)},
	}
}

// handleDelete asks for the deletion of the tenant that the parameter tenant names, after delay, for a reason. confirm
// is the digest of its blocks.
func (t *Tenants) handleDelete(w http.ResponseWriter, r *http.Request) {
	t.answer(w, r, func(f form) (any, error) { return t.delete(r.Context(), f) })
}

// handleUndelete undoes the deletion of the tenant that the parameter tenant names; with anew=true that tenant may be
// made anew.
func (t *Tenants) handleUndelete(w http.ResponseWriter, r *http.Request) {
	t.answer(w, r, func(f form) (any, error) { return t.undelete(r.Context(), f) })
}

// maxForm bounds the form of a request, in bytes.
const maxForm = 32 << 10

// answer reads the form of a request and answers with what do returns.
func (t *Tenants) answer(w http.ResponseWriter, r *http.Request, do func(form) (any, error)) {
	var out any
	f, err := t.read(w, r)
	if err == nil {
		out, err = do(f)
	}
	if err != nil {
		httpx.WriteError(w, r, err)
		return
	}
	httpx.WriteData(w, out)
}

func (t *Tenants) read(w http.ResponseWriter, r *http.Request) (form, error) {
	if err := httpx.ReadChange(w, r, t.refuse, maxForm); err != nil {
		return form{}, err
	}
	f := form{tenant: r.FormValue("tenant"), delay: r.FormValue("delay"), reason: r.FormValue("reason"),
		confirm: r.FormValue("confirm"), by: "an operator at " + r.RemoteAddr}
	if g := tenant.GrantFrom(r.Context()); g != nil && g.User != "" {
		f.by = g.User + " at " + r.RemoteAddr
	}
	var err error
	f.anew, err = flag(r, "anew")
	return f, err
}

// flag reads a parameter that is true or false; false if it is absent.
func flag(r *http.Request, name string) (bool, error) {
	switch text := r.FormValue(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, errs.E(errs.Invalid, "%s is neither true nor false: %q", name, text)
	}
}
