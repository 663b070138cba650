package tenants

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/common/model"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Looker looks at the bucket now.
type Looker interface {
	Look(ctx context.Context) (block.View, error)
}

// Tenants takes requests of operators about the tenants of a bucket.
type Tenants struct {
	log    *slog.Logger
	bkt    objstore.Bucket
	looker Looker
	refuse bool
	now    func() time.Time
}

// New makes Tenants of bkt. looker sees the same bucket. refuse says that no request may change anything; now is the
// clock, nil = time.Now.
func New(log *slog.Logger, bkt objstore.Bucket, looker Looker, refuse bool, now func() time.Time) *Tenants {
	if now == nil {
		now = time.Now
	}
	return &Tenants{log.With("component", "tenants"), bkt, looker, refuse, now}
}

// form is what an operator says of a tenant that is to be deleted, or not.
type form struct {
	tenant, delay, reason, confirm string
	anew                           bool
	by                             string
}

// delete asks for the deletion of a tenant. It looks at the bucket at once, so that what is confirmed is what there is.
func (t *Tenants) delete(ctx context.Context, f form) (change.TenantPlan, error) {
	id, delay, err := f.parse()
	if err != nil {
		return change.TenantPlan{}, err
	}
	of, err := block.ReadIdentity(ctx, t.bkt)
	if err != nil {
		return change.TenantPlan{}, err
	}
	v, err := t.looker.Look(ctx)
	if err != nil {
		return change.TenantPlan{}, err
	}
	p, err := change.DeleteTenant(v, of, id, t.now(), change.Asked{By: f.by, Tool: "compact/delete-tenant",
		Reason: f.reason, Delay: delay, Confirm: f.confirm})
	if err != nil {
		return p, err
	}
	audit, err := change.ApplyDeletion(ctx, t.bkt, p.Request, t.now)
	if err != nil {
		return p, err
	}
	t.log.Warn("deletion of a tenant was asked for", "tenant", id, "request", p.Request.ID.String(), "by", f.by, "reason",
		f.reason, "due", time.UnixMilli(p.Request.Due).UTC().Format(time.RFC3339), "blocks", len(p.Blocks), "bytes",
		p.Bytes, "audit", audit)
	return p, nil
}

// undelete undoes a deletion, or lets the tenant be made anew.
func (t *Tenants) undelete(ctx context.Context, f form) (deletion.Request, error) {
	id, _, err := f.parse()
	if err != nil {
		return deletion.Request{}, err
	}
	list, err := deletion.NewReader(t.bkt).Read(ctx)
	if err != nil {
		return deletion.Request{}, err
	}
	e, err := change.UndeleteTenant(list, id, f.anew, t.now())
	if err != nil {
		return deletion.Request{}, err
	}
	says := deletion.NewChange(e.ID, t.now())
	says.By, says.Tool, says.Reason = f.by, "compact/undelete-tenant", f.reason
	audit, err := change.ApplyUndo(ctx, t.bkt, says, f.anew, t.now)
	if err != nil {
		return deletion.Request{}, err
	}
	t.log.Warn("deletion of a tenant was undone, or the tenant may be made anew", "tenant", id, "request", e.ID.String(),
		"anew", f.anew, "by", f.by, "reason", f.reason, "audit", audit)
	return e.Request, nil
}

// parse is the tenant and the delay.
func (f form) parse() (tenant.ID, time.Duration, error) {
	id, err := tenant.Parse(f.tenant)
	if err != nil {
		return "", 0, err
	}
	delay, err := model.ParseDuration(cmp.Or(f.delay, model.Duration(deletion.DefaultDelay).String()))
	if err != nil {
		return "", 0, errs.E(errs.Invalid, "delay: %w", err)
	}
	return id, time.Duration(delay), nil
}
