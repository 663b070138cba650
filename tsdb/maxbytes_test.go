package tsdb

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

func TestOverweight(t *testing.T) {
	id := func(n byte) ulid.ULID { return ulid.ULID{15: n} }
	blocks := []sizedBlock{{id(1), 100, 10}, {id(3), 300, 30}, {id(2), 200, 20}, {id(4), 300, 5}}
	f := func(head, most int64, want ...byte) {
		t.Helper()
		got := slices.SortedFunc(maps.Keys(oldestBeyond(slices.Clone(blocks), head, most)), ulid.ULID.Compare)
		if len(got) != len(want) {
			t.Fatalf("head of %d, at most %d: %v are over, want %v", head, most, got, want)
		}
		for i := range want {
			if got[i] != id(want[i]) {
				t.Errorf("head of %d, at most %d: %v are over, want %v", head, most, got, want)
			}
		}
	}
	f(0, 1000)
	f(0, 65)
	f(0, 64, 1)
	f(10, 65, 1)
	f(0, 40, 1, 2)
	f(0, 34, 1, 2, 3)
	f(100, 50, 1, 2, 3, 4)
}

func TestMaxBytes(t *testing.T) {
	o := testOptions(t)
	var clock atomic.Int64
	clock.Store(time.Now().Truncate(2 * time.Hour).UnixMilli())
	o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	o.IdleTimeout, o.MaxBytes = 0, 1
	shipped := map[ulid.ULID]bool{}
	o.Shipped = func(_ tenant.ID, id ulid.ULID) bool { return shipped[id] }
	d := openDB(t, o)
	left := func() []LocalBlock {
		put(t, d, team, labels.FromStrings("a", "b"), float64(clock.Load()), 1)
		clock.Add(2 * time.Hour.Milliseconds())
		if err := d.lookup(team).cut(t.Context(), clock.Load()); err != nil {
			t.Fatal(err)
		}
		blocks, err := d.Blocks(team)
		if err != nil {
			t.Fatal(err)
		}
		return blocks
	}
	if n := len(left()) + len(left()); n != 1+2 {
		t.Fatalf("%d blocks that are not in the bucket, want 3: they stay", n)
	}
	for _, b := range left()[:2] {
		shipped[b.ID] = true
	}
	if blocks := left(); len(blocks) != 2 || shipped[blocks[0].ID] {
		t.Fatalf("%d blocks are left, want the 2 that are not in the bucket", len(blocks))
	}
}
