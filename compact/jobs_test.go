package compact

import (
	"maps"
	"slices"
	"testing"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
)

// replicas are the blocks of a tenant of a ring with replication factor 3, n ranges of two hours. Some lack samples
// that the others have.
func replicas(tenant string, n int) (all []made) {
	for i := range n {
		for r, replica := range []string{"r1", "r2", "r3"} {
			gap := int64(0)
			if i%3 == 1 && r == i%2 {
				gap = hour
			}
			all = append(all, made{tenant, replica, oldest + int64(i)*2*hour, 2 * hour, gap})
		}
	}
	return all
}

// long are blocks of eight hours of a tenant, which become a block of two days and its downsampled one.
func long(tenant string, n int) (all []made) {
	for i := range n {
		all = append(all, made{tenant, "r1", oldest + int64(i)*8*hour, 8 * hour, 0})
	}
	return all
}

func putAll(t testing.TB, blocks []made) *objstore.InMemBucket {
	t.Helper()
	bkt := objstore.NewInMemBucket()
	for _, m := range blocks {
		m.put(t, bkt)
	}
	return bkt
}

// TestCompacts: three replicas of two tenants become one stream each of larger blocks, which has every sample once.
func TestCompacts(t *testing.T) {
	blocks := slices.Concat(replicas("a", 6), long("bb", 8), replicas("", 2))
	bkt := putAll(t, blocks)
	want := wanted(blocks)
	c := newCompactor(t, bkt, testOptions(t, "one"))
	once(t, c)
	got, twice := samplesOf(t, bkt)
	sameSamples(t, got, want)
	if twice != 0 {
		t.Errorf("%d samples are there twice", twice)
	}
	v := viewOf(t, bkt)
	counts := map[int64]int{}
	for _, m := range visible(v) {
		counts[m.Thanos.Downsample.Resolution]++
		if m.Thanos.Source != block.SourceCompactor || m.Thanos.Labels["receive_replica"] != "" {
			t.Logf("block %s of %s: %v", m.ULID, m.Thanos.Source, m.Thanos.Labels)
		}
	}
	t.Log("visible blocks by resolution:", counts, "of", len(v.Metas), "marked", len(v.Deletions))
	if want := map[int64]int{0: 3 + 3 + 2, 300_000: 1}; !maps.Equal(counts, want) {
		t.Errorf("visible blocks by resolution: %v, want %v", counts, want)
	}
	if s := c.Status(); len(s.Failed) > 0 || len(s.Running) > 0 || s.Rests != "" {
		t.Errorf("%+v", s)
	}
}
