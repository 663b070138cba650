package ring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestShare: the estimate is what a great many random keys give.
func TestShare(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 5, 20} {
		members := make([]TokenMember, n)
		for i := range members {
			members[i].ID = fmt.Sprint("m", i)
			for range 128 {
				members[i].Tokens = append(members[i].Tokens, rnd.Uint32())
			}
		}
		p := NewTokens(members, 3)
		hits, sum := make([]float64, n), 0.0
		const keys = 200_000
		for range keys {
			for _, r := range p.Replicas(nil, "t", rnd.Uint64()) {
				hits[r] += 1. / keys
			}
		}
		for i, m := range p.Members() {
			got := Share(p, "t", func(o Member) bool { return o.ID == m.ID })
			if math.Abs(got-hits[i]) > 0.01 {
				t.Errorf("%d members: share of %s is %v, want %v", n, m.ID, got, hits[i])
			}
			sum += got
		}
		if math.Abs(sum-float64(min(n, 3))) > 1e-9 {
			t.Errorf("%d members: all shares are %v", n, sum)
		}
	}
	if got := Share(Single{Self: Member{ID: "a"}}, "t", func(m Member) bool { return m.ID == "a" }); got != 1 {
		t.Errorf("alone: %v", got)
	}
	if got := Share(Single{}, "t", func(Member) bool { return false }); got != 0 {
		t.Errorf("not a member: %v", got)
	}
}

func TestSeriesPart(t *testing.T) {
	is := func(id string) func(Member) bool { return func(m Member) bool { return m.ID == id } }
	p := NewTokens([]TokenMember{{Member: Member{ID: "a"}, Tokens: []uint32{0, 1 << 31}},
		{Member: Member{ID: "b"}, Tokens: []uint32{1 << 30, 3 << 30}},
		{Member: Member{ID: "draining"}, Tokens: []uint32{5}, ReadOnly: true}}, 1)
	for id, want := range map[string]float64{"a": 0.5, "stranger": 1, "draining": 1} {
		if got := SeriesPart(p, "t", is(id)); math.Abs(got-want) > 0.01 {
			t.Errorf("%s keeps %v of the limit, want %v", id, got, want)
		}
	}
}

func TestRateDivisor(t *testing.T) {
	of := func(states ...State) (all []Status) {
		for _, s := range states {
			all = append(all, Status{State: s})
		}
		return all
	}
	f := func(distributors, receivers []Status, want int) {
		t.Helper()
		if got := RateDivisor(distributors, receivers); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	f(nil, nil, 1)
	f(of(Active, Active), of(Active, Active, Active), 2)
	f(of(Down, Leaving), of(Active, Active, Active, ReadOnly), 3)
	f(nil, of(Down), 1)
	members := []Member{{ID: "a"}, {ID: "b"}}
	if n := StaticRateDivisor(members, func(m Member) bool { return m.ID == "b" }); n != 2 {
		t.Errorf("a member of two divides by %d", n)
	}
	if n := StaticRateDivisor(members, func(Member) bool { return false }); n != 1 {
		t.Errorf("a process that the file does not name divides by %d", n)
	}
}

func BenchmarkShare(b *testing.B) {
	members := make([]TokenMember, 9)
	for i := range members {
		members[i].ID = fmt.Sprint("m", i)
		for range 128 {
			members[i].Tokens = append(members[i].Tokens, rand.Uint32())
		}
	}
	p := NewTokens(members, 3)
	b.ReportAllocs()
	for b.Loop() {
		Share(p, "t", func(m Member) bool { return m.ID == "m3" })
	}
}

// TestShareInZones: a share is counted and not computed, so it is right in uneven zones, and for a process that is two
// members of the ring, in two zones: a series with copies on both counts once.
func TestShareInZones(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var members []TokenMember
	for i, zone := range []string{"a", "b", "b", "b", "c", "c"} {
		m := TokenMember{Member: Member{ID: fmt.Sprint("m", i), Addr: fmt.Sprint("host", i, ":1"), Zone: zone}}
		for range 128 {
			m.Tokens = append(m.Tokens, rnd.Uint32())
		}
		members = append(members, m)
	}
	members[1].Addr = members[0].Addr // one process, known by two ids in zones a and b
	at := func(addr string) func(Member) bool { return func(m Member) bool { return m.Addr == addr } }
	for rf := 1; rf <= 3; rf++ {
		p := NewTokens(members, rf)
		for _, m := range members {
			hits := 0.0
			const keys = 100_000
			for range keys {
				for _, r := range p.Replicas(nil, "t", rnd.Uint64()) {
					if p.Members()[r].Addr == m.Addr {
						hits += 1. / keys
						break
					}
				}
			}
			got := SeriesPart(p, "t", at(m.Addr))
			if math.Abs(got-hits) > 0.015 || got > 1 {
				t.Errorf("replication factor %d: the part of %s in zone %s is %v, want %v", rf, m.ID, m.Zone, got, hits)
			}
		}
	}
	if got := SeriesPart(NewTokens(members, 3), "t", at(members[0].Addr)); got != 1 {
		t.Errorf("the only member of a zone, with three replicas in three zones, stores all series, and keeps %v", got)
	}
}
