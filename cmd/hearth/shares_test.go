package main

import (
	"testing"

	"github.com/hearth-metrics/hearth/ring"
)

func TestSharesAlone(t *testing.T) {
	open := make(chan struct{})
	c := &cluster{self: ring.Member{ID: "a"}, single: &ring.Single{Self: ring.Member{ID: "a"}}}
	s := newShares(&process{serving: open}, c, "")
	f := func(what string) {
		t.Helper()
		if part, n := s.ofSeries("acme"), s.distributors(); part != 1 || n != 1 {
			t.Errorf("%s: %v of the series, one of %d", what, part, n)
		}
	}
	f("before the ring is known")
	close(open)
	f("alone")
	c.single = &ring.Single{Self: ring.Member{ID: "b"}}
	clear(s.series)
	f("not on the ring")
}
