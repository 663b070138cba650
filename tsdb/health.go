package tsdb

import (
	"errors"
	"fmt"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Broken returns the status of the tenants that are quarantined or take no writes, in order.
func (d *DB) Broken() []TenantStatus {
	var out []TenantStatus
	for _, t := range d.all() {
		t.mu.Lock()
		suspect := t.state == Broken || t.in != nil && t.in.logFailed.Load() != nil
		t.mu.Unlock()
		if !suspect {
			continue
		}
		if st := t.status(); st.Error != "" {
			out = append(out, st)
		}
	}
	return out
}

// Whole is nil when all tenants take writes, their logs are in order and all blocks can be read. Otherwise the error
// names the first tenants of each kind of fault. The other tenants work all the same.
func (d *DB) Whole() error {
	const few = 5
	var faults []error
	broken := d.Broken()
	for _, st := range broken[:min(len(broken), few)] {
		faults = append(faults, fmt.Errorf("tenant %s (%s): %s", st.Tenant, st.State, st.Error))
	}
	if n := len(broken) - few; n > 0 {
		faults = append(faults, fmt.Errorf("and %d more", n))
	}
	damaged := 0
	for _, t := range d.all() {
		t.mu.Lock()
		suspect := t.damaged
		t.mu.Unlock()
		if suspect {
			if damaged++; damaged <= few {
				faults = append(faults, fmt.Errorf("tenant %s: %s", t.id, t.status().Damage))
			}
		}
	}
	if n := damaged - few; n > 0 {
		faults = append(faults, fmt.Errorf("and %d more whose logs were damaged", n))
	}
	faulty := d.Faulty()
	for _, f := range faulty[:min(len(faulty), few)] {
		faults = append(faults, fmt.Errorf("tenant %s: block %s cannot be read (%s): %w", f.Tenant, f.ID, f.Dir, f.Err))
	}
	if n := len(faulty) - few; n > 0 {
		faults = append(faults, fmt.Errorf("and %d more blocks that cannot be read", n))
	}
	return errors.Join(faults...)
}

// TenantFault is a Fault with the tenant whose block it is.
type TenantFault struct {
	Tenant tenant.ID
	Fault
}

// Faulty returns the blocks that could not be read when they were listed last, by tenant.
func (d *DB) Faulty() (out []TenantFault) {
	for _, t := range d.all() {
		for _, f := range t.blocks.faulty() {
			out = append(out, TenantFault{t.id, f})
		}
	}
	return out
}
