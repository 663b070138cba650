package gossip

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	c := new(clock)
	first := open(t, func() Options {
		o := receiverOptions(c, instance(1), 1)
		o.BucketID = onBucket("bucket-one")
		return o
	}())
	f := func(name string, change func(*Options), want ...string) {
		t.Helper()
		o := receiverOptions(c, instance(2), 2, first.Address())
		o.BucketID = onBucket("bucket-one")
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
	f("replication factor", func(o *Options) { o.ReplicationFactor = 2 }, "(r2) has replication factor 2",
		"r1 at 127.0.0.1:10901 has 3")
	f("bucket", func(o *Options) { o.BucketID = onBucket("bucket-two") }, "(r2) uses bucket bucket-two",
		"r1 at 127.0.0.1:10901 uses bucket bucket-one")
	f("no bucket", func(o *Options) { o.BucketID = onBucket("") }, "(r2) uses no bucket", "uses bucket bucket-one")
	f("id", func(o *Options) { o.Instance.ID = "r1" }, `instance id "r1"`, "127.0.0.1:10902",
		"live member at 127.0.0.1:10901")
	wantReady(t, first)
}

// TestGatewayOnAnotherBucket: a gateway may read a bucket before it has an identity. It is refused if the cluster's has
// one, whether the gateway finds that out when it starts, later, or when its own bucket gets another one.
func TestGatewayOnAnotherBucket(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gateway := func(i int, bucket *atomic.Pointer[string], join ...string) Options {
		o := receiverOptions(c, instance(i), i, join...)
		o.Roles, o.ReplicationFactor = []string{RoleStore}, 0
		o.BucketID = func() (string, bool) {
			if id := bucket.Load(); id != nil {
				return *id, true
			}
			return "", false
		}
		return o
	}
	says := func(id string) *atomic.Pointer[string] {
		p := new(atomic.Pointer[string])
		p.Store(&id)
		return p
	}
	right, wrong, dark := says(""), says(""), new(atomic.Pointer[string])
	gs := []*Gossip{open(t, gateway(2, right)), open(t, gateway(3, wrong)), open(t, gateway(4, dark))}
	receiver := open(t, func() Options {
		o := receiverOptions(c, instance(1), 1, gs[0].Address(), gs[1].Address(), gs[2].Address())
		o.ReplicationFactor, o.BucketID = 1, onBucket("one")
		return o
	}())
	wantStates(t, RoleReceive, "r1=active", gs...)
	if _, err := tryOpen(t, gateway(5, says(""), receiver.Address())); errs.KindOf(err) != errs.Conflict ||
		!strings.Contains(err.Error(), "(r5) uses a bucket without an identity, but r1 at 127.0.0.1:10901 uses bucket one") {
		t.Fatalf("a gateway on an empty bucket joins: %v", err)
	}
	wantReady(t, gs...) // the receiver's bucket may be theirs
	one := "one"
	right.Store(&one)
	polls := 0
	eventually(t, func() string {
		if polls++; polls%100 == 0 { // between, each member hears the heartbeats of the others again
			c.advance(unnamedFor)
		}
		if err := gs[1].Ready(); err == nil || !strings.Contains(err.Error(), "(r3) uses a bucket without an identity") {
			return fmt.Sprintf("readiness on an empty bucket: %v", err)
		}
		return ""
	})
	wantReady(t, gs[0], gs[2], receiver)
	two := "two"
	dark.Store(&two)
	eventually(t, func() string {
		if err := gs[2].Ready(); err == nil || !strings.Contains(err.Error(), "(r4) uses bucket two") {
			return fmt.Sprintf("readiness on another bucket: %v", err)
		}
		return ""
	})
	wantReady(t, gs[0], receiver)
	wrong.Store(&one)
	wantReady(t, gs[1])
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
	// The stranger acknowledges nothing by its own replication factor, and nobody places series on it.
	if got := stranger.Placement().Replicas(nil, "default-tenant", 1); len(got) != 0 ||
		len(stranger.Placement().Members()) == 0 {
		t.Fatalf("the stranger places series on %v of %d members", got, len(stranger.Placement().Members()))
	}
	wantStates(t, RoleReceive, "r1=active r2=active r3=active r4=read-only", gs...)
	wantPlaced(t, "r1 r2 r3", 3, gs...)
	if err := stranger.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", gs...)
}

// TestStrangerThatIsLeftAlone: who did not belong takes writes again when those it did not agree with are gone, or
// agree.
func TestStrangerThatIsLeftAlone(t *testing.T) {
	t.Parallel()
	f := func(name string, change func(i int, o *Options), want string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := new(clock)
			var gs []*Gossip
			for i := 1; i <= 3; i++ { // r1 and r2 agree, r3 does not
				o := receiverOptions(c, instance(i), i)
				o.ReplicationFactor = 1
				change(i, &o)
				if i == 2 {
					o.Join = []string{gs[0].Address()}
				}
				gs = append(gs, open(t, o))
			}
			wantReady(t, gs...)
			if _, err := gs[2].store.JoinMembers([]string{gs[0].Address()}); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string {
				if err := gs[2].Ready(); err == nil || !strings.Contains(err.Error(), want) {
					return fmt.Sprintf("readiness %v, want %q", err, want)
				}
				return ""
			})
			wantStates(t, RoleReceive, "r1=active r2=active r3=read-only", gs...)
			wantReady(t, gs[:2]...)
			if got := gs[2].Placement().Replicas(nil, "default-tenant", 1); len(got) != 0 {
				t.Fatalf("r3 places series on %v", got)
			}
			for _, g := range gs[:2] {
				if err := g.Leave(t.Context(), false); err != nil {
					t.Fatal(err)
				}
			}
			wantStates(t, RoleReceive, "r3=active", gs[2])
			wantReady(t, gs[2])
			eventually(t, func() string {
				if got := gs[2].Placement().Replicas(nil, "default-tenant", 1); len(got) != 1 {
					return fmt.Sprintf("r3 places series on %v", got)
				}
				return ""
			})
		})
	}
	f("replication factor", func(i int, o *Options) {
		if i == 3 {
			o.ReplicationFactor = 3
		}
	}, "has replication factor 3")
	f("bucket", func(i int, o *Options) { o.BucketID = onBucket(map[bool]string{true: "two", false: "one"}[i == 3]) },
		"uses bucket two")
	f("no bucket", func(i int, o *Options) { o.BucketID = onBucket(map[bool]string{true: "", false: "one"}[i == 3]) },
		"uses no bucket")
}

// TestTwinAtOneAddress: two processes with one id and one address, as two networks may have them, are distinguished by
// their data.
func TestTwinAtOneAddress(t *testing.T) {
	t.Parallel()
	c := new(clock)
	old := open(t, receiverOptions(c, instance(1), 1))
	in := instance(1)
	in.Since = in.Since.Add(time.Minute)
	young := open(t, receiverOptions(c, in, 1))
	wantReady(t, old, young)
	if _, err := young.store.JoinMembers([]string{old.Address()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if err := young.Ready(); err == nil || !strings.Contains(err.Error(), "also used by") {
			return fmt.Sprintf("readiness of the one with the younger data: %v", err)
		}
		return ""
	})
	wantReady(t, old)
}

// TestReplicationFactorIsChanged is the documented way: all that write are stopped and started, readers stay up.
func TestReplicationFactorIsChanged(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, func(_ int, o *Options) { o.ReplicationFactor = 1 })
	o := receiverOptions(c, instance(9), 9, gs[0].Address())
	o.Roles, o.ReplicationFactor = nil, 0
	reader := open(t, o)
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", reader)
	rolling := gs[2].opts
	if err := gs[2].Close(); err != nil {
		t.Fatal(err)
	}
	rolling.ReplicationFactor, rolling.Join = 3, []string{gs[0].Address()}
	if _, err := tryOpen(t, rolling); errs.KindOf(err) != errs.Conflict {
		t.Fatalf("one receiver is changed while the others run: %v", err)
	}
	for _, g := range gs[:2] {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.advance(10 * time.Second)
	for i := range gs {
		o := gs[i].opts
		o.ReplicationFactor, o.Join = 3, []string{reader.Address()}
		gs[i] = open(t, o)
	}
	wantReady(t, gs...)
	wantPlaced(t, "r1 r2 r3", 3, append(gs, reader)...)
	for _, g := range append(gs, reader) {
		eventually(t, func() string {
			if rf, judged := g.ReplicationFactor(), g.JudgedFactor(); rf != 3 || judged != 1 {
				return fmt.Sprintf("%s: replication factor %d, judged by %d: old samples have one copy", g.opts.Instance.ID, rf,
					judged)
			}
			return ""
		})
	}
}

func TestPanicIsSurvived(t *testing.T) {
	g, err := New(nil, prometheus.NewRegistry(), receiverOptions(new(clock), instance(1), 1))
	if err != nil {
		t.Fatal(err)
	}
	g.safely("test", func() { panic("once") })
	if n := testutil.ToFloat64(g.metrics.panics); n != 1 {
		t.Fatalf("%v panics counted", n)
	}
}
