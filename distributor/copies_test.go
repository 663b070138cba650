package distributor

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// Each member hears which copy of a series it keeps: its place among the replicas of the placement.
func TestMembersAreToldTheirCopies(t *testing.T) {
	r := newFakeRing(3, "a", "b", "c")
	c := newCluster(t, r, DefaultOptions())
	var mu sync.Mutex
	copies := map[string]map[int]string{} // by series: the member that keeps each
	for id, m := range c.members {
		m.become(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, i := range s.Series {
				name := string(s.Batch.Series[i].Labels())
				if copies[name] == nil {
					copies[name] = map[int]string{}
				}
				copies[name][s.Copies.CopyOf(i)] = id
			}
			return nil, nil
		})
	}
	b := batch(50)
	c.push(b)
	c.close() // waits for the third copies
	for i := range b.Series {
		s := &b.Series[i]
		got := copies[string(s.Labels())]
		owners := r.Replicas(nil, b.Tenant, s.Hash)
		want := make([]string, 0, 3)
		for _, m := range owners {
			want = append(want, r.members[m].ID)
		}
		if have := []string{got[0], got[1], got[2]}; !slices.Equal(have, want) {
			t.Errorf("%s: copies at %v, want %v", s.Labels(), have, want)
		}
	}
}
