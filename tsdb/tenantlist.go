package tsdb

import (
	"cmp"
	"slices"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// tenantList is all tenants in order. It never changes. After a change a new list is made when somebody asks for it,
// and not with each change: a start with 50,000 tenants would spend most of its time on sorting.
type tenantList struct {
	ids []tenant.ID
	all []*tenantDB
}

func byID(a, b *tenantDB) int { return cmp.Compare(a.id, b.id) }

// with returns the tenants of l and those that came since, except those that are not there any more.
func (l *tenantList) with(came []*tenantDB, there func(*tenantDB) bool) *tenantList {
	came = slices.Clone(came)
	slices.SortFunc(came, byID)
	n := len(l.all) + len(came)
	next := &tenantList{ids: make([]tenant.ID, 0, n), all: make([]*tenantDB, 0, n)}
	for old := l.all; len(old) > 0 || len(came) > 0; {
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

// present is the list of the tenants that there are now.
func (d *DB) present() *tenantList {
	d.mu.RLock()
	list, fresh := d.list, len(d.changes) == 0 && !d.removed
	d.mu.RUnlock()
	if fresh {
		return list
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.changes) > 0 || d.removed {
		d.list = d.list.with(d.changes, func(t *tenantDB) bool { return d.tenants[t.id] == t })
		d.changes, d.removed = nil, false
	}
	return d.list
}

// all returns the tenants in order. The slice must not be changed.
func (d *DB) all() []*tenantDB { return d.present().all }

// Tenants returns all tenants in order, closed ones included. The slice must not be changed.
func (d *DB) Tenants() []tenant.ID { return d.present().ids }

// Has reports whether there is a tenant id.
func (d *DB) Has(id tenant.ID) bool { return d.lookup(id) != nil }
