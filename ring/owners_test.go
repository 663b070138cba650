package ring

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// ownerIDs are the ids of the owners of a key.
func ownerIDs(members []Member, key string, n int) (ids []string) {
	for _, i := range Owners(members, []byte(key), n) {
		ids = append(ids, members[i].ID)
	}
	return ids
}

// TestOwnersGolden: the table of docs/format/owners.md is what the function gives.
func TestOwnersGolden(t *testing.T) {
	page, err := os.ReadFile("../docs/format/owners.md")
	if err != nil {
		t.Fatal(err)
	}
	scores, owners := 0, 0
	row := regexp.MustCompile("(?m)^\\| `([^`]*)` \\| `([^`]*)` \\| `([^`]*)` \\|$")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		if members, isSet := strings.CutPrefix(m[2], "of "); isSet {
			owners++
			var set []Member
			for _, text := range strings.Fields(members) {
				id, zone, _ := strings.Cut(text, "@")
				set = append(set, Member{ID: id, Zone: zone})
			}
			if got := strings.Join(ownerIDs(set, m[1], len(set)), " "); got != m[3] {
				t.Errorf("owners of %q among %s: %s, the page says %s", m[1], members, got, m[3])
			}
			continue
		}
		scores++
		if got := fmt.Sprintf("%016x", score([]byte(m[1]), m[2])); got != m[3] {
			t.Errorf("score of %q for %q: %s, the page says %s", m[2], m[1], got, m[3])
		}
	}
	if scores < 4 || owners < 4 {
		t.Errorf("%d scores and %d owners: this test does not find them", scores, owners)
	}
}

// TestShardIsAsItWas: shuffle shards of running clusters do not move. shardBefore is the function that placed them.
func TestShardIsAsItWas(t *testing.T) {
	for _, zones := range shardLayouts {
		members := plain(zones)
		for n := range 200 {
			id := tenant.ID(fmt.Sprintf("tenant-%d", n))
			for size := range len(members) + 2 {
				if got, want := Shard(members, id, size), shardBefore(members, id, size); !slices.Equal(got, want) {
					t.Fatalf("zones %q, tenant %s, size %d: %v, and before %v", zones, id, size, got, want)
				}
			}
		}
	}
}

func shardBefore(members []Member, id tenant.ID, size int) []int32 {
	order := make([]int32, len(members))
	for i := range order {
		order[i] = int32(i)
	}
	if size <= 0 || size >= len(members) {
		return order
	}
	scores := make([]uint64, len(members))
	for i, m := range members {
		scores[i] = xxhash.Sum64String(string(id) + "\xff" + m.ID)
	}
	higher := func(a, b int32) int {
		return cmp.Or(cmp.Compare(scores[b], scores[a]), strings.Compare(members[a].ID, members[b].ID))
	}
	slices.SortFunc(order, higher)
	met, ranks := map[string]int{}, make([]int, len(members))
	for _, i := range order {
		ranks[i] = met[members[i].Zone]
		met[members[i].Zone]++
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(ranks[a], ranks[b]), higher(a, b)) })
	order = order[:size]
	slices.Sort(order)
	return order
}

// TestOwners: owners are distinct, use each zone once while unused zones remain, and do not depend on the order of the
// members; a smaller n gives the beginning of a larger one.
func TestOwners(t *testing.T) {
	for _, zones := range shardLayouts {
		members := plain(zones)
		for k := range 200 {
			key := fmt.Sprintf("block-%d", k)
			all := ownerIDs(members, key, len(members)+1)
			if len(all) != len(members) || len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) {
				t.Fatalf("zones %q: %q", zones, all)
			}
			mixed := slices.Clone(members)
			rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
			for n := range len(all) + 1 {
				if got := ownerIDs(mixed, key, n); !slices.Equal(got, all[:n]) {
					t.Fatalf("zones %q, %d owners: %q, and all are %q", zones, n, got, all)
				}
			}
			used := map[string]bool{}
			for _, i := range Owners(members, []byte(key), distinct(zones)) {
				used[members[i].Zone] = true
			}
			if len(used) != distinct(zones) {
				t.Fatalf("zones %q: the first %d owners are in %d zones", zones, distinct(zones), len(used))
			}
		}
	}
	if got := Owners(nil, []byte("x"), 3); len(got) != 0 {
		t.Errorf("nobody owns something: %v", got)
	}
	if got := Owners(plain([]string{""}), nil, -1); len(got) != 0 {
		t.Errorf("-1 owners: %v", got)
	}
	twins := []Member{{ID: "b"}, {ID: "a"}}
	for k := range 1000 { // equal scores cannot be made; what breaks a tie is the id, whatever the order
		key := binary.BigEndian.AppendUint64(nil, uint64(k))
		if a, b := Owners(twins, key, 1), Owners([]Member{twins[1], twins[0]}, key, 1); a[0] == b[0] {
			t.Fatalf("key %d: the owner depends on the order of the members", k)
		}
	}
}

// TestOwnersMove: a member that joins takes about 1/N of the keys, and nothing else moves. A leave is the same in
// reverse.
func TestOwnersMove(t *testing.T) {
	const keys = 20_000
	for _, n := range []int{2, 3, 10, 40} {
		var members []Member
		for i := range n + 1 {
			members = append(members, Member{ID: fmt.Sprintf("gateway-%d", i), Zone: string(rune('a' + i%3))})
		}
		joined, moved, part := members[n].ID, 0, 1/float64(n+1)
		for k := range keys {
			key := fmt.Sprintf("01J%05d", k)
			before, after := ownerIDs(members[:n], key, 1)[0], ownerIDs(members, key, 1)[0]
			if before == after {
				continue
			}
			moved++
			if after != joined {
				t.Fatalf("%d members: %s moved from %s to %s, and %s is new", n, key, before, after, joined)
			}
		}
		noise := 5 * math.Sqrt(part*(1-part)/keys)
		if got := float64(moved) / keys; math.Abs(got-part) > noise {
			t.Errorf("%d members: %.4f of the keys moved, want %.4f", n, got, part)
		}
	}
}

func BenchmarkOwners(b *testing.B) {
	for _, size := range []struct{ members, n int }{{3, 1}, {10, 2}, {30, 3}, {100, 3}} {
		var members []Member
		for i := range size.members {
			members = append(members, Member{ID: fmt.Sprintf("gateway-%d", i), Zone: string(rune('a' + i%3))})
		}
		key := []byte("01JDKV3X9T7Q4M2N8R5W6Y1ZBC")
		b.Run(fmt.Sprintf("members=%d/n=%d", size.members, size.n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				key[25]++
				Owners(members, key, size.n)
			}
		})
	}
}
