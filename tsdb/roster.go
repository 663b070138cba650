package tsdb

import (
	"cmp"
	"slices"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// roster is all tenants in order. It never changes. One is made when somebody asks for it after a change, and not with each
// change: with 50,000 tenants, sorting them for each that comes would be most of what a start does.
type roster struct {
	ids []tenant.ID
	all []*tenantDB
}

func byID(a, b *tenantDB) int { return cmp.Compare(a.id, b.id) }

// with is r and those that came since, without those that are gone.
func (r *roster) with(came []*tenantDB, there func(*tenantDB) bool) *roster {
	came = slices.Clone(came)
	slices.SortFunc(came, byID)
	n := len(r.all) + len(came)
	next := &roster{ids: make([]tenant.ID, 0, n), all: make([]*tenantDB, 0, n)}
	for old := r.all; len(old) > 0 || len(came) > 0; {
		from := &old
		if len(old) == 0 || len(came) > 0 && byID(came[0], old[0]) < 0 {
			from = &came
		}
		t := (*from)[0]
		if *from = (*from)[1:]; there(t) {
			next.ids, next.all = append(next.ids, t.id), append(next.all, t)
		}
	}
	next.ids, next.all = slices.Clip(next.ids), slices.Clip(next.all)
	return next
}

// present is the roster of the moment.
func (d *DB) present() *roster {
	d.mu.RLock()
	r, fresh := d.roster, len(d.changes) == 0 && !d.removed
	d.mu.RUnlock()
	if fresh {
		return r
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.changes) > 0 || d.removed {
		d.roster = d.roster.with(d.changes, func(t *tenantDB) bool { return d.tenants[t.id] == t })
		d.changes, d.removed = nil, false
	}
	return d.roster
}

// all returns the tenants in order. The slice must not be changed.
func (d *DB) all() []*tenantDB { return d.present().all }

// Tenants returns all tenants in order, closed ones included. The slice must not be changed.
func (d *DB) Tenants() []tenant.ID { return d.present().ids }

// Has reports whether there is a tenant id.
func (d *DB) Has(id tenant.ID) bool { return d.lookup(id) != nil }
