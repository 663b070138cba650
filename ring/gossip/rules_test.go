package gossip

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	dring "github.com/grafana/dskit/ring"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

func TestNextEntry(t *testing.T) {
	base := dring.InstanceDesc{Id: "a", Addr: "a:1", State: dring.ACTIVE,
		Tokens: []uint32{1, 2, 3}, RegisteredTimestamp: 7}
	at := func(e dring.InstanceDesc, ts int64) dring.InstanceDesc { e.Timestamp = ts; return e }
	moved, leaving, left := base, base, base
	moved.Addr, leaving.State, left.State, left.Tokens = "a:2", dring.LEAVING, dring.LEFT, nil
	lost := base
	lost.Tokens = []uint32{1, 3}

	f := func(name string, old dring.InstanceDesc, ok bool, want dring.InstanceDesc, now, wantTS int64,
		wantTokens []uint32) {
		t.Helper()
		got, changed := nextEntry(old, ok, want, now, false)
		if changed != (wantTS != 0) {
			t.Fatalf("%s: changed=%v", name, changed)
		}
		if changed && (got.Timestamp != wantTS || !reflect.DeepEqual(got.Tokens, wantTokens)) {
			t.Fatalf("%s: got timestamp %d, tokens %v", name, got.Timestamp, got.Tokens)
		}
	}
	f("new", dring.InstanceDesc{}, false, base, 50, 50, base.Tokens)
	f("heartbeat", at(base, 50), true, base, 52, 52, base.Tokens)
	f("heartbeat within a second", at(base, 50), true, base, 50, 0, nil)
	f("heartbeat, clock went back", at(base, 50), true, base, 40, 0, nil)
	f("change within a second", at(base, 50), true, leaving, 50, 51, base.Tokens)
	f("change, clock went back", at(base, 50), true, moved, 40, 51, base.Tokens)
	f("change later", at(base, 50), true, moved, 60, 60, base.Tokens)
	f("a token was lost to another member", at(lost, 50), true, base, 52, 52, lost.Tokens)
	f("leave", at(base, 50), true, left, 50, 51, nil)
	f("left, and said so", at(left, 50), true, left, 60, 0, nil)
	f("back after it was forgotten, clock went back", at(left, 50), true, base, 40, 51, base.Tokens)
	if got, changed := nextEntry(at(base, 50), true, base, 40, true); !changed || got.Timestamp != 51 {
		t.Fatalf("a second after the last heartbeat, clock went back: changed=%v, timestamp %d", changed, got.Timestamp)
	}
	f("left already", dring.InstanceDesc{}, false, left, 50, 0, nil)
}

func TestStateOf(t *testing.T) {
	f := func(state dring.InstanceState, readOnly bool, silence time.Duration, want ring.State) {
		t.Helper()
		e := dring.InstanceDesc{State: state, ReadOnly: readOnly}
		if got := stateOf(e, heartbeat{came: time.Hour}, time.Hour+silence, 8*time.Second); got != want {
			t.Fatalf("%s read-only=%v silent for %s: got %s, want %s", state, readOnly, silence, got, want)
		}
	}
	f(dring.ACTIVE, false, 0, ring.Active)
	f(dring.ACTIVE, false, 8*time.Second, ring.Active)
	f(dring.ACTIVE, false, 9*time.Second, ring.Down)
	f(dring.ACTIVE, true, time.Second, ring.ReadOnly)
	f(dring.ACTIVE, true, time.Minute, ring.Down)
	f(dring.LEAVING, true, time.Second, ring.Leaving)
	f(dring.LEAVING, false, 9*time.Second, ring.Down)
}

// snapshotOf makes a snapshot from lines "role: id=silence id=silence", as it is after 10000 seconds.
func snapshotOf(lines ...string) *snapshot {
	v := &snapshot{rings: map[string]roleSnapshot{}, cluster: newCluster()}
	for _, l := range lines {
		role, members, _ := strings.Cut(l, ": ")
		r := roleSnapshot{entries: map[string]dring.InstanceDesc{}, heartbeats: map[string]heartbeat{}}
		for _, m := range strings.Fields(members) {
			id, age, _ := strings.Cut(m, "=")
			d, err := time.ParseDuration(age)
			if err != nil {
				panic(err)
			}
			r.entries[id], r.heartbeats[id] = dring.InstanceDesc{Id: id}, heartbeat{came: 10000*time.Second - d}
		}
		v.rings[role] = r
	}
	return v
}

func TestForgettable(t *testing.T) {
	f := func(want map[string][]string, lines ...string) {
		t.Helper()
		got := forgettable(snapshotOf(lines...), 10000*time.Second, 8*time.Second, 15*time.Minute)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %v, want %v", lines, got, want)
		}
	}
	none := map[string][]string{}
	f(none)
	f(none, "receive: a=1s b=1s c=1s")
	f(none, "receive: a=1s b=1s c=10m")
	f(map[string][]string{"receive": {"c"}}, "receive: a=1s b=1s c=16m")
	f(none, "receive: a=1s b=16m c=16m")  // cut off from both: they may well be alive
	f(none, "receive: a=1s b=16m")        // half is no quorum
	f(none, "receive: a=16m b=16m c=16m") // this process slept
	f(none, "receive: a=1s b=1m c=16m")   // b counts as not seen
	f(map[string][]string{"receive": {"d", "e"}}, "receive: a=1s b=1s c=1s d=16m e=20m")
	f(none, "receive: a=1s b=16m c=16m", "store: s=1s t=1s u=1s") // others' votes say nothing about receivers
	f(map[string][]string{"store": {"s"}}, "receive: a=1s b=1s c=1s", "store: s=16m")
	f(map[string][]string{"store": {"s"}}, "receive: a=1s b=1s c=1s", "store: s=16m t=1s")
	f(map[string][]string{"receive": {"c"}, "store": {"c"}}, "receive: a=1s b=1s c=16m", "store: a=1s b=1s c=16m")
	f(none, "store: s=16m t=1s")
}

// TestNobodyIsForgottenAfterAPause: a process that was paused waited for nobody meanwhile. Of members that were
// paused with it it may hear a quorum before it hears the last one.
func TestNobodyIsForgottenAfterAPause(t *testing.T) {
	t.Parallel()
	v := snapshotOf("receive: a=1s b=1s c=16m")
	g := &Gossip{opts: Options{HeartbeatTimeout: 8 * time.Second, ForgetAfter: 15 * time.Minute}}
	g.opts.uptime = func() time.Duration { return 10000 * time.Second }
	for resumed, want := range map[time.Duration]int{0: 1, 9999 * time.Second: 0, 9101 * time.Second: 0,
		9099 * time.Second: 1} {
		g.resumed = resumed
		if got := g.forgettableNow(v); len(got["receive"]) != want {
			t.Errorf("went on at %s: forgets %v, want %d", resumed, got, want)
		}
	}
}

func TestDisagree(t *testing.T) {
	rcv := []string{RoleReceive}
	p := func(id string, rf int, bucket string, roles ...string) process {
		return process{ID: id, Addr: id + ":1", RF: rf, Bucket: bucket, Roles: roles}
	}
	f := func(self process, votes int, want string, peers ...process) {
		t.Helper()
		err := disagreement(self, peers, votes)
		if want == "" && err != nil {
			t.Fatalf("%+v among %+v: %v", self, peers, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || errs.KindOf(err) != errs.Conflict) {
			t.Fatalf("%+v among %+v: got %v, want an error with %q", self, peers, err, want)
		}
	}
	f(p("a", 3, "", rcv...), 0, "")
	f(p("a", 3, "", rcv...), 0, "", p("b", 3, "", rcv...))
	f(p("a", 3, "", rcv...), 0, "(a) has replication factor 3, but b at b:1 has 2", p("b", 2, "", rcv...))
	f(p("a", 0, ""), 0, "", p("b", 2, "", rcv...))
	f(p("a", 3, ""), 0, "", p("b", 0, ""))
	f(p("a", 3, "", rcv...), 0, "", p("b", 2, "", rcv...), p("c", 3, "", rcv...),
		p("d", 3, "", rcv...)) // b is the stranger
	f(p("a", 3, "", rcv...), 0, "b at b:1", p("b", 2, "", rcv...), p("c", 3, "", rcv...))
	f(p("a", 3, "", rcv...), 1, "", p("b", 2, "", rcv...), p("c", 3, "", rcv...))
	f(p("a", 3, "", rcv...), 1, "b at b:1", p("b", 2, "", rcv...))

	f(p("a", 3, "one", rcv...), 0, "", p("b", 3, "one", rcv...))
	f(p("a", 3, "one", rcv...), 0, "(a) uses bucket one, but b at b:1 uses bucket two", p("b", 3, "two", rcv...))
	f(p("a", 3, "", rcv...), 0, "(a) uses no bucket, but b at b:1 uses bucket two", p("b", 3, "two", rcv...))
	f(p("a", 3, "one", rcv...), 0, "uses no bucket", p("b", 3, "", rcv...))
	f(p("a", 3, "one", RoleStore), 0, "uses no bucket", p("b", 3, "", rcv...))
	f(p("a", 3, "", RoleStore), 0, "", p("b", 3, "two", rcv...)) // its bucket has not said its identity yet
	unnamed := p("a", 3, "", RoleStore)
	unnamed.unnamed = true
	f(unnamed, 1, "(a) uses a bucket without an identity, but b at b:1 uses bucket two", p("b", 3, "two", rcv...))
	f(unnamed, 0, "uses bucket two", p("b", 3, "", RoleStore), p("c", 3, "two", RoleStore))
	f(unnamed, 0, "", p("b", 3, "two", RoleRule), p("c", 3, "", RoleStore))
	f(p("a", 3, "two", rcv...), 0, "", p("b", 3, "", RoleStore))
	f(p("a", 3, "", RoleCompact), 0, "uses no bucket", p("b", 3, "two", RoleStore))
	f(p("a", 3, "", RoleDistributor), 0, "", p("b", 3, "two", rcv...))
	f(p("a", 3, "one", RoleRule), 0, "bucket two", p("b", 3, "two", rcv...))
}

func TestLocate(t *testing.T) {
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("8.8.4.4"),
		netip.MustParseAddr("10.1.2.3")}
	loopback := local[:1]
	f := func(bind, advertise string, local []netip.Addr, want string) {
		t.Helper()
		e, err := locate(t.Context(), bind, advertise, local)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.bindIP.String() + " " + e.bindPort + " " + e.host + " " + e.ip.String() + " " + e.port; got != want {
			t.Fatalf("%q %q: got %q, want %q", bind, advertise, got, want)
		}
	}
	f("0.0.0.0:7946", "", local, "0.0.0.0 7946 10.1.2.3 10.1.2.3 7946")
	f(":7946", "", local, "0.0.0.0 7946 10.1.2.3 10.1.2.3 7946")
	f(":7946", "", local[:3], "0.0.0.0 7946 8.8.4.4 8.8.4.4 7946")
	f("[::]:7946", "", local[:2], ":: 7946 fd00::1 fd00::1 7946")
	f(":7946", "", loopback, "0.0.0.0 7946 127.0.0.1 127.0.0.1 7946")
	f(":7946", "", nil, "0.0.0.0 7946 127.0.0.1 127.0.0.1 7946")
	f("127.0.0.1:0", "", local, "127.0.0.1 0 127.0.0.1 127.0.0.1 0")
	f("0.0.0.0:1", "192.0.2.1", local, "0.0.0.0 1 192.0.2.1 192.0.2.1 1")
	f("0.0.0.0:1", "192.0.2.1:9", local, "0.0.0.0 1 192.0.2.1 192.0.2.1 9")
	f("0.0.0.0:1", "localhost:9", local, "0.0.0.0 1 localhost 127.0.0.1 9")

	e, err := locate(t.Context(), ":7946", "192.0.2.1:9", local)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"192.0.2.1:9": true, "10.1.2.3:7946": true, "127.0.0.1:7946": true, "10.1.2.3:9": false, "10.1.2.4:7946": false} {
		a := netip.MustParseAddrPort(addr)
		if got := e.isSelf(a.Addr(), addr[strings.LastIndex(addr, ":")+1:], local); got != want {
			t.Fatalf("%s: is self %v, want %v", addr, got, want)
		}
	}
	for addr, want := range map[string]string{"0.0.0.0:10901": "192.0.2.1:10901", ":1": "192.0.2.1:1", "h:1": "h:1", "[::]:2": "192.0.2.1:2", "": ""} {
		if got := e.advertised(addr); got != want {
			t.Fatalf("%q is advertised as %q, want %q", addr, got, want)
		}
	}
}

func TestValidateReportsAllFaults(t *testing.T) {
	o := DefaultOptions()
	o.Instance = Instance{ID: "a", Tokens: []uint32{1}, Since: time.Unix(1, 0)}
	o.Roles, o.GRPCAddress = []string{RoleReceive}, ":10901"
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Options{BindAddress: "nowhere", Roles: []string{"king", RoleReceive, RoleReceive},
		Join: []string{""}, HTTPAddress: "x:y"}
	err := bad.Validate()
	for _, want := range []string{"nowhere", `"king"`, "twice", "replication factor 0", "no tokens", "join timeout", "heartbeat timeout", "forget", "member to join", "gRPC address", `"x:y"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	long := o
	long.Zone, long.BucketID = strings.Repeat("z", maxZone+1), onBucket("two\nlines")
	long.Instance.Tokens, long.Instance.Since = randomTokens(maxTokens+1), time.Unix(1<<60, 0)
	for _, want := range []string{"zone", "bucket", "tokens, more than", "no clock shows"} {
		if err := long.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	o.BindAddress = "0.0.0.0:0"
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "port 0") {
		t.Fatalf("port 0 on all addresses: %v", err)
	}
}

// TestSaysWhatOthersTake: a process that others would leave out refuses to start.
func TestSaysWhatOthersTake(t *testing.T) {
	t.Parallel()
	o := receiverOptions(new(clock), instance(1), 1)
	o.GRPCAddress = "a b:10901"
	if _, err := tryOpen(t, o); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "a b:10901") {
		t.Fatalf("an address that is none: %v", err)
	}
}
