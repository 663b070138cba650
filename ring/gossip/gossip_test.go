package gossip

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

func TestThreeReceiversAndAWatcher(t *testing.T) {
	t.Parallel()
	c := new(clock)
	gs := trio(t, c, func(_ int, o *Options) { o.BucketID = onBucket("bucket-one") })
	watcher := open(t, func() Options {
		o := receiverOptions(c, instance(9), 9, gs[0].Address())
		o.Roles, o.ReplicationFactor = nil, 0
		return o
	}())
	gateway := open(t, func() Options {
		o := receiverOptions(c, instance(8), 8, gs[0].Address())
		o.Roles, o.ReplicationFactor, o.BucketID = []string{RoleStore, RoleCompact}, 0, onBucket("bucket-one")
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
				if m.HTTPAddr != fmt.Sprintf("127.0.0.1:1%02d", i+1) || m.Addr != gs[i].opts.GRPCAddress ||
					!m.Since.Equal(in.Since) || m.Bucket != "bucket-one" {
					return fmt.Sprintf("%s sees %+v", g.opts.Instance.ID, m)
				}
				sum += m.Share
			}
			if sum < 2.999999 || sum > 3.000001 {
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
	before := time.Unix(c.now().Unix(), 0)

	if err := live[0].Forget(t.Context(), "r2"); errs.KindOf(err) != errs.Conflict {
		t.Fatalf("forgetting a live member: %v", err)
	}
	if err := live[0].Forget(t.Context(), "nobody"); errs.KindOf(err) != errs.NotFound {
		t.Fatalf("forgetting nobody: %v", err)
	}
	c.advance(16 * time.Minute)
	forgotten := before.Add(16 * time.Minute)
	wantStates(t, RoleReceive, "r1=active r2=active", live...)
	wantPlaced(t, "r1 r2", 2, live...)
	for _, g := range live {
		eventually(t, func() string {
			for _, i := range g.History() {
				// It was placed until it was forgotten, and writes may have reached it that gossip did not.
				if i.ID == "r3" && !i.Until.Before(forgotten) && !i.Drained {
					return ""
				}
			}
			return fmt.Sprintf("%s: r3 did not end when it was forgotten, after %s: %+v", g.opts.Instance.ID, forgotten,
				g.History())
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
		if got := g.snapshot.Load().rings[RoleReceive].entries["r3"].Tokens; !slices.Equal(got, o.Instance.Tokens) {
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
		if got := g.snapshot.Load().rings[RoleReceive].entries["r2"].Tokens; !slices.Equal(got, o.Instance.Tokens) {
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
		{Member: ring.Member{ID: "r3", Addr: o.GRPCAddress, Zone: "z3"}, Since: gs[2].opts.Instance.Since,
			Until: o.Instance.Since},
		{Member: ring.Member{ID: "r3", Addr: o.GRPCAddress, Zone: "z3"}, Since: o.Instance.Since},
	}
	for _, g := range []*Gossip{gs[0], gs[1], back} {
		eventually(t, func() string {
			got := slices.DeleteFunc(g.History(), func(i ring.Incarnation) bool { return i.ID != "r3" })
			for i := range got {
				if got[i].Placed.Before(got[i].Since) {
					return fmt.Sprintf("placed before it was: %+v", got[i])
				}
				got[i].Placed = time.Time{}
				if until := got[i].Until; !until.IsZero() && until.Before(o.Instance.Since) {
					return fmt.Sprintf("the lost disk ended before the new one began: %+v", got[i])
				}
			}
			if len(got) == 2 {
				got[0].Until = want[0].Until
			}
			if !slices.Equal(got, want) {
				return fmt.Sprintf("%s: %+v, want %+v", g.opts.Instance.ID, got, want)
			}
			return ""
		})
	}
	wantPlaced(t, "r1 r2 r3", 3, gs[0], gs[1], back)
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

// TestNobodyToJoin: it is certain that there is no member to join if nothing listens at any address. A name without an
// address, or a machine that is silent, may be a member that is cut off.
func TestNobodyToJoin(t *testing.T) {
	t.Parallel()
	c := new(clock)
	f := func(want bool, join ...string) {
		t.Helper()
		g := open(t, receiverOptions(c, instance(1), 1, join...))
		if j := g.join(t.Context()); j.nobody() != want {
			t.Errorf("%q: %+v", join, j)
		}
	}
	f(true, "127.0.0.1:1")
	f(true, "127.0.0.1:1", "localhost:2")
	f(false, "127.0.0.1:1", "nobody.invalid:1")
	f(false)
	there := open(t, receiverOptions(c, instance(2), 2))
	f(false, "127.0.0.1:1", there.Address())
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
			m[0].Share != 100 || m[0].HTTPAddr != "127.0.0.1:101" ||
			len(s.History) != 1 ||
			s.History[0].Until != nil {
			t.Fatalf("%v: %+v", try, s)
		}
	}
	page := get(g.HandleRing, "/ring", "text/html")
	if b := page.Body.String(); page.Code != 200 || !strings.Contains(b, "<td>r1</td>") ||
		!strings.Contains(b, "100.0%") ||
		strings.Contains(b, `method="post"`) {
		t.Fatalf("page: %d %s", page.Code, b)
	}
	if w := get(g.HandleMemberlist, "/memberlist", "text/html"); w.Code != 200 ||
		!strings.Contains(w.Body.String(), clusterKey) {
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
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			found[f.GetName()] = max(found[f.GetName()], m.GetGauge().GetValue())
		}
	}
	for name, want := range map[string]float64{"hearth_ring_members": 1, "hearth_ring_replication_factor": 3, "hearth_ring_share": 1} {
		if found[name] != want {
			t.Errorf("%s is %v, want %v", name, found[name], want)
		}
	}
}

func TestHistoryOutlivesTheWholeCluster(t *testing.T) {
	t.Parallel()
	c, dir := new(clock), t.TempDir()
	in, err := LoadInstance(dir, "r1")
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, receiverOptions(c, in, 1))
	b := open(t, receiverOptions(c, instance(2), 2, a.Address()))
	wantStates(t, RoleReceive, "r1=active r2=active", a, b)
	if err := b.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	closed := func(g *Gossip) bool {
		return slices.ContainsFunc(g.History(), func(i ring.Incarnation) bool { return i.ID == "r2" && !i.Until.IsZero() })
	}
	eventually(t, func() string {
		kept, _ := os.ReadFile(filepath.Join(dir, HistoryFile))
		if !closed(a) || !strings.Contains(string(kept), `"until"`) {
			return fmt.Sprintf("history %+v, kept %s", a.History(), kept)
		}
		return ""
	})
	for _, g := range []*Gossip{a, b} {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if in, err = LoadInstance(dir, ""); err != nil {
		t.Fatal(err)
	}
	again := open(t, receiverOptions(c, in, 1))
	if !closed(again) || len(again.History()) != 2 {
		t.Fatalf("history after all stopped: %+v", again.History())
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, HistoryFile), []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	if h := open(t, receiverOptions(c, in, 1)).History(); len(h) != 1 { // starts all the same
		t.Fatalf("history of a broken file: %+v", h)
	}
}

func TestBeforeOpen(t *testing.T) {
	g, err := New(nil, nil, receiverOptions(new(clock), instance(1), 1))
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"ready": g.Ready(), "read-only": g.SetReadOnly(t.Context()), "leave": g.Leave(t.Context(), false), "forget": g.Forget(t.Context(), "r2"),
	} {
		if errs.KindOf(err) != errs.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, h := range []http.HandlerFunc{g.HandleRing, g.HandleMemberlist} {
		w := httptest.NewRecorder()
		h(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 503 {
			t.Errorf("a page before Open: %d", w.Code)
		}
	}
	if len(g.Members(RoleReceive))+len(g.History()) != 0 || len(g.Placement().Replicas(nil, "default-tenant", 1)) != 0 {
		t.Error("it knows members before Open")
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
