package wire

import (
	"slices"
	"testing"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// requests is n requests of benchSeries series each.
func requests(n int) []*Batch {
	var out []*Batch
	for i := range n {
		batch := NewBatch(testTenant)
		for j := range benchSeries {
			batch.Add(typicalLabels(i*benchSeries + j)).Samples = []Sample{{T: 1_700_000_000_000, V: float64(j)}}
		}
		out = append(out, batch)
	}
	return out
}

// BenchmarkEncoder writes 100k series whose labels have travelled, in their order and in another one at each turn.
func BenchmarkEncoder(b *testing.B) {
	batches := requests(50)
	run := func(b *testing.B, shards []Shard) {
		e := NewStreamEncoder()
		var frame []byte
		encode := func(s Shard) { frame, _ = e.Add(e.Begin(frame[:0], testTenant), s) }
		for _, s := range shards {
			encode(s)
		}
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			encode(shards[i%len(shards)])
			i++
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
		b.ReportMetric(float64(len(frame))/benchSeries, "bytes/series")
	}
	var shards, shuffled []Shard
	for _, batch := range batches {
		s := All(batch)
		shards = append(shards, s)
		for turn := range 3 {
			other := Shard{Batch: batch, Series: slices.Clone(s.Series)}
			for at := range other.Series { // a stride that changes with the turn
				other.Series[at] = int32(at * [3]int{7, 11, 13}[turn] % benchSeries)
			}
			shuffled = append(shuffled, other)
		}
	}
	b.Run("known", func(b *testing.B) { run(b, shards) })
	b.Run("another order", func(b *testing.B) { run(b, shuffled) })
	b.Run("new", func(b *testing.B) {
		var frame []byte
		b.ReportAllocs()
		for b.Loop() {
			e := NewStreamEncoder()
			frame, _ = e.Add(e.Begin(frame[:0], testTenant), shards[0])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
	})
}

// BenchmarkDecoder reads what BenchmarkEncoder writes.
func BenchmarkDecoder(b *testing.B) {
	batches := requests(50)
	e := NewStreamEncoder()
	names := NewSharedSeries(0)
	d := NewStreamDecoder(names)
	var frames, known [][]byte
	for _, batch := range batches {
		frame, _ := e.Add(e.Begin(nil, testTenant), All(batch))
		frames = append(frames, frame)
		got, err := d.Decode(frame)
		if err != nil {
			b.Fatal(err)
		}
		got.Release()
	}
	for _, batch := range batches {
		frame, _ := e.Add(e.Begin(nil, testTenant), All(batch))
		known = append(known, frame)
	}
	b.Run("known", func(b *testing.B) {
		i := 0
		benchDecode(b, known[0], func(tenant.ID, []byte) (*Batch, error) {
			i++
			return d.Decode(known[i%len(known)])
		})
	})
	b.Run("new", func(b *testing.B) {
		benchDecode(b, frames[0], func(tenant.ID, []byte) (*Batch, error) {
			fresh := NewStreamDecoder(NewSharedSeries(0))
			return fresh.Decode(frames[0])
		})
	})
	b.Run("new here, known to the process", func(b *testing.B) {
		benchDecode(b, frames[0], func(tenant.ID, []byte) (*Batch, error) {
			fresh := NewStreamDecoder(names)
			defer fresh.Close()
			return fresh.Decode(frames[0])
		})
	})
}
