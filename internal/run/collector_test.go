package run

import "testing"

func TestGarbagePercent(t *testing.T) {
	f := func(live, still int64, want int) {
		t.Helper()
		if got := garbagePercent(live, still); got != want {
			t.Errorf("%d of %d bytes never change: %d, want %d", still, live, got, want)
		}
	}
	f(0, 0, 100)
	f(1000, 0, 100)
	f(1000, 1000, 25)
	f(1000, 2000, 25)
	f(1000, 500, 62)
	f(1<<40, 1<<20, 99)
}
