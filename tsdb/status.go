package tsdb

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// TenantStatus is what people need to know of a tenant's TSDB. Times are ms, inclusive.
type TenantStatus struct {
	Tenant tenant.ID `json:"tenant"`
	State  State     `json:"state"`
	// Error is why the tenant is broken, or takes no writes.
	Error string `json:"error,omitempty"`
	// Damage says that its logs were damaged once, and where the segments are kept.
	Damage string `json:"damage,omitempty"`
	// MinTime and MaxTime bound its samples; MinTime > MaxTime when it has none or is not open.
	MinTime int64 `json:"minTime"`
	MaxTime int64 `json:"maxTime"`
	// Series are those of the head, or of a closed tenant's last summary.
	Series uint64 `json:"series"`
	Blocks int    `json:"blocks"`
	// LastWrite and LastCut are zero when there was none since it was opened.
	LastWrite time.Time `json:"lastWrite,omitzero"`
	LastCut   time.Time `json:"lastCut,omitzero"`
}

// Status returns the status of all tenants in order.
func (d *DB) Status() []TenantStatus {
	all := d.all()
	out := make([]TenantStatus, 0, len(all))
	for _, t := range all {
		out = append(out, t.status())
	}
	return out
}

func (t *tenantDB) status() TenantStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	st, s := TenantStatus{Tenant: t.id, State: t.state}, t.summary
	if t.state == Broken || t.state == Opening {
		s = tenantdir.Summary{MinTime: 1}
	}
	if t.err != nil {
		st.Error = t.err.Error()
	}
	if t.damaged {
		st.Damage = "its logs were damaged; the segments are kept in " + filepath.Join(t.dir, tenantdir.DamagedName) +
			", to be removed when nobody needs them"
	}
	if in := t.in; in != nil {
		s = in.summary()
		s.Series = in.db.Head().NumSeries()
		st.LastWrite, st.LastCut = timeOf(in.lastWrite.Load()), timeOf(in.lastCut.Load())
		if err := in.logError(); err != nil {
			st.Error = err.Error()
		}
	}
	st.MinTime, st.MaxTime, st.Series, st.Blocks = s.MinTime, s.MaxTime, s.Series, s.Blocks
	return st
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Ready is nil once every tenant that was found at the start is open or quarantined. Open tenants are served before
// that.
func (d *DB) Ready() error {
	d.mu.RLock()
	opened, closed := d.opened, d.closed
	d.mu.RUnlock()
	if !opened || closed {
		return errs.E(errs.Unavailable, "tsdb is not open")
	}
	var opening []string
	for _, t := range d.all() {
		t.mu.Lock()
		if t.state == Opening && t.initial {
			opening = append(opening, string(t.id))
		}
		t.mu.Unlock()
	}
	if n := len(opening); n > 0 {
		first := strings.Join(slices.Clip(opening[:min(n, 5)]), ", ")
		return errs.E(errs.Unavailable, "%d tenants are being opened: %s", n, first)
	}
	return nil
}

func (d *DB) count(s State) (n int) {
	for _, t := range d.all() {
		t.mu.Lock()
		if t.state == s {
			n++
		}
		t.mu.Unlock()
	}
	return n
}

func (d *DB) countReadOnly() (n int) {
	for _, t := range d.all() {
		t.mu.Lock()
		if t.in != nil && t.in.logFailed.Load() != nil {
			n++
		}
		t.mu.Unlock()
	}
	return n
}

func (d *DB) countForeign() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.foreign)
}

func (d *DB) countKept() (n int) {
	for _, t := range d.all() {
		t.mu.Lock()
		if t.kept {
			n++
		}
		t.mu.Unlock()
	}
	return n
}

// overheadPerTenant is about how many bytes of memory an open tenant takes before it holds anything: buffers of logs
// and chunks, metrics, empty indexes (make bench-tenants).
const overheadPerTenant = 400 << 10

// Overhead is about how many bytes of memory all open tenants take before they hold anything.
func (d *DB) Overhead() int64 { return d.files.Tenants() * overheadPerTenant }
