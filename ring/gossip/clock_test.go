package gossip

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	dring "github.com/grafana/dskit/ring"

	"github.com/hearth-metrics/hearth/ring"
)

const year = 365 * 24 * time.Hour

// TestWrongClock: a member whose clock is wrong is alive while it lives, down when it crashed, forgotten in time, and
// comes back, also with a clock that was corrected meanwhile.
func TestWrongClock(t *testing.T) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour, 10 * year, -10 * year} {
		t.Run(off.String(), func(t *testing.T) {
			t.Parallel()
			c := new(clock)
			w := &wrong{clock: c}
			w.set(off)
			gs := trio(t, c, func(i int, o *Options) {
				if i == 3 {
					o.Now = w.now
				}
			})
			live := gs[:2]
			eventually(t, func() string {
				if got := live[0].snapshot.Load().cluster.Processes["r3"]; !got.Off {
					return fmt.Sprintf("r3 does not say that its clock is wrong: %+v", got)
				}
				return ""
			})
			wantStates(t, RoleReceive, "r1=active r2=active r3=active", gs...)
			for _, g := range live {
				if own := g.clock.Load(); own.skew != 0 || own.off {
					t.Fatalf("%s takes its own clock to be wrong: %+v", g.opts.Instance.ID, own)
				}
			}
			before := time.Unix(c.now().Unix(), 0)
			kill(t, gs[2])
			wantStates(t, RoleReceive, "r1=active r2=active r3=down", live...)
			if age := c.now().Sub(live[0].Members(RoleReceive)[2].Heartbeat); age < 0 || age > time.Minute {
				t.Fatalf("r3 is said to be heard of %s ago", age)
			}
			c.advance(16 * time.Minute)
			wantStates(t, RoleReceive, "r1=active r2=active", live...)
			for _, g := range live {
				eventually(t, func() string {
					for _, i := range g.History() {
						// Its own times are not used: it may hold samples of any time, until it was forgotten.
						if i.ID == "r3" && i.Off && i.Placed.IsZero() && !i.Until.Before(before.Add(16*time.Minute)) &&
							i.Until.Before(before.Add(time.Hour)) {
							return ""
						}
					}
					return fmt.Sprintf("%s: %+v", g.opts.Instance.ID, g.History())
				})
			}
			o := gs[2].opts
			o.Now, o.Join = c.now, []string{live[0].Address()}
			back := open(t, o)
			wantStates(t, RoleReceive, "r1=active r2=active r3=active", append(slices.Clone(live), back)...)
		})
	}
}

// TestClockIsSet: a member whose clock is set, to whatever time, stays alive for all and sees all alive.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	c := new(clock)
	w := &wrong{clock: c}
	gs := trio(t, c, func(i int, o *Options) {
		if i == 3 {
			o.Now = w.now
		}
	})
	for _, off := range []time.Duration{24 * time.Hour, -10 * year, 0} {
		w.set(off)
		// Each heartbeat that others saw before is older than the timeout when this is over.
		var beats [3]int64
		for i, p := range []string{"r1", "r2", "r3"} {
			beats[i] = gs[0].snapshot.Load().rings[RoleReceive].heartbeats[p].sent
		}
		for n := range 3 {
			eventually(t, func() string {
				for i, id := range []string{"r1", "r2", "r3"} {
					for _, g := range gs {
						if g.snapshot.Load().rings[RoleReceive].heartbeats[id].sent <= beats[i]+int64(n) {
							return fmt.Sprintf("clock off by %s: %s hears nothing of %s", off, g.opts.Instance.ID, id)
						}
					}
				}
				return ""
			})
		}
		wantStates(t, RoleReceive, "r1=active r2=active r3=active", gs...)
		wantPlaced(t, "r1 r2 r3", 3, gs...)
	}
}

func TestPulse(t *testing.T) {
	now, up := time.Unix(1_000_000, 0), time.Hour
	beat := func(at int64) dring.InstanceDesc { return dring.InstanceDesc{Timestamp: at} }
	f := func(name string, p heartbeat, later time.Duration, fresh bool) {
		t.Helper()
		if got := p.fresh(up+later, 8*time.Second); got != fresh {
			t.Fatalf("%s: %+v is fresh after %s: %v", name, p, later, got)
		}
	}
	met := func(at int64) heartbeat { return heartbeat{}.listen(beat(at), false, now, up) }
	f("met, just sent", met(1_000_000), 8*time.Second, true)
	f("met, just sent", met(1_000_000), 9*time.Second, false)
	f("met, old", met(999_995), 3*time.Second, true)
	f("met, old", met(999_995), 4*time.Second, false)
	f("met, too old", met(999_000), 0, false)
	for _, absurd := range []int64{1_000_000 + 86400, math.MaxInt64, math.MaxInt64 / 2} {
		f("met, of the future", met(absurd), 8*time.Second, true)
		f("met, of the future", met(absurd), 9*time.Second, false)
	}
	for _, absurd := range []int64{0, -1, math.MinInt64, math.MinInt64 / 2} {
		f("met, of the past", met(absurd), 0, false)
	}
	for _, old := range []int64{1, 999_000, 1_000_000, 2_000_000, math.MaxInt64} {
		for _, next := range []int64{old - 1, old + 1} { // whatever it says, it came now
			p := met(old).listen(beat(next), true, now, up+time.Minute)
			f("next heartbeat", p, time.Minute+8*time.Second, true)
			f("next heartbeat", p, time.Minute+9*time.Second, false)
			if again := p.listen(beat(next), true, now, up+time.Hour); again != p {
				t.Fatalf("the same heartbeat counts twice: %+v", again)
			}
		}
	}
	if p := met(1); p.silence(up) != 0 {
		t.Fatalf("silent since it was met: %s", p.silence(up))
	}
}

func TestSkew(t *testing.T) {
	f := func(want time.Duration, skews ...time.Duration) {
		t.Helper()
		v := snapshotOf("receive: ")
		for i, s := range skews {
			v.rings[RoleReceive].heartbeats[fmt.Sprint("r", i)] = heartbeat{skew: s, skewKnown: true}
		}
		v.rings[RoleReceive].heartbeats["self"] = heartbeat{skew: time.Hour, skewKnown: true}
		v.rings[RoleReceive].heartbeats["silent"] = heartbeat{skew: time.Hour, skewKnown: true, came: -time.Hour}
		v.rings[RoleReceive].heartbeats["met"] = heartbeat{skew: time.Hour}
		if got := v.skew("self", 0, 8*time.Second); got != want {
			t.Fatalf("%v: got %s, want %s", skews, got, want)
		}
	}
	f(0)
	f(0, time.Hour) // of two nobody knows who is right: each goes by its own
	f(0, time.Hour, 0)
	f(0, time.Hour, -time.Hour)
	f(time.Hour, time.Hour, time.Hour)
	f(-time.Hour, -time.Hour, -time.Hour)
	f(0, time.Hour, time.Hour, 0)
	f(time.Hour, time.Hour, time.Hour, time.Hour)

	c, now := wallClock{}, time.Unix(1_000_000, 0)
	next := func(skew time.Duration, began time.Time, up time.Duration, off bool) {
		t.Helper()
		if c = c.next(skew, now, began, up); c.off != off {
			t.Fatalf("skew %s at %s: %+v", skew, up, c)
		}
	}
	next(time.Minute, now, 0, false)
	next(-time.Hour, now, time.Second, false) // a pause of this process looks like that
	next(0, now, 5*time.Second, false)
	next(-time.Hour, now, 6*time.Second, false)
	next(-time.Hour, now, 15*time.Second, false)
	if c.latest(now) != now || c.common(now) != now.Add(-time.Hour) {
		t.Fatalf("%+v", c)
	}
	next(-time.Hour, now, 16*time.Second, true)
	if c.latest(now) != now.Add(-time.Hour) {
		t.Fatalf("%+v", c)
	}
	next(0, now, 17*time.Second, true) // what it wrote stays wrong
	c = wallClock{}
	next(0, now.Add(59*time.Second), 0, false)
	next(0, now.Add(61*time.Second), 0, true)
}

// TestLivesOfAWrongClockedCluster plays members that join, crash and come back, whose clocks are set by hours and years
// while the network falls apart and heals. At each moment: who crashed is down for whoever could have noticed; nobody
// who lives and can be reached is forgotten. When all is quiet, all agree on who is there and where series go.
func TestLivesOfAWrongClockedCluster(t *testing.T) {
	seed := rand.Uint64()
	for n := range uint64(3) {
		s := newSim(t, seed+n)
		for range 2400 {
			s.second(true)
		}
		s.settle()
	}
}

const (
	simTimeout = 8 * time.Second
	simForget  = 15 * time.Minute
	simSlack   = 10 * time.Second // for word to get around
)

// sim is a cluster without a network: members merge each other's values.
type sim struct {
	t    *testing.T
	name string
	rand *rand.Rand
	up   time.Duration
	all  []*simMember
}

type simMember struct {
	id       string
	tokens   []uint32
	off      time.Duration // of its wall clock
	side     int           // of the cut network
	live     bool
	changed  time.Duration // when it last crashed, came back, or the network changed for it
	value    ringValue
	snapshot roleSnapshot
	apart    map[string]time.Duration // since when the others cannot be reached
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, name: fmt.Sprint("seed ", seed), rand: rand.New(rand.NewPCG(seed, 1)), up: time.Hour}
	for i := range 5 {
		s.all = append(s.all, &simMember{id: fmt.Sprint("r", i), tokens: randomTokens(4), apart: map[string]time.Duration{}})
	}
	for _, m := range s.all {
		s.start(m)
	}
	return s
}

func (s *sim) wall(m *simMember) time.Time {
	return time.Unix(1_800_000_000, 0).Add(s.up + m.off)
}

func (s *sim) start(m *simMember) {
	m.live, m.changed, m.value, m.snapshot = true, s.up, newRingValue(nil), roleSnapshot{}
	s.beat(m)
}

func (s *sim) crash(m *simMember) { m.live, m.changed = false, s.up }

func (s *sim) merge(m *simMember, v ringValue) {
	if _, err := m.value.Merge(v.Clone(), false); err != nil {
		s.t.Fatal(err)
	}
	m.value.RemoveTombstones(s.wall(m).Add(-5 * time.Minute))
	m.snapshot = newRoleSnapshot(m.value.Clone().(ringValue), m.snapshot, s.wall(m), s.up)
}

func (s *sim) beat(m *simMember) {
	want := dring.InstanceDesc{Id: m.id, Addr: m.id + ":1", State: dring.ACTIVE, Tokens: slices.Clone(m.tokens)}
	old, ok := m.value.Ingesters[m.id]
	p, met := m.snapshot.heartbeats[m.id]
	if next, changed := nextEntry(old, ok, want, s.wall(m).Unix(), !met || p.silence(s.up) >= time.Second); changed {
		s.merge(m, ringValue{&dring.Desc{Ingesters: map[string]dring.InstanceDesc{m.id: next}}})
	}
}

// second lets one pass. Fate befalls members only with fate.
func (s *sim) second(fate bool) {
	s.up += time.Second
	steps := []time.Duration{0, time.Minute, 24 * time.Hour, -24 * time.Hour, 10 * year, -10 * year}
	for _, m := range s.all {
		switch x := s.rand.IntN(4000); {
		case !fate:
		case x < 10:
			m.off = steps[s.rand.IntN(len(steps))]
		case x < 20 && m.live:
			s.crash(m)
		case x < 40 && !m.live:
			s.start(m)
		case x < 44:
			s.cut(m, s.rand.IntN(2))
		}
	}
	for _, m := range s.all {
		if !m.live {
			continue
		}
		if int(s.up/time.Second)%2 == 0 {
			s.beat(m)
		}
		for _, i := range s.rand.Perm(len(s.all))[:4] {
			if o := s.all[i]; o.live && o.side == m.side {
				s.merge(o, m.value)
				s.merge(m, o.value)
			}
		}
		s.forgetGone(m)
		s.check(m)
	}
}

func (s *sim) cut(m *simMember, side int) {
	if m.side == side {
		return
	}
	m.side = side
	for _, o := range s.all {
		m.changed, o.changed = s.up, s.up
		if o.side == side {
			delete(m.apart, o.id)
			delete(o.apart, m.id)
		} else {
			m.apart[o.id], o.apart[m.id] = s.up, s.up
		}
	}
}

func (s *sim) forgetGone(m *simMember) {
	v := &snapshot{rings: map[string]roleSnapshot{RoleReceive: m.snapshot}, cluster: newCluster()}
	for _, id := range forgettable(v, s.up, simTimeout, simForget)[RoleReceive] {
		for _, o := range s.all {
			since, apart := m.apart[id]
			if o.id == id && o.live && s.up-o.changed > simSlack && (!apart || s.up-since < simForget-simSlack) {
				s.t.Fatalf("%s: %s forgets %s, which lives and can be reached", s.name, m.id, id)
			}
		}
		e := m.value.Ingesters[id]
		s.merge(m, ringValue{&dring.Desc{Ingesters: map[string]dring.InstanceDesc{id: tombstone(e, s.wall(m).Unix())}}})
	}
}

// check looks at all that m believes.
func (s *sim) check(m *simMember) {
	for _, o := range s.all {
		p, known := m.snapshot.heartbeats[o.id]
		if quiet := s.up - max(m.changed, o.changed); quiet <= simTimeout+simSlack {
			continue
		}
		switch {
		case !o.live && known && p.fresh(s.up, simTimeout):
			s.t.Fatalf("%s: %s takes %s to live, which crashed %s ago: %+v", s.name, m.id, o.id, s.up-o.changed, p)
		case o.live && o.side == m.side && (!known || !p.fresh(s.up, simTimeout)):
			s.t.Fatalf("%s: %s takes %s to be down, known=%v: %+v; %s has %+v, %+v", s.name, m.id, o.id, known, p, o.id,
				o.value.Ingesters[o.id], *o)
		}
	}
}

// settle heals the network, keeps three members alive, and waits until the others are forgotten.
func (s *sim) settle() {
	for i, m := range s.all {
		s.cut(m, 0)
		if m.live && i >= 3 {
			s.crash(m)
		} else if !m.live && i < 3 {
			s.start(m)
		}
	}
	for range int((simForget + time.Minute) / time.Second) {
		s.second(false)
	}
	placement := func(m *simMember) (at []int32) {
		p := ring.NewTokens(tokenMembers(m.snapshot.entries), 2)
		for i := range uint64(256) {
			at = p.Replicas(at, "default-tenant", i<<56)
		}
		return at
	}
	for _, m := range s.all[:3] {
		if len(m.snapshot.entries) != 3 {
			s.t.Fatalf("%s: after quiet %s sees %d members, want 3: %+v", s.name, m.id, len(m.snapshot.entries),
				m.snapshot.heartbeats)
		}
		if !slices.Equal(placement(m), placement(s.all[0])) {
			s.t.Fatalf("%s: after quiet %s and %s place series differently", s.name, m.id, s.all[0].id)
		}
	}
}
