package distributor

import (
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

// TestLocalBesideOthers writes without replication to this process and, at the same time, to members that keep a part
// for later: what their workers do to a shard is no business of the request's goroutine.
func TestLocalBesideOthers(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "self", "b", "c"), DefaultOptions())
	defer c.close()
	c.Distributor.dial = func(m ring.Member) (Writer, error) {
		if m.ID == "self" {
			return Local{c.member("self")}, nil
		}
		return c.member(m.ID), nil
	}
	for _, id := range []string{"b", "c"} {
		c.member(id).become(refusing(errs.Unavailable, 0, 3, 6, 9, 12, 15))
	}
	for range 300 {
		b := batch(20)
		r := c.push(b)
		if got := r.Samples + len(r.Failures); got != 20 {
			t.Fatalf("%d samples and %d failures of 20", r.Samples, len(r.Failures))
		}
	}
}
