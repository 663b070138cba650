package change

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Asked is what an operator says of a deletion.
type Asked struct {
	By, Tool, Reason string
	// Delay is the time until the data goes.
	Delay time.Duration
	// Confirm is TenantPlan.Digest of a plan that somebody has looked at; "" = none. With it only the blocks of that plan
	// are deleted, and the plan must still be the same. The default tenant needs it.
	Confirm string
}

// TenantPlan is what the deletion of a tenant is about.
type TenantPlan struct {
	Request deletion.Request `json:"request"`
	// Blocks are those that the bucket has of the tenant, oldest first, Bytes how large they are, as far as their
	// meta.json says.
	Blocks []ulid.ULID `json:"blocks"`
	Bytes  int64       `json:"bytes"`
	// Digest names Blocks.
	Digest string `json:"digest"`
	// Nobodys is how many blocks of the bucket say no tenant. They stay.
	Nobodys int `json:"blocks_without_tenant"`
}

// DeleteTenant plans to delete a tenant. of says which label of blocks names their tenant. Errors: Invalid, if a
// request like that cannot be; Conflict, if there is one already, or the blocks are not the confirmed ones.
func DeleteTenant(v block.View, of block.Identity, id tenant.ID, now time.Time, asked Asked) (TenantPlan, error) {
	p := TenantPlan{Request: deletion.New(id, now, asked.Delay), Blocks: []ulid.ULID{}}
	r := &p.Request
	r.By, r.Tool, r.Reason = asked.By, asked.Tool, asked.Reason
	if of.TenantLabel == "" {
		return p, errs.E(errs.Conflict, "the bucket does not say which label names the tenant of a block: no receiver has "+
			"written to it yet")
	}
	if e := v.Requests.Active(id, now); e != nil {
		return p, errs.E(errs.Conflict, "tenant %q is to be deleted already: request %s, due %s", id, e.ID,
			time.UnixMilli(e.Due).UTC().Format(time.RFC3339))
	}
	sources := []ulid.ULID{}
	for _, m := range v.Select() {
		switch m.Thanos.Labels[of.TenantLabel] {
		case "":
			p.Nobodys++
		case string(id):
			p.Blocks = append(p.Blocks, m.ULID)
			p.Bytes += m.Bytes()
			sources = append(append(sources, m.ULID), m.Sources()...)
		}
	}
	p.Digest = digest(p.Blocks)
	switch {
	case asked.Confirm != "" && asked.Confirm != p.Digest:
		return p, errs.E(errs.Conflict, "the bucket has %d blocks of tenant %q by now, with the digest %s, and not those of "+
			"the digest %s", len(p.Blocks), id, p.Digest, clipped(asked.Confirm))
	case asked.Confirm != "":
		r.Confirmed = &deletion.Confirmed{Blocks: block.InOrder(p.Blocks), Sources: block.InOrder(sources)}
	case id == tenant.Default:
		return p, errs.E(errs.Conflict, "%q is the tenant of everybody who names none: confirm that these %d blocks (%d "+
			"bytes) are to be deleted, by their digest %s", id, len(p.Blocks), p.Bytes, p.Digest)
	}
	return p, r.Validate()
}

// clipped is a text of somebody, short enough for an error.
func clipped(s string) string { return s[:min(len(s), 100)] }

// digest names a set of blocks.
func digest(ids []ulid.ULID) string {
	sum := sha256.New()
	for _, id := range block.InOrder(ids) {
		sum.Write(id[:])
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// UndeleteTenant is the request of a tenant that can still be undone, and with anew that which is due and whose tenant
// may be made anew. Errors: NotFound, if there is none; Conflict, if it is too late, or too early.
func UndeleteTenant(l *deletion.List, id tenant.ID, anew bool, now time.Time) (*deletion.Entry, error) {
	e := l.Active(id, now)
	if e == nil {
		return nil, errs.E(errs.NotFound, "there is no request to delete tenant %q", id)
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	switch state := e.State(now); {
	case state == deletion.Held:
		return nil, errs.E(errs.Conflict, "request %s: %w: remove that object", e.ID, e.Fault)
	case anew && state != deletion.Due:
		return nil, errs.E(errs.Conflict, "request %s is not due before %s", e.ID, at(e.Due))
	case !anew && now.UnixMilli() > e.UndoUntil:
		return nil, errs.E(errs.Conflict, "request %s could be undone until %s: its data is going, or gone. The tenant can "+
			"be made anew, without it, from %s on", e.ID, at(e.UndoUntil), at(e.Due))
	}
	return e, nil
}

// ApplyDeletion writes the request of a plan, with an audit object before and after it. The clock must be that of the
// bucket. It returns the name of the audit object.
func ApplyDeletion(ctx context.Context, bkt objstore.Bucket, r deletion.Request, now func() time.Time) (string, error) {
	return audited(ctx, bkt, Report{Tool: r.Tool, By: r.By, Deletion: &r}, now, func() error {
		return deletion.Put(ctx, bkt, r)
	})
}

// ApplyUndo undoes a request, or with anew lets its tenant be made anew, as ApplyDeletion makes one.
func ApplyUndo(ctx context.Context, bkt objstore.Bucket, c deletion.Change, anew bool,
	now func() time.Time) (string, error) {
	write, what := deletion.PutUndo, "undo"
	if anew {
		write, what = deletion.PutRenewal, "anew"
	}
	return audited(ctx, bkt, Report{Tool: c.Tool, By: c.By, Undo: &c, What: what}, now, func() error {
		return write(ctx, bkt, c)
	})
}

// audited writes the audit object r, compares the clocks, does something, and writes r again.
func audited(ctx context.Context, bkt objstore.Bucket, r Report, now func() time.Time, do func() error) (string,
	error) {
	r.begin(now())
	if err := r.write(ctx, bkt); err != nil {
		return "", err
	}
	err := checkClock(ctx, bkt, r.Audit, now)
	if err == nil {
		err = do()
	}
	r.Finished = now().UTC()
	if err != nil {
		r.Error = err.Error()
	}
	if werr := r.write(context.WithoutCancel(ctx), bkt); err == nil {
		err = werr
	}
	return r.Audit, err
}
