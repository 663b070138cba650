package ring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// sizes is a Sharding.
type sizes map[tenant.ID]int

func (s sizes) Size(id tenant.ID) int { return s[id] }
func (s sizes) Version() string       { return fmt.Sprint(s) }

// every gives all tenants the same size.
type every int

func (e every) Size(tenant.ID) int { return int(e) }
func (e every) Version() string    { return fmt.Sprint(int(e)) }

func plain(zones []string) []Member {
	var out []Member
	for _, m := range randomMembers(zones, 1) {
		out = append(out, m.Member)
	}
	return out
}

// shardIDs are the ids of a tenant's shard.
func shardIDs(members []Member, id tenant.ID, size int) []string {
	var ids []string
	for _, i := range Shard(members, id, size) {
		ids = append(ids, members[i].ID)
	}
	return ids
}

// missing is how many of a are not in b.
func missing(a, b []string) (n int) {
	for _, id := range a {
		if !slices.Contains(b, id) {
			n++
		}
	}
	return n
}

var shardLayouts = append(layouts, []string{"a", "b", "c", "a", "b", "c", "a", "b", "c", "a", "b", "c"},
	[]string{"a", "b", "c", "c", "c", "c", "d", "d"})

func TestShardSizeAndZones(t *testing.T) {
	for _, zones := range shardLayouts {
		members := plain(zones)
		count := map[string]int{}
		for _, z := range zones {
			count[z]++
		}
		for n := range 50 {
			id := tenant.ID(fmt.Sprintf("tenant-%d", n))
			for size := range len(members) + 3 {
				got := Shard(members, id, size)
				want := min(size, len(members))
				if size == 0 {
					want = len(members)
				}
				if len(got) != want || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != want {
					t.Fatalf("zones %q, size %d: %v", zones, size, got)
				}
				used := map[string]int{}
				for _, i := range got {
					used[members[i].Zone]++
				}
				for z, n := range count { // a zone may have fewer members than another only if it has no more
					for other := range count {
						if used[z] < used[other]-1 && used[z] < n {
							t.Fatalf("zones %q, size %d: %v", zones, size, used)
						}
					}
				}
			}
		}
	}
}

func TestShardIsStable(t *testing.T) {
	for _, zones := range shardLayouts {
		members := plain(zones)
		for n := range 50 {
			id := tenant.ID(fmt.Sprintf("tenant-%d", n))
			for size := 1; size <= len(members); size++ {
				all := shardIDs(members, id, size)
				if larger := shardIDs(members, id, size+1); missing(all, larger) > 0 {
					t.Fatalf("zones %q: a shard of %d is %q, and of %d %q", zones, size, all, size+1, larger)
				}
				mixed := slices.Clone(members)
				rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
				if other := shardIDs(mixed, id, size); missing(all, other)+missing(other, all) > 0 {
					t.Fatalf("zones %q, size %d: %q, in another order %q", zones, size, all, other)
				}
				for gone := range members {
					rest := shardIDs(slices.Delete(slices.Clone(members), gone, gone+1), id, size)
					was := slices.Contains(all, members[gone].ID)
					if lost := missing(all, rest); lost > 1 || was && slices.Contains(rest, members[gone].ID) || !was && lost > 0 {
						t.Fatalf("zones %q, size %d, without %s: %q becomes %q", zones, size, members[gone].ID, all, rest)
					}
				}
			}
		}
	}
}

func TestShardsDiffer(t *testing.T) {
	members := plain([]string{"a", "b", "c", "a", "b", "c", "a", "b", "c", "a", "b", "c"})
	const tenants, size = 3000, 4
	use := map[string]int{}
	for n := range tenants {
		for _, id := range shardIDs(members, tenant.ID(fmt.Sprintf("tenant-%d", n)), size) {
			use[id]++
		}
	}
	for id, n := range use {
		if want := tenants * size / len(members); math.Abs(float64(n-want)) > 0.15*float64(want) {
			t.Errorf("%s is in %d shards, want about %d", id, n, want)
		}
	}
}

func TestShuffledPlacesWithinTheShard(t *testing.T) {
	for _, zones := range shardLayouts {
		members := randomMembers(zones, 64)
		for rf := 1; rf <= 3; rf++ {
			for size := 1; size <= len(zones)+1; size++ {
				p := NewShuffled(members, rf, every(size))
				for _, id := range []tenant.ID{"red", "blue", "green"} {
					of := MembersFor(p, id)
					if want := min(max(size, rf), len(zones)); len(of) != want {
						t.Fatalf("zones %q, rf %d, size %d: on %v", zones, rf, size, of)
					}
					one := For(p, id)
					for range 200 {
						key := rand.Uint64()
						got := p.Replicas(nil, id, key)
						if len(got) != min(rf, len(of)) || !slices.Equal(got, one.Replicas(nil, id, key)) {
							t.Fatalf("zones %q, rf %d, size %d: %v of %v", zones, rf, size, got, of)
						}
						zone := map[string]bool{}
						for _, m := range got {
							if !slices.Contains(of, m) {
								t.Fatalf("zones %q, rf %d, size %d: %d is not in the shard %v", zones, rf, size, m, of)
							}
							zone[p.Members()[m].Zone] = true
						}
						if all := distinct(zones); len(zone) < min(rf, all) {
							t.Fatalf("zones %q, rf %d, size %d: copies on %d zones of %d", zones, rf, size, len(zone), all)
						}
					}
				}
			}
		}
	}
}

func distinct(zones []string) int {
	zones = slices.Clone(zones)
	slices.Sort(zones)
	return len(slices.Compact(zones))
}

func TestShuffledWithoutSizesIsPlain(t *testing.T) {
	members := randomMembers([]string{"a", "b", "c", "a"}, 64)
	plain, shuffled := NewTokens(members, 3), NewShuffled(members, 3, sizes{"small": 3})
	differ := 0
	for range keys {
		key := rand.Uint64()
		if !slices.Equal(plain.Replicas(nil, "big", key), shuffled.Replicas(nil, "big", key)) {
			t.Fatal("a tenant without a size is placed otherwise")
		}
		if !slices.Equal(plain.Replicas(nil, "small", key), shuffled.Replicas(nil, "small", key)) {
			differ++
		}
	}
	if differ == 0 {
		t.Error("a shard changes nothing")
	}
}

func TestShuffledLeavesReadOnlyMembersOut(t *testing.T) {
	members := randomMembers([]string{"", "", "", "", ""}, 64)
	members[1].ReadOnly, members[3].Tokens = true, nil
	p := NewShuffled(members, 1, every(2))
	for n := range 50 {
		id := tenant.ID(fmt.Sprintf("tenant-%d", n))
		if of := MembersFor(p, id); len(of) != 2 || slices.Contains(of, 1) || slices.Contains(of, 3) {
			t.Fatalf("%s is on %v", id, of)
		}
	}
	if of := MembersFor(NewShuffled(members, 1, every(0)), "t"); !slices.Equal(of, []int32{0, 2, 4}) {
		t.Errorf("without a size: %v", of)
	}
	if of := MembersFor(NewShuffled(nil, 3, every(2)), "t"); len(of) != 0 {
		t.Errorf("of nobody: %v", of)
	}
}

func TestShuffledFollowsSizes(t *testing.T) {
	s := sizes{"t": 2}
	p := NewShuffled(randomMembers(make([]string, 8), 32), 2, s)
	two := MembersFor(p, "t")
	s["t"] = 5
	five := MembersFor(p, "t")
	s["t"] = 2
	if again := MembersFor(p, "t"); len(two) != 2 || len(five) != 5 || !slices.Equal(again, two) {
		t.Errorf("%v, %v, %v", two, five, again)
	}
}

func TestShuffledCacheIsBounded(t *testing.T) {
	p := NewShuffled(randomMembers(make([]string, 20), 128), 3, every(4)).(*shuffled)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 1500 {
				p.Replicas(nil, tenant.ID(fmt.Sprintf("tenant-%d-%d", w, n)), rand.Uint64())
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, r := range p.rings {
		sum += len(r.tokens)
	}
	if sum != p.tokens || p.tokens > maxShardTokens+4*128 || len(p.rings) > len(p.shards) || len(p.shards) == 0 {
		t.Errorf("%d tokens counted, %d there, %d rings, %d shards", p.tokens, sum, len(p.rings), len(p.shards))
	}
}

func BenchmarkShuffledFor(b *testing.B) {
	p := NewShuffled(randomMembers(make([]string, 30), 128), 3, every(6))
	var buf [3]int32
	b.ReportAllocs()
	for b.Loop() {
		For(p, "acme").Replicas(buf[:0], "acme", 12345)
	}
}

func BenchmarkShuffledNewTenant(b *testing.B) {
	p := NewShuffled(randomMembers(make([]string, 30), 128), 3, every(6)).(*shuffled)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		p.reset()
		p.ringOf("acme")
	}
}
