package main

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	f := func(s string, want int64) {
		t.Helper()
		var m moment
		if err := m.Set(s); err != nil || m.millis(now) != want || m.String() != s {
			t.Errorf("%s: %d, %v, want %d", s, m.millis(now), err, want)
		}
	}
	f("0000-01-01T00:00:00Z", -62167219200000)
	f("9999-12-31T23:59:59Z", 253402300799000)
	f("2026-01-31T00:00:00+01:00", 1769814000000)
	f("-2w", now.UnixMilli()-14*86_400_000)
	f("1h30m", now.UnixMilli()+5_400_000)
	f("0s", now.UnixMilli())
	for _, s := range []string{"", "-", "--1h", "yesterday", "1.5h", "2026-01-31"} {
		if err := new(moment).Set(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
