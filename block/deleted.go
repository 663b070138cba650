package block

import (
	"context"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Requests are what operators asked a bucket to delete (block/deletion), and Request one of them with what was said of
// it later.
type (
	Requests = deletion.List
	Request  = deletion.Entry
)

// RequestReader reads the Requests of a bucket.
type RequestReader = deletion.Reader

// NewRequestReader makes a RequestReader. It does no I/O.
func NewRequestReader(bkt objstore.BucketReader) *RequestReader { return deletion.NewReader(bkt) }

// TakenBy is the request because of which block m is deleted, nil if there is none. tenantLabel is the external label
// that names a block's tenant. A block without it is nobody's, and no request for a tenant takes it.
func (v View) TakenBy(m *Meta, tenantLabel string, now time.Time) *deletion.Entry {
	id := tenant.ID(m.Thanos.Labels[tenantLabel])
	if len(v.Requests.Of(id)) == 0 {
		return nil
	}
	ours := m.Thanos.Source == SourceReceive || m.Thanos.Source == SourceCompactor
	return v.Requests.TakesBlock(id, deletion.Block{ID: m.ULID, Sources: m.Sources(), Ours: ours}, now)
}

// TenantOf is whose samples m has, as reads see it: the default tenant's if it says none.
func (m *Meta) TenantOf(tenantLabel string) tenant.ID {
	if name := m.Thanos.Labels[tenantLabel]; name != "" {
		return tenant.ID(name)
	}
	return tenant.Default
}

// SeriesDueBefore are the requests for series that are in effect and were due at a time.
func (v View) SeriesDueBefore(at, now time.Time) (out []*Request) {
	for _, e := range v.Requests.SeriesRequests() {
		if e.State(now) == deletion.Due && e.Due <= at.UnixMilli() {
			out = append(out, e)
		}
	}
	return out
}

// EndSeries ends a request for series that is due, if nobody has ended it. Errors: Unavailable.
func EndSeries(ctx context.Context, bkt objstore.Bucket, e *Request, by string, now time.Time) error {
	end := deletion.NewChange(e.ID, now)
	end.By, end.Tool, end.Reason = by, "compact", "no block has such samples"
	err := deletion.PutRenewal(ctx, bkt, end)
	if errs.KindOf(err) == errs.Conflict {
		return nil
	}
	return err
}

// NotDeleted takes out the blocks that are deleted because of what operators asked for.
func NotDeleted(tenantLabel string, now time.Time) Filter {
	return func(v View, metas []*Meta) []*Meta {
		if len(v.Requests.Entries()) == 0 {
			return metas
		}
		return slices.DeleteFunc(metas, func(m *Meta) bool { return v.TakenBy(m, tenantLabel, now) != nil })
	}
}

// TenantDeletion is a request to delete a tenant, for people.
type TenantDeletion struct {
	ID        ulid.ULID      `json:"id"`
	Tenant    tenant.ID      `json:"tenant"`
	State     deletion.State `json:"state"`
	Asked     int64          `json:"asked"` // times are in Unix ms
	UndoUntil int64          `json:"undo_until"`
	Due       int64          `json:"due"`
	By        string         `json:"by"`
	Reason    string         `json:"reason,omitempty"`
	// Fault is why the request is held.
	Fault string `json:"fault,omitempty"`
	// Blocks are those in the bucket that are still to be deleted, once the request is due, and Bytes how large they are.
	Blocks int   `json:"blocks"`
	Bytes  int64 `json:"bytes"`
}

// TenantDeletions are all requests of v, the oldest first.
func (v View) TenantDeletions(tenantLabel string, now time.Time) []TenantDeletion {
	all := []TenantDeletion{}
	at := map[ulid.ULID]int{}
	for _, e := range v.Requests.Entries() {
		d := TenantDeletion{ID: e.ID, Tenant: e.Tenant, State: e.State(now), Asked: e.Asked, UndoUntil: e.UndoUntil,
			Due: e.Due, By: e.By, Reason: e.Reason}
		if e.Fault != nil {
			d.Fault = e.Fault.Error()
		}
		at[e.ID] = len(all)
		all = append(all, d)
	}
	if len(all) == 0 {
		return all
	}
	for _, m := range v.Metas {
		if e := v.TakenBy(m, tenantLabel, now); e != nil {
			d := &all[at[e.ID]]
			d.Blocks++
			d.Bytes += m.Bytes()
		}
	}
	return all
}
