package ring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// keys is how many random keys a property is checked with.
const keys = 2000

// randomMembers makes one member for each zone named, with its own tokens whatever the others are.
func randomMembers(zones []string, tokens int) []TokenMember {
	members := make([]TokenMember, len(zones))
	for i, zone := range zones {
		rnd := rand.New(rand.NewPCG(7, uint64(i)))
		m := TokenMember{Member: Member{ID: fmt.Sprintf("m%02d", i), Addr: fmt.Sprintf("10.0.0.%d:10901", i), Zone: zone}}
		for range tokens {
			m.Tokens = append(m.Tokens, rnd.Uint32())
		}
		members[i] = m
	}
	return members
}

// replicas gives the ids of the replicas of a key, primary first.
func replicas(p Placement, hash uint64) []string {
	var ids []string
	for _, i := range p.Replicas(nil, "t", hash) {
		ids = append(ids, p.Members()[i].ID)
	}
	return ids
}

// layouts are the zones of the rings that the properties are checked on.
var layouts = [][]string{
	{""},
	{"", "", ""},
	{"a", "b", "c"},
	{"a", "a", "b", "b", "c", "c"},
	{"a", "a", "a", "b", "b", "c", "d"},
	{"a", "b", "b", "b", "b"},
	{"a", "a", "b", "b", "b"},
	{"", "", "", "", "", "", "", ""},
	{"", "a", "a", "b"},
}

func TestTokensReplicasAreDistinctAndSpread(t *testing.T) {
	for _, zones := range layouts {
		for rf := 1; rf <= 5; rf++ {
			p := NewTokens(randomMembers(zones, 64), rf)
			if p.ReplicationFactor() != rf || len(p.Members()) != len(zones) {
				t.Fatalf("zones=%q rf=%d: got rf %d, %d members", zones, rf, p.ReplicationFactor(), len(p.Members()))
			}
			for range keys {
				checkSpread(t, p, zones, rf, rand.Uint64())
			}
		}
	}
}

func checkSpread(t *testing.T, p Placement, zones []string, rf int, hash uint64) {
	t.Helper()
	got := p.Replicas(nil, "t", hash)
	if want := min(rf, len(zones)); len(got) != want {
		t.Fatalf("zones=%q rf=%d: %d replicas, want %d", zones, rf, len(got), want)
	}
	size, used, seen := map[string]int{}, map[string]int{}, map[int32]bool{}
	for _, z := range zones {
		size[z]++
	}
	for _, m := range got {
		if seen[m] {
			t.Fatalf("zones=%q rf=%d: member %d twice in %v", zones, rf, m, got)
		}
		seen[m] = true
		used[p.Members()[m].Zone]++
	}
	for a := range size {
		for b := range size {
			if used[a] > used[b]+1 && used[b] < size[b] {
				t.Fatalf("zones=%q rf=%d: %d replicas in zone %q while %q has %d and room", zones, rf, used[a], a, b, used[b])
			}
		}
	}
}

// A member that joins may enter any set of replicas, pushing out at most one other; nobody else moves. A leave is the
// same in reverse.
func TestTokensJoinMovesOnlyToTheNewMember(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) // fixed: the share is a statistic
	for _, zones := range layouts {
		for _, joins := range []string{"", "a", "b", "new"} {
			for rf := 1; rf <= 5; rf++ {
				after := randomMembers(append(slices.Clone(zones), joins), 128)
				before := after[:len(zones)]
				joined := after[len(zones)].ID
				old, now := NewTokens(before, rf), NewTokens(after, rf)
				movedPrimaries := 0
				for range keys {
					hash := rnd.Uint64()
					a, b := replicas(old, hash), replicas(now, hash)
					if a[0] != b[0] {
						movedPrimaries++
					}
					for _, id := range b {
						if id != joined && !slices.Contains(a, id) {
							t.Fatalf("zones=%q +%q rf=%d: %v became %v: %s moved needlessly", zones, joins, rf, a, b, id)
						}
					}
					lost := slices.DeleteFunc(slices.Clone(a), func(id string) bool { return slices.Contains(b, id) })
					if len(lost) > 1 || len(lost) == 1 && !slices.Contains(b, joined) {
						t.Fatalf("zones=%q +%q rf=%d: %v became %v", zones, joins, rf, a, b)
					}
				}
				share := Shares(after, 1)[joined] // with one copy that is the primary
				noise := 5 * math.Sqrt(share*(1-share)/keys)
				if moved := float64(movedPrimaries) / keys; math.Abs(moved-share) > noise {
					t.Fatalf("zones=%q +%q: %.3f of the primaries moved, the new member's share is %.3f", zones, joins, moved, share)
				}
			}
		}
	}
}

// A read-only member is listed, and its keys go where they would go without it.
func TestTokensReadOnlyIsAsGone(t *testing.T) {
	for _, zones := range layouts {
		members := randomMembers(zones, 64)
		drained := slices.Clone(members)
		drained[0].ReadOnly = true
		with, without := NewTokens(drained, 3), NewTokens(members[1:], 3)
		if len(with.Members()) != len(zones) {
			t.Fatalf("zones=%q: a read-only member is not listed", zones)
		}
		for range keys {
			hash := rand.Uint64()
			if a, b := replicas(with, hash), replicas(without, hash); !slices.Equal(a, b) {
				t.Fatalf("zones=%q: %v with a read-only member, %v without it", zones, a, b)
			}
		}
	}
}

// With every zone of its own replica, a zone that is lost leaves a quorum of every key.
func TestTokensQuorumSurvivesAZone(t *testing.T) {
	p := NewTokens(randomMembers([]string{"a", "a", "b", "b", "b", "c"}, 64), 3)
	for _, dead := range []string{"a", "b", "c"} {
		for range keys {
			live := 0
			for _, m := range p.Replicas(nil, "t", rand.Uint64()) {
				if p.Members()[m].Zone != dead {
					live++
				}
			}
			if live < Quorum(3) {
				t.Fatalf("without zone %s only %d replicas of a key live", dead, live)
			}
		}
	}
}

func TestTokensIgnoreInputOrder(t *testing.T) {
	members := randomMembers([]string{"a", "b", "b", "c", "c"}, 32)
	members[1].Tokens[3] = members[4].Tokens[5] // a token of two members: the smaller id has it
	want := NewTokens(members, 3)
	for range 20 {
		shuffled := slices.Clone(members)
		for i := range shuffled {
			shuffled[i].Tokens = slices.Clone(shuffled[i].Tokens)
			rand.Shuffle(32, func(a, b int) {
				ts := shuffled[i].Tokens
				ts[a], ts[b] = ts[b], ts[a]
			})
		}
		rand.Shuffle(len(shuffled), func(a, b int) { shuffled[a], shuffled[b] = shuffled[b], shuffled[a] })
		if got := NewTokens(shuffled, 3); !reflect.DeepEqual(got, want) {
			t.Fatal("the order of members or tokens changes the placement")
		}
	}
}

func TestTokensPrimaryOwnsTheKeysUpToItsToken(t *testing.T) {
	p := NewTokens([]TokenMember{
		{Member: Member{ID: "x"}, Tokens: []uint32{100, 1 << 31}},
		{Member: Member{ID: "y"}, Tokens: []uint32{200, math.MaxUint32 - 1}},
	}, 1)
	f := func(key uint32, want string) {
		t.Helper()
		if got := replicas(p, uint64(key)<<32|0xffffffff); got[0] != want {
			t.Fatalf("key %d is on %s, want %s", key, got[0], want)
		}
	}
	f(0, "x")
	f(100, "x")
	f(101, "y")
	f(200, "y")
	f(201, "x")
	f(1<<31, "x")
	f(1<<31+1, "y")
	f(math.MaxUint32-1, "y")
	f(math.MaxUint32, "x")
}

func TestTokensOfNobody(t *testing.T) {
	f := func(members []TokenMember, want int) {
		t.Helper()
		if got := NewTokens(members, 3).Replicas(nil, "t", 1); len(got) != want {
			t.Fatalf("%d replicas, want %d", len(got), want)
		}
	}
	f(nil, 0)
	f([]TokenMember{{Member: Member{ID: "x"}}}, 0)
	f([]TokenMember{{Member: Member{ID: "x"}, Tokens: []uint32{1}, ReadOnly: true}}, 0)
	f([]TokenMember{{Member: Member{ID: "x"}, Tokens: []uint32{1}}, {Member: Member{ID: "y"}}}, 1)
}

func TestShares(t *testing.T) {
	f := func(want map[string]float64, members ...TokenMember) {
		t.Helper()
		got := Shares(members, 1)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("shares %v, want %v", got, want)
		}
	}
	x, y := Member{ID: "x"}, Member{ID: "y"}
	f(map[string]float64{})
	f(map[string]float64{"x": 1}, TokenMember{Member: x, Tokens: []uint32{5}})
	f(map[string]float64{"x": 1, "y": 0}, TokenMember{Member: y, Tokens: []uint32{5}},
		TokenMember{Member: x, Tokens: []uint32{5}})
	f(map[string]float64{"x": 0.5, "y": 0.5}, TokenMember{Member: x, Tokens: []uint32{0}},
		TokenMember{Member: y, Tokens: []uint32{1 << 31}})
	f(map[string]float64{"x": 0.75, "y": 0.25}, TokenMember{Member: x, Tokens: []uint32{0, 1 << 31}},
		TokenMember{Member: y, Tokens: []uint32{1 << 30}})
	f(map[string]float64{"x": 0, "y": 1}, TokenMember{Member: x, Tokens: []uint32{0}, ReadOnly: true},
		TokenMember{Member: y, Tokens: []uint32{1 << 31}})
}

// A share is what the placement gives a member, whatever the zones are.
func TestSharesAreWhatIsPlaced(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, zones := range layouts {
		for rf := 1; rf <= 4; rf++ {
			members := randomMembers(zones, 64)
			p, shares, held, sum := NewTokens(members, rf), Shares(members, rf), map[string]float64{}, 0.
			const probes = 50 * keys
			for range probes {
				for _, id := range replicas(p, rnd.Uint64()) {
					held[id] += 1. / probes
				}
			}
			for id, share := range shares {
				sum += share
				if math.Abs(held[id]-share) > 0.01 {
					t.Errorf("zones=%q rf=%d: %s has a copy of %.3f of the keys, its share is %.3f", zones, rf, id, held[id], share)
				}
			}
			if math.Abs(sum-float64(min(rf, len(zones)))) > 1e-9 {
				t.Errorf("zones=%q rf=%d: shares add up to %v", zones, rf, sum)
			}
		}
	}
}

func BenchmarkReplicas(b *testing.B) {
	for _, size := range []struct{ members, tokens int }{{3, 128}, {30, 128}, {100, 512}} {
		zones := make([]string, size.members)
		for i := range zones {
			zones[i] = string(rune('a' + i%3))
		}
		p := NewTokens(randomMembers(zones, size.tokens), 3)
		b.Run(fmt.Sprintf("members=%d/tokens=%d", size.members, size.tokens), func(b *testing.B) {
			b.ReportAllocs()
			dst, hash := make([]int32, 0, 3), uint64(0)
			for b.Loop() {
				hash += 0x9e3779b97f4a7c15
				dst = p.Replicas(dst[:0], "t", hash)
			}
		})
	}
}

func BenchmarkNewTokens(b *testing.B) {
	zones := make([]string, 100)
	for i := range zones {
		zones[i] = string(rune('a' + i%3))
	}
	members := randomMembers(zones, 512)
	b.ReportAllocs()
	for b.Loop() {
		NewTokens(members, 3)
	}
}
