package gossip

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

// clock is a wall clock that a test can advance for all members at once.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// instance makes the i-th instance of a test: id r<i>, in no file.
func instance(i int) Instance {
	return Instance{ID: fmt.Sprintf("r%d", i), Tokens: randomTokens(numTokens), Since: time.Unix(time.Now().Unix()-3600, 0)}
}

// receiverOptions are those of the receiver in in zone z<zone>, fast.
func receiverOptions(c *clock, in Instance, zone int, join ...string) Options {
	o := DefaultOptions()
	o.BindAddress = "127.0.0.1:0"
	o.Join = join
	o.JoinTimeout = 500 * time.Millisecond
	o.RejoinInterval = time.Second
	o.Instance = in
	o.Roles = []string{RoleReceive}
	o.Zone = fmt.Sprintf("z%d", zone)
	o.GRPCAddress = "127.0.0.1:109" + fmt.Sprintf("%02d", zone)
	o.HTTPAddress = ":1" + fmt.Sprintf("%02d", zone)
	o.ReplicationFactor = 3
	o.HeartbeatPeriod = 200 * time.Millisecond
	o.HeartbeatTimeout = 2 * time.Second
	o.Now = c.now
	return o
}

// testLog shows what members log when HEARTH_TEST_LOG is set.
func testLog(self string) *slog.Logger {
	if os.Getenv("HEARTH_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("self", self)
}

func tryOpen(t *testing.T, o Options) (*Gossip, error) {
	t.Helper()
	g, err := New(testLog(o.Instance.ID+"@"+o.GRPCAddress), prometheus.NewRegistry(), o)
	if err != nil {
		t.Fatal(err)
	}
	if g.Placement() == nil {
		t.Fatal("no placement before Open")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = g.Open(ctx, func(err error) { t.Errorf("%s failed: %v", o.Instance.ID, err) })
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close %s: %v", o.Instance.ID, err)
		}
	})
	return g, err
}

func open(t *testing.T, o Options) *Gossip {
	t.Helper()
	g, err := tryOpen(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// kill ends g as SIGKILL would, as far as the ring can tell.
func kill(t *testing.T, g *Gossip) {
	t.Helper()
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	if err := g.shut(); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until cond gives "", and fails with its last word after 12 s.
func eventually(t *testing.T, cond func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(12 * time.Second)
	for {
		why := cond()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(why)
		}
		<-tick.C
	}
}

// states is "r1=active r2=down".
func states(g *Gossip, role string) string {
	var out []string
	for _, m := range g.Members(role) {
		out = append(out, m.ID+"="+m.State.String())
	}
	return strings.Join(out, " ")
}

func wantStates(t *testing.T, role, want string, gs ...*Gossip) {
	t.Helper()
	for _, g := range gs {
		eventually(t, func() string {
			if got := states(g, role); got != want {
				return fmt.Sprintf("%s sees %s %q, want %q", g.opts.Instance.ID, role, got, want)
			}
			return ""
		})
	}
}

// placed is who of p's members gets any of many series, and fails when a set is not of n distinct zones.
func placed(t *testing.T, p ring.Placement, n int) string {
	t.Helper()
	seen := map[string]bool{}
	for i := range 4096 {
		var zones []string
		for _, m := range p.Replicas(nil, "default-tenant", uint64(i)*0x9e3779b97f4a7c15) {
			seen[p.Members()[m].ID] = true
			zones = append(zones, p.Members()[m].Zone)
		}
		slices.Sort(zones)
		if len(zones) != n || len(slices.Compact(zones)) != n {
			return fmt.Sprintf("a series is placed in zones %v, want %d", zones, n)
		}
	}
	var ids []string
	for id := range seen {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

func wantPlaced(t *testing.T, want string, n int, gs ...*Gossip) {
	t.Helper()
	for _, g := range gs {
		eventually(t, func() string {
			if got := placed(t, g.Placement(), n); got != want {
				return fmt.Sprintf("%s places on %q, want %q", g.opts.Instance.ID, got, want)
			}
			return ""
		})
	}
}

func wantReady(t *testing.T, gs ...*Gossip) {
	t.Helper()
	for _, g := range gs {
		eventually(t, func() string {
			if err := g.Ready(); err != nil {
				return g.opts.Instance.ID + " is not ready: " + err.Error()
			}
			return ""
		})
	}
}

// trio opens three receivers in three zones that see each other.
func trio(t *testing.T, c *clock, change func(i int, o *Options)) []*Gossip {
	t.Helper()
	var gs []*Gossip
	for i := 1; i <= 3; i++ {
		o := receiverOptions(c, instance(i), i)
		for _, g := range gs {
			o.Join = append(o.Join, g.Address())
		}
		if change != nil {
			change(i, &o)
		}
		gs = append(gs, open(t, o))
	}
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", gs...)
	return gs
}

func TestThreeReceiversAndAWatcher(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, nil)
	watcher := open(t, func() Options {
		o := receiverOptions(c, instance(9), 9, gs[0].Address())
		o.Roles, o.ReplicationFactor = nil, 0
		return o
	}())
	gateway := open(t, func() Options {
		o := receiverOptions(c, instance(8), 8, gs[0].Address())
		o.Roles, o.ReplicationFactor = []string{RoleStore, RoleCompact}, 0
		return o
	}())
	all := append(slices.Clone(gs), watcher, gateway)
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", all...)
	wantStates(t, RoleStore, "r8=active", all...)
	wantStates(t, RoleCompact, "r8=active", all...)
	wantStates(t, RoleRule, "", all...)
	wantPlaced(t, "r1 r2 r3", 3, all...)
	wantReady(t, all...)
	for _, g := range all {
		eventually(t, func() string {
			if rf := g.Placement().ReplicationFactor(); rf != 3 || g.ReplicationFactor() != 3 {
				return fmt.Sprintf("%s has replication factor %d", g.opts.Instance.ID, rf)
			}
			return ""
		})
		eventually(t, func() string {
			sum := 0.0
			for i, m := range g.Members(RoleReceive) {
				in := gs[i].opts.Instance
				if m.HTTPAddr != fmt.Sprintf("127.0.0.1:1%02d", i+1) || m.Addr != gs[i].opts.GRPCAddress || !m.Since.Equal(in.Since) {
					return fmt.Sprintf("%s sees %+v", g.opts.Instance.ID, m)
				}
				sum += m.Share
			}
			if sum < 0.999999 || sum > 1.000001 {
				return fmt.Sprintf("shares add up to %v", sum)
			}
			if h := g.History(); len(h) != 3 || !h[0].Until.IsZero() {
				return fmt.Sprintf("history %+v", h)
			}
			return ""
		})
	}
	before := gs[0].Placement()
	c.advance(time.Second) // heartbeats come, nothing that matters changes
	hb := gs[0].Members(RoleReceive)[1].Heartbeat
	eventually(t, func() string {
		if !gs[0].Members(RoleReceive)[1].Heartbeat.After(hb) {
			return "no heartbeat came"
		}
		return ""
	})
	if gs[0].Placement() != before {
		t.Fatal("a heartbeat made another placement")
	}
	if err := gs[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := gs[0].Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
}

func TestKilledMemberStaysPlacedUntilForgotten(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, nil)
	killed := gs[2]
	kill(t, killed)
	live := gs[:2]
	wantStates(t, RoleReceive, "r1=active r2=active r3=down", live...)
	wantPlaced(t, "r1 r2 r3", 3, live...)
	wantReady(t, live...)
	last := live[0].Members(RoleReceive)[2].Heartbeat

	if err := live[0].Forget(t.Context(), "r2"); errs.KindOf(err) != errs.Conflict {
		t.Fatalf("forgetting a live member: %v", err)
	}
	if err := live[0].Forget(t.Context(), "nobody"); errs.KindOf(err) != errs.NotFound {
		t.Fatalf("forgetting nobody: %v", err)
	}
	c.advance(16 * time.Minute)
	wantStates(t, RoleReceive, "r1=active r2=active", live...)
	wantPlaced(t, "r1 r2", 2, live...)
	for _, g := range live {
		eventually(t, func() string {
			for _, i := range g.History() {
				if i.ID == "r3" && i.Until.Equal(last) && !i.Drained {
					return ""
				}
			}
			return fmt.Sprintf("%s: r3 did not end at %s: %+v", g.opts.Instance.ID, last, g.History())
		})
	}

	// It was only cut off: it comes back with its tokens and its disk.
	o := killed.opts
	o.Join = []string{live[0].Address()}
	back := open(t, o)
	all := append(slices.Clone(live), back)
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", all...)
	wantPlaced(t, "r1 r2 r3", 3, all...)
	for _, g := range all {
		if got := g.view.Load().rings[RoleReceive].entries["r3"].Tokens; !slices.Equal(got, o.Instance.Tokens) {
			t.Fatalf("%s sees other tokens after the restart", g.opts.Instance.ID)
		}
		eventually(t, func() string {
			for _, i := range g.History() {
				if i.ID == "r3" && i.Until.IsZero() && i.Since.Equal(o.Instance.Since) {
					return ""
				}
			}
			return fmt.Sprintf("%s: r3's incarnation is not open again: %+v", g.opts.Instance.ID, g.History())
		})
	}
}

func TestMinorityForgetsNobody(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, nil)
	kill(t, gs[1])
	kill(t, gs[2])
	c.advance(16 * time.Minute)
	wantStates(t, RoleReceive, "r1=active r2=down r3=down", gs[0])
	// Beats in which it could have forgotten pass before its heartbeat has moved on by three seconds.
	hb := gs[0].Members(RoleReceive)[0].Heartbeat
	eventually(t, func() string {
		if gs[0].Members(RoleReceive)[0].Heartbeat.Sub(hb) < 3*time.Second {
			return "no heartbeats"
		}
		return ""
	})
	wantStates(t, RoleReceive, "r1=active r2=down r3=down", gs[0])
	wantPlaced(t, "r1 r2 r3", 3, gs[0])

	// The operator knows better, by the button of the page.
	srv := httptest.NewServer(http.HandlerFunc(gs[0].HandleRing))
	defer srv.Close()
	post := func(id, origin string) int {
		req, err := http.NewRequest("POST", srv.URL, strings.NewReader(url.Values{"forget": {id}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, try := range []struct {
		id, origin string
		want       int
	}{{"r3", "http://evil.example", 403}, {"", "", 400}, {"r1", "", 409}, {"nobody", "", 404}, {"r3", "", 200}} {
		if got := post(try.id, try.origin); got != try.want {
			t.Fatalf("POST forget=%q from %q: %d, want %d", try.id, try.origin, got, try.want)
		}
	}
	wantStates(t, RoleReceive, "r1=active r2=down", gs[0])
}

func TestRestartInPlace(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, nil)
	if err := gs[1].SetReadOnly(t.Context()); err != nil { // a drain that is cut short
		t.Fatal(err)
	}
	wantStates(t, RoleReceive, "r1=active r2=read-only r3=active", gs...)
	wantPlaced(t, "r1 r3", 2, gs...)
	if err := gs[1].Close(); err != nil {
		t.Fatal(err)
	}
	others := []*Gossip{gs[0], gs[2]}
	wantStates(t, RoleReceive, "r1=active r2=leaving r3=active", others...)
	o := gs[1].opts
	o.Join = []string{gs[0].Address(), gs[2].Address()}
	back := open(t, o)
	if got := states(back, RoleReceive); got != "r1=active r2=active r3=active" {
		t.Fatalf("after Open it sees %q", got)
	}
	if err := back.Ready(); err != nil {
		t.Fatal(err)
	}
	wantStates(t, RoleReceive, "r1=active r2=active r3=active", others...)
	wantPlaced(t, "r1 r2 r3", 3, gs[0], back, gs[2])
	for _, g := range others {
		if got := g.view.Load().rings[RoleReceive].entries["r2"].Tokens; !slices.Equal(got, o.Instance.Tokens) {
			t.Fatalf("%s sees other tokens after the restart", g.opts.Instance.ID)
		}
	}
}

func TestDrainAndLeave(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, func(_ int, o *Options) { o.Roles = append(o.Roles, RoleStore) })
	if err := gs[2].SetReadOnly(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantStates(t, RoleReceive, "r1=active r2=active r3=read-only", gs...)
	wantPlaced(t, "r1 r2", 2, gs...)
	if err := gs[2].Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{RoleReceive, RoleStore} {
		wantStates(t, role, "r1=active r2=active", gs...)
	}
	if gs[2].Ready() == nil {
		t.Fatal("a member that left is ready")
	}
	if err := gs[2].Close(); err != nil {
		t.Fatal(err)
	}
	for _, g := range gs[:2] {
		eventually(t, func() string {
			for _, i := range g.History() {
				if i.ID == "r3" && !i.Until.IsZero() && i.Drained {
					return ""
				}
			}
			return fmt.Sprintf("%s: r3 is not drained in %+v", g.opts.Instance.ID, g.History())
		})
		if got := states(g, RoleReceive); got != "r1=active r2=active" {
			t.Fatalf("%s sees %q after it left", g.opts.Instance.ID, got)
		}
	}
	c.advance(16 * 24 * time.Hour)
	for _, g := range gs[:2] {
		if h := g.History(); len(h) != 2 {
			t.Fatalf("history after its retention: %+v", h)
		}
	}
}

func TestLostDisk(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, nil)
	kill(t, gs[2])
	o := gs[2].opts
	o.Join = []string{gs[0].Address()}
	o.Instance = instance(3)
	o.Instance.Since = time.Unix(time.Now().Unix(), 0)
	back := open(t, o)
	want := []ring.Incarnation{
		{Member: ring.Member{ID: "r3", Addr: o.GRPCAddress, Zone: "z3"}, Since: gs[2].opts.Instance.Since, Until: o.Instance.Since},
		{Member: ring.Member{ID: "r3", Addr: o.GRPCAddress, Zone: "z3"}, Since: o.Instance.Since},
	}
	for _, g := range []*Gossip{gs[0], gs[1], back} {
		eventually(t, func() string {
			got := slices.DeleteFunc(g.History(), func(i ring.Incarnation) bool { return i.ID != "r3" })
			if !slices.Equal(got, want) {
				return fmt.Sprintf("%s: %+v, want %+v", g.opts.Instance.ID, got, want)
			}
			return ""
		})
	}
	wantPlaced(t, "r1 r2 r3", 3, gs[0], gs[1], back)
}

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

func TestAlone(t *testing.T) {
	t.Parallel()
	c := new(clock)
	o := receiverOptions(c, instance(1), 1)
	o.ReplicationFactor = 1
	g := open(t, o)
	if err := g.Ready(); err != nil {
		t.Fatalf("a cluster of one: %v", err)
	}
	if got := placed(t, g.Placement(), 1); got != "r1" {
		t.Fatalf("places on %q", got)
	}

	// Nobody answers: not ready at first, ready by itself in the end.
	o = receiverOptions(c, instance(2), 2, "127.0.0.1:1", "dns+localhost:1")
	o.JoinTimeout = time.Second
	lonely := open(t, o)
	if err := lonely.Ready(); err == nil || !strings.Contains(err.Error(), "no other member") {
		t.Fatalf("ready at once: %v", err)
	}
	wantReady(t, lonely)
}

func TestSeedStartsLast(t *testing.T) {
	t.Parallel()
	c := new(clock)
	probe := open(t, receiverOptions(c, instance(5), 5)) // finds a free port
	addr := probe.Address()
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	late := receiverOptions(c, instance(1), 1, addr)
	a := open(t, receiverOptions(c, instance(2), 2, addr))
	late.BindAddress = addr // the seed, which names itself
	b := open(t, late)
	if err := b.Ready(); err != nil {
		t.Fatalf("a seed that names only itself: %v", err)
	}
	wantStates(t, RoleReceive, "r1=active r2=active", a, b)
	wantReady(t, a, b)
}

func TestOtherClusterLabel(t *testing.T) {
	t.Parallel()
	c := new(clock)
	a := open(t, receiverOptions(c, instance(1), 1))
	o := receiverOptions(c, instance(2), 2, a.Address())
	o.ClusterLabel = "other"
	b := open(t, o)
	if b.Ready() == nil {
		t.Fatal("it counts a member of another cluster as met")
	}
	wantReady(t, b) // serves alone after the join timeout
	wantStates(t, RoleReceive, "r1=active", a)
	wantStates(t, RoleReceive, "r2=active", b)
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	c := new(clock)
	a := open(t, receiverOptions(c, instance(1), 1))
	o := receiverOptions(c, instance(2), 2)
	o.BindAddress = a.Address()
	if _, err := tryOpen(t, o); err == nil || !strings.Contains(err.Error(), a.Address()) {
		t.Fatalf("a port in use: %v", err)
	}
	o.BindAddress = "no-such-host.invalid:7946"
	if _, err := tryOpen(t, o); err == nil || !strings.Contains(err.Error(), "gossip address") {
		t.Fatalf("an unknown host: %v", err)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	c := new(clock)
	reg := prometheus.NewRegistry()
	g, err := New(nil, reg, receiverOptions(c, instance(1), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	get := func(h http.HandlerFunc, target, accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", target, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h(w, r)
		return w
	}
	for _, try := range [][2]string{{"/ring?format=json", ""}, {"/ring", "application/json"}} {
		w := get(g.HandleRing, try[0], try[1])
		var s ringStatus
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
			t.Fatalf("%v in %s", err, w.Body)
		}
		m := s.Rings[0].Members
		if s.Instance != "r1" || s.ReplicationFactor != 3 || s.Rings[0].Role != RoleReceive || len(m) != 1 || m[0].State != "active" ||
			m[0].Share != 100 || m[0].HTTPAddr != "127.0.0.1:101" || len(s.History) != 1 || s.History[0].Until != nil {
			t.Fatalf("%v: %+v", try, s)
		}
	}
	page := get(g.HandleRing, "/ring", "text/html")
	if b := page.Body.String(); page.Code != 200 || !strings.Contains(b, "<td>r1</td>") || !strings.Contains(b, "100.0%") || strings.Contains(b, "<form") {
		t.Fatalf("page: %d %s", page.Code, b)
	}
	if w := get(g.HandleMemberlist, "/memberlist", "text/html"); w.Code != 200 || !strings.Contains(w.Body.String(), clusterKey) {
		t.Fatalf("memberlist page: %d", w.Code)
	}
	w := httptest.NewRecorder()
	g.HandleRing(w, httptest.NewRequest("DELETE", "/ring", nil))
	if w.Code != 405 {
		t.Fatalf("DELETE: %d", w.Code)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "hearth_ring_members" && m.GetGauge().GetValue() == 1 {
				found = true
			}
		}
	}
	if !found {
		t.Fatal("hearth_ring_members counts nobody")
	}
}
