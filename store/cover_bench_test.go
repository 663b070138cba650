package store

import (
	"math"
	"slices"
	"testing"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// BenchmarkChoose is the planning of one select over 2,000 of 100,000 blocks: those of one of 50 tenants, two replicas.
// With a resolution allowed, a third of the blocks are downsampled.
func BenchmarkChoose(b *testing.B) {
	opts := DefaultOptions()
	opts.Dir = b.TempDir()
	g, err := New(discard, nil, inMemory(b), opts)
	if err != nil {
		b.Fatal(err)
	}
	metas := manyMetas(100_000)
	for _, m := range metas {
		m.Thanos.Downsample.Resolution = []int64{0, 300_000, 3_600_000}[m.MinTime/7_200_000%3]
	}
	g.view = block.View{Metas: metas}
	g.plan()
	defer g.Close()
	t := g.current.tenants[tenant.ID("t7")]
	for _, c := range []struct {
		name       string
		resolution int64
	}{{"raw", 0}, {"1h", 3_600_000}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			r := &series.Request{Tenant: "t7", MinTime: math.MinInt64, MaxTime: math.MaxInt64, MaxResolution: c.resolution}
			for b.Loop() {
				if got := t.choose(r, hearthView, pieces); len(got.needed) == 0 {
					b.Fatal("nothing is needed")
				}
			}
		})
	}
}

// BenchmarkCover is of 10,000 blocks of one stream.
func BenchmarkCover(b *testing.B) {
	var extents []extent
	for i := range int64(10_000) {
		extents = append(extents, extent{0, []int64{0, 300_000, 3_600_000}[i%3], i / 3 * 7_200_000, (i/3 + 1) * 7_200_000})
	}
	b.ReportAllocs()
	for b.Loop() {
		cover(slices.Clone(extents), 3_600_000, 3_600_000)
	}
}
