package plan

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
)

// crowd is a bucket of n blocks of 2 hours, of 50 tenants with 3 replicas each. Labels are shared, as in a view.
// done says that all that could be compacted was: blocks have 14 days, which overlap nothing, and 5m and 1h are
// there, too.
func crowd(n int, done bool) Bucket {
	var b Bucket
	b.View.Metas = map[ulid.ULID]*block.Meta{}
	sets := map[string]map[string]string{}
	for i := range n {
		tenant, replica := i%50, i/50%3
		maxt, length, resolution := int64(i/150+1)*2*hour, 2*hour, Raw
		labels := map[string]string{"tenant_id": fmt.Sprint("tenant-", tenant), "receive_replica": fmt.Sprint("r", replica)}
		m := &block.Meta{BlockMeta: tsdb.BlockMeta{Version: 1}}
		if done {
			length = 336 * hour
			maxt = int64(i/150+1) * length
			resolution = resolutions[i/50%3]
			delete(labels, "receive_replica")
		}
		key := fmt.Sprint(labels)
		if sets[key] == nil {
			sets[key] = labels
		}
		m.MinTime, m.MaxTime = maxt-length, maxt
		_ = m.ULID.SetTime(uint64(maxt))
		binary.BigEndian.PutUint32(m.ULID[6:], uint32(i))
		m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
		if done {
			m.Compaction.Level, m.Compaction.Sources = 5, nil
			for s := range 504 {
				id := ulid.ULID{1: byte(tenant)}
				binary.BigEndian.PutUint32(id[6:], uint32(i/150*504+s))
				m.Compaction.Sources = append(m.Compaction.Sources, id)
			}
		}
		m.Thanos.Labels, m.Thanos.Downsample.Resolution = sets[key], resolution
		m.Thanos.Files = []block.File{{RelPath: "chunks/000001", SizeBytes: 1000}, {RelPath: block.IndexName, SizeBytes: 100}}
		b.View.Metas[m.ULID] = m
	}
	b.Metas = b.View.Select()
	return b
}

func BenchmarkMake(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
		done bool
	}{{"backlog", 100_000, false}, {"idle", 10_000, true}} {
		b.Run(c.name, func(b *testing.B) {
			bucket, s := crowd(c.n, c.done), testSettings()
			s.Retention.Default = Keep{15 * 24 * time.Hour, 30 * 24 * time.Hour, 90 * 24 * time.Hour}
			now := time.UnixMilli(int64(c.n/150+1) * 2 * hour)
			b.ReportAllocs()
			var p Plan
			for b.Loop() {
				p = Make(bucket, s, now)
			}
			b.ReportMetric(float64(len(p.Jobs)), "jobs")
		})
	}
}

func BenchmarkSimulate(b *testing.B) {
	bucket, s := crowd(100_000, false), testSettings()
	now := time.UnixMilli(int64(100_000/150+1) * 2 * hour)
	p := Make(bucket, s, now)
	b.ReportAllocs()
	for b.Loop() {
		Simulate(bucket, s, now, p)
	}
}

func BenchmarkExpired(b *testing.B) {
	bucket, s := crowd(100_000, false), testSettings()
	s.Retention.Default = Keep{15 * 24 * time.Hour, 30 * 24 * time.Hour, 90 * 24 * time.Hour}
	now := time.UnixMilli(int64(100_000/150+1) * 2 * hour)
	b.ReportAllocs()
	for b.Loop() {
		Expired(bucket, s, now)
	}
}
