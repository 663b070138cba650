package tsdb

import "testing"

func TestStripesOf(t *testing.T) {
	f := func(tenants, want int) {
		t.Helper()
		if got := stripesFor(tenants); got != want {
			t.Errorf("%d tenants: %d stripes, want %d", tenants, got, want)
		}
	}
	f(0, 16384)
	f(1, 16384)
	f(4, 16384)
	f(5, 8192)
	f(64, 1024)
	f(512, 128)
	f(100_000, 128)
}
