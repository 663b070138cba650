package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/ring"
)

// clock tells members the time. A test can let time pass for all of them at once.
type clock struct{ ahead atomic.Int64 }

var started = time.Now()

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) uptime() time.Duration   { return c.now().Sub(started) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// wrong is a clock whose wall is off, and may be set.
type wrong struct {
	*clock
	off atomic.Int64
}

func (w *wrong) now() time.Time      { return w.clock.now().Add(time.Duration(w.off.Load())) }
func (w *wrong) set(d time.Duration) { w.off.Store(int64(d)) }

// instance makes the i-th instance of a test: id r<i>, in no file.
func instance(i int) Instance {
	return Instance{ID: fmt.Sprintf("r%d", i), Tokens: randomTokens(numTokens),
		Since: time.Unix(time.Now().Unix()-3600, 0)}
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
	o.Now, o.uptime = c.now, c.uptime
	return o
}

// onBucket is the BucketID of a process whose bucket has an identity.
func onBucket(id string) func() (string, bool) { return func() (string, bool) { return id, true } }

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
	if err := g.shutDown(); err != nil {
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
