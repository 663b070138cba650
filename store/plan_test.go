package store

import (
	"fmt"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
)

func testID(i int) ulid.ULID { return ulid.MustParse(fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5FA%d", i)) }

// testMeta is block i of [mint, maxt) made of sources, with pairs of names and values as its external labels.
func testMeta(i int, mint, maxt, resolution int64, sources []int, external ...string) *block.Meta {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: testID(i), MinTime: mint, MaxTime: maxt}}
	for _, s := range sources {
		m.Compaction.Sources = append(m.Compaction.Sources, testID(s))
	}
	m.Thanos.Downsample.Resolution = resolution
	m.Thanos.Labels = map[string]string{}
	for j := 0; j+1 < len(external); j += 2 {
		m.Thanos.Labels[external[j]] = external[j+1]
	}
	return m
}

// TestSupersededWithinStream: whatever ids a block lists, it hides blocks of its own stream only.
func TestSupersededWithinStream(t *testing.T) {
	a := []string{"tenant_id", "a", "receive_replica", "r1"}
	old := testMeta(0, 0, 10, 0, []int{0}, a...)
	f := func(name string, by *block.Meta, want bool) {
		t.Helper()
		got := superseded([]*block.Meta{old, by}, func(ulid.ULID) bool { return false })
		if got[old.ULID] != want {
			t.Errorf("%s: superseded %v, want %v", name, got[old.ULID], want)
		}
		if got[by.ULID] {
			t.Errorf("%s: the larger block is superseded", name)
		}
	}
	f("same stream", testMeta(1, 0, 20, 0, []int{0, 2}, a...), true)
	f("another tenant", testMeta(1, 0, 20, 0, []int{0, 2}, "tenant_id", "b", "receive_replica", "r1"), false)
	f("another replica", testMeta(1, 0, 20, 0, []int{0, 2}, "tenant_id", "a", "receive_replica", "r2"), false)
	f("without the replica", testMeta(1, 0, 20, 0, []int{0, 2}, "tenant_id", "a"), false)
	f("a label more", testMeta(1, 0, 20, 0, []int{0, 2}, append([]string{"zone", "x"}, a...)...), false)
	f("an empty value is a label, too", testMeta(1, 0, 20, 0, []int{0, 2}, append([]string{"zone", ""}, a...)...), false)
	f("no labels", testMeta(1, 0, 20, 0, []int{0, 2}), false)
	f("another resolution", testMeta(1, 0, 20, 300_000, []int{0, 2}, a...), false)
	f("other sources", testMeta(1, 0, 20, 0, []int{2, 3}, a...), false)
	f("the same source twice is not more", testMeta(1, 0, 20, 0, []int{0, 0}, a...), false)
	f("begins later", testMeta(1, 5, 20, 0, []int{0, 2}, a...), false)
	f("ends earlier", testMeta(1, 0, 9, 0, []int{0, 2}, a...), false)

	old = testMeta(0, 0, 10, 0, []int{3, 4}, a...)
	f("not all sources", testMeta(1, 0, 20, 0, []int{3, 5, 6}, a...), false)
	f("all sources", testMeta(1, 0, 20, 0, []int{3, 5, 4}, a...), true)
	old = testMeta(0, 0, 10, 0, []int{3, 4}, "tenant_id", "b")
	f("a first source that others share", testMeta(1, 0, 20, 0, []int{3, 4, 5}, a...), false)
}

// TestSourcesOf: a receiver lets a block go when its samples are served, and only then.
func TestSourcesOf(t *testing.T) {
	a, b := []string{"tenant_id", "a"}, []string{"tenant_id", "b"}
	f := func(name string, want bool, by *block.Meta, inBucket ...*block.Meta) {
		t.Helper()
		all := map[ulid.ULID]*block.Meta{by.ULID: by}
		for _, m := range inBucket {
			all[m.ULID] = m
		}
		if got := sourcesOf([]*block.Meta{by}, all)[testID(0)]; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	f("itself", true, testMeta(0, 0, 10, 0, []int{0}, a...))
	f("compacted and deleted", true, testMeta(1, 0, 20, 0, []int{0, 2}, a...))
	f("compacted", true, testMeta(1, 0, 20, 0, []int{0, 2}, a...), testMeta(0, 0, 10, 0, []int{0}, a...))
	f("downsampled", false, testMeta(1, 0, 20, 300_000, []int{0, 2}, a...))
	f("of another tenant", false, testMeta(1, 0, 20, 0, []int{0, 2}, b...), testMeta(0, 0, 10, 0, []int{0}, a...))
	f("of a shorter time", false, testMeta(1, 0, 5, 0, []int{0, 2}, a...), testMeta(0, 0, 10, 0, []int{0}, a...))
}
