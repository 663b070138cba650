package distributor

import (
	"context"
	"testing"

	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// nowhere stores nothing, at once.
type nowhere struct{}

func (nowhere) Write(context.Context, wire.Shard) ([]wire.Failure, error) { return nil, nil }

// BenchmarkPush is the cost of placing and replicating 2,000 series of one sample, without any member's work.
func BenchmarkPush(b *testing.B) {
	const series = 2000
	members := []ring.TokenMember{}
	for i, id := range []string{"a", "b", "c"} {
		m := ring.TokenMember{Member: ring.Member{ID: id, Zone: id}}
		for t := range 128 {
			m.Tokens = append(m.Tokens, uint32((t*3+i)*11_184_810))
		}
		members = append(members, m)
	}
	f := func(name string, p ring.Placement, w Writer) {
		b.Run(name, func(b *testing.B) {
			c := newCluster(b, newFakeRing(1, "unused"), DefaultOptions())
			defer c.close()
			c.Distributor.ring.placement = func() ring.Placement { return p }
			c.Distributor.dial = func(ring.Member) (Writer, error) { return w, nil }
			request := batch(series)
			b.ReportAllocs()
			for b.Loop() {
				if r, err := c.Push(context.Background(), request); err != nil || r.Samples != series {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/sample")
		})
	}
	f("rf=1/local", &ring.Single{}, Local{nowhere{}})
	f("rf=1/members=3", ring.NewTokens(members, 1), nowhere{})
	f("rf=3/members=3", ring.NewTokens(members, 3), nowhere{})
}
