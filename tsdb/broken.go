package tsdb

// Broken returns the status of the tenants that are quarantined, in order.
func (d *DB) Broken() []TenantStatus {
	var out []TenantStatus
	for _, t := range d.all() {
		t.mu.Lock()
		broken := t.state == Broken
		t.mu.Unlock()
		if broken {
			out = append(out, t.status())
		}
	}
	return out
}
