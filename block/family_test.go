package block

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/oklog/ulid/v2"
)

// TestFamilies: what replaces what is found in each family by itself.
func TestFamilies(t *testing.T) {
	across := 0 // families whose blocks have different labels
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var metas []*Meta
		for i := range 4 + rnd.IntN(6) {
			replica := []string{"r1", "r2", Deduped}[rnd.IntN(3)]
			m := testMeta(i, 0, 10, 0, nil, "tenant_id", []string{"a", "b"}[rnd.IntN(2)], "receive_replica", replica)
			for s := range 4 {
				if rnd.IntN(2) == 0 {
					m.Compaction.Sources = append(m.Compaction.Sources, ulid.ULID{byte(s)})
				}
			}
			if rnd.IntN(3) == 0 {
				partOf(m, 0, 1)
			}
			metas = append(metas, m)
		}
		families := FamiliesOf(metas)
		apart := map[ulid.ULID]Replacement{}
		for key, in := range families.Group(metas) {
			for _, m := range in {
				if families.Of(m) != key || !families.Fits(m) {
					t.Fatalf("seed %d: %s is of family %q, not of %q", seed, m.ULID, families.Of(m), key)
				}
				if !maps.Equal(m.Thanos.Labels, in[0].Thanos.Labels) {
					across++
				}
			}
			maps.Copy(apart, Replaced(in))
		}
		if whole := Replaced(metas); !reflect.DeepEqual(apart, whole) {
			t.Fatalf("seed %d: by families %v, of all %v", seed, apart, whole)
		}
	}
	if across < 100 {
		t.Errorf("%d blocks are in a family with others' labels", across)
	}
	var none Families
	if m := partOf(testMeta(1, 0, 10, 0, nil), 0, 1); none.Fits(m) {
		t.Error("a block that says of a label that it was removed fits where none was")
	}
}
