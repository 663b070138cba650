package gossip

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	c := new(clock)
	first := open(t, func() Options {
		o := receiverOptions(c, instance(1), 1)
		o.BucketID = "bucket-one"
		return o
	}())
	f := func(name string, change func(*Options), want ...string) {
		t.Helper()
		o := receiverOptions(c, instance(2), 2, first.Address())
		o.BucketID = "bucket-one"
		change(&o)
		_, err := tryOpen(t, o)
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) || errs.KindOf(err) != errs.Conflict {
				t.Fatalf("%s: got %v, want an error with %q", name, err, w)
			}
		}
		if got := states(first, RoleReceive); got != "r1=active" {
			t.Fatalf("%s: it is on the ring: %q", name, got)
		}
	}
	f("replication factor", func(o *Options) { o.ReplicationFactor = 2 }, "(r2) has replication factor 2", "r1 at 127.0.0.1:10901 has 3")
	f("bucket", func(o *Options) { o.BucketID = "bucket-two" }, "(r2) uses bucket bucket-two", "r1 at 127.0.0.1:10901 uses bucket bucket-one")
	f("no bucket", func(o *Options) { o.BucketID = "" }, "(r2) uses no bucket", "uses bucket bucket-one")
	f("id", func(o *Options) { o.Instance.ID = "r1" }, `instance id "r1"`, "127.0.0.1:10902", "live member at 127.0.0.1:10901")
	wantReady(t, first)
}

func TestMovedMemberWaitsForItsOldHeartbeat(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, nil)
	kill(t, gs[2])
	o := gs[2].opts
	o.Join, o.GRPCAddress = []string{gs[0].Address()}, "127.0.0.1:10999"
	back := open(t, o)
	for _, g := range []*Gossip{gs[0], gs[1], back} {
		eventually(t, func() string {
			if m := g.Members(RoleReceive); len(m) != 3 || m[2].Addr != o.GRPCAddress || m[2].State != ring.Active {
				return fmt.Sprintf("%s sees %+v", g.opts.Instance.ID, m)
			}
			return ""
		})
	}
}

func TestStrangersThatMeetLater(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, nil)
	stranger := open(t, func() Options { // starts alone, with another RF
		o := receiverOptions(c, instance(4), 4)
		o.ReplicationFactor = 2
		return o
	}())
	twin := open(t, func() Options { // starts alone, with r1's id and younger data
		in := instance(1)
		in.Since = in.Since.Add(time.Minute)
		return receiverOptions(c, in, 7)
	}())
	wantReady(t, stranger, twin)
	for _, g := range []*Gossip{stranger, twin} {
		if _, err := g.store.JoinMembers([]string{gs[0].Address()}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		if err := stranger.Ready(); err == nil || !strings.Contains(err.Error(), "has 3") {
			return fmt.Sprintf("the stranger's readiness: %v", err)
		}
		return ""
	})
	eventually(t, func() string {
		if err := twin.Ready(); err == nil || !strings.Contains(err.Error(), "also used by 127.0.0.1:10901") {
			return fmt.Sprintf("the twin's readiness: %v", err)
		}
		return ""
	})
	for _, g := range gs {
		eventually(t, func() string {
			if m := g.Members(RoleReceive); len(m) != 4 || m[0].Addr != gs[0].opts.GRPCAddress || m[0].State != ring.Active {
				return fmt.Sprintf("%s sees %+v", g.opts.Instance.ID, m)
			}
			return ""
		})
	}
	wantReady(t, gs...)
	if err := stranger.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", gs...)
}
