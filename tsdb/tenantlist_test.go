package tsdb

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// addTenants makes entries of closed tenants without any data, in an order of chance.
func addTenants(d *DB, from, to int) {
	order := rand.Perm(to - from)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range order {
		id := tenant.ID(fmt.Sprintf("t%06d", from+i))
		d.add(id).summary = tenantdir.Summary{Version: 1, MinTime: 1, MaxTime: 2}
	}
}

// TestManyTenants counts what tenants cost that come and go: nothing each, and once all of them when somebody asks.
func TestManyTenants(t *testing.T) {
	d := openDB(t, testOptions(t))
	const n = 50_000
	empty := d.present()
	addTenants(d, 0, n)
	if d.list != empty {
		t.Fatal("a list of all tenants was made for one that came")
	}
	first := d.present()
	if len(first.all) != n || len(d.Tenants()) != n || !slices.IsSorted(first.ids) {
		t.Fatalf("%d tenants", len(first.all))
	}
	if d.present() != first || testing.AllocsPerRun(100, func() { d.all(); d.Tenants(); d.Has("t000001") }) != 0 {
		t.Fatal("the list is made again although nothing has changed")
	}
	addTenants(d, n, n+2)
	d.mu.Lock()
	delete(d.tenants, "t000001")
	d.removed = true
	again := d.add("t000002") // removed and made anew
	d.mu.Unlock()
	second := d.present()
	if len(second.ids) != n+1 || !slices.IsSorted(second.ids) || second.all[1] != again || len(first.ids) != n {
		t.Fatalf("%d tenants, then %d", len(first.ids), len(second.ids))
	}
	for i, e := range second.all {
		if e.id != second.ids[i] {
			t.Fatalf("%s is at the place of %s", e.id, second.ids[i])
		}
	}
}

// BenchmarkManyTenants is what is asked of all tenants again and again.
func BenchmarkManyTenants(b *testing.B) {
	d := openDB(b, testOptions(b))
	addTenants(d, 0, 50_000)
	for name, f := range map[string]func(){
		"info":   func() { _, _ = d.Info(b.Context()) },
		"broken": func() { d.Broken() },
		"whole":  func() { _ = d.Whole() },
		"ready":  func() { _ = d.Ready() },
		"count":  func() { d.count(Open) },
		"look": func() {
			for _, t := range d.all() {
				decide(t.facts(d.opts.Now()))
			}
		},
		"tenants": func() { d.Tenants() },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
