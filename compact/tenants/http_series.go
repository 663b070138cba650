package tenants

import (
	"math"
	"net/http"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/promapi"
)

// handleDeleteSeries asks for the deletion of samples of the tenant that the parameter tenant names: of the series that
// one of the selectors match[] matches, from start to end, after delay, for a reason.
func (t *Tenants) handleDeleteSeries(w http.ResponseWriter, r *http.Request) {
	t.answer(w, r, func(f form) (any, error) { return t.deleteSeries(r, f) })
}

func (t *Tenants) deleteSeries(r *http.Request, f form) (change.SeriesPlan, error) {
	ctx := r.Context()
	id, delay, err := f.parse()
	if err != nil {
		return change.SeriesPlan{}, err
	}
	s := deletion.Series{Selectors: r.Form["match[]"]}
	if s.MinTime, err = promapi.Time(r, "start", 0); err != nil {
		return change.SeriesPlan{}, err
	}
	if s.MaxTime, err = promapi.Time(r, "end", math.MaxInt64); err != nil {
		return change.SeriesPlan{}, err
	}
	of, err := block.ReadIdentity(ctx, t.bkt)
	if err != nil {
		return change.SeriesPlan{}, err
	}
	v, err := t.looker.Look(ctx)
	if err != nil {
		return change.SeriesPlan{}, err
	}
	p, err := change.DeleteSeries(v, of, id, s, t.now(), change.Asked{By: f.by, Tool: "compact/delete-series",
		Reason: f.reason, Delay: delay})
	if err != nil {
		return p, err
	}
	audit, err := change.ApplyDeletion(ctx, t.bkt, p.Request, t.now)
	if err != nil {
		return p, err
	}
	t.log.Warn("deletion of series was asked for", "tenant", id, "request", p.Request.ID.String(), "series",
		strings.Join(s.Selectors, " or "), "by", f.by, "reason", f.reason, "blocks", len(p.Blocks), "audit", audit)
	return p, nil
}

// handleUndeleteSeries undoes the deletion of series that the parameter request names; with end=true it ends one that
// is due.
func (t *Tenants) handleUndeleteSeries(w http.ResponseWriter, r *http.Request) {
	t.answer(w, r, func(f form) (any, error) { return t.undeleteSeries(r, f) })
}

func (t *Tenants) undeleteSeries(r *http.Request, f form) (deletion.Request, error) {
	ctx := r.Context()
	id, err := ulid.ParseStrict(r.FormValue("request"))
	if err != nil {
		return deletion.Request{}, errs.E(errs.Invalid, "request %q: %w", r.FormValue("request"), err)
	}
	end, err := flag(r, "end")
	if err != nil {
		return deletion.Request{}, err
	}
	list, err := deletion.NewReader(t.bkt).Read(ctx)
	if err != nil {
		return deletion.Request{}, err
	}
	e, err := change.UndeleteSeries(list, id, end, t.now())
	if err != nil {
		return deletion.Request{}, err
	}
	says := deletion.NewChange(e.ID, t.now())
	says.By, says.Tool, says.Reason = f.by, "compact/undelete-series", f.reason
	audit, err := change.ApplyUndo(ctx, t.bkt, says, end, t.now)
	if err != nil {
		return deletion.Request{}, err
	}
	t.log.Warn("deletion of series was undone, or ended", "tenant", e.Tenant, "request", e.ID.String(), "end", end, "by",
		f.by, "reason", f.reason, "audit", audit)
	return e.Request, nil
}
