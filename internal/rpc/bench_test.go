package rpc

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// typical labels of a series: twelve of them.
func typical(i int) labels.Labels {
	return labels.FromStrings("__name__", "http_request_duration_seconds_bucket", "cluster", "eu-1", "code", "200",
		"container", "api", "handler", "/api/v1/query", "instance", fmt.Sprintf("10.0.%03d.%03d:9090", i/250, i%250), "job",
		"kubernetes-pods", "le", "0.25", "method", "GET", "namespace", "prod", "pod", fmt.Sprintf("api-7d9c5b6f-%05d", i),
		"zone", "a")
}

// BenchmarkWrite sends shards of 2,000 series over loopback; ns per series is time divided by 2,000.
func BenchmarkWrite(b *testing.B) {
	addr := serve(b, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	c := dial(b, addr, ClientOptions{})
	const n = 2000
	batch := wire.NewBatch("team-a")
	for i := range n {
		s := batch.Add(typical(i))
		s.Samples = append(s.Samples, wire.Sample{T: 1_700_000_000_000, V: float64(i)})
	}
	shard := wire.All(batch)
	b.SetBytes(int64(len(wire.AppendShard(nil, shard))))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(context.Background(), shard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/series")
}

type fixed struct {
	series.Source
	list []series.Series
}

func (f fixed) Info(context.Context) (series.Info, error) { return series.Info{MaxTime: 1}, nil }

func (f fixed) Select(context.Context, *series.Request) series.Set { return series.List(f.list) }

// BenchmarkSeries streams 2,000 series of four chunks over loopback.
func BenchmarkSeries(b *testing.B) {
	const n = 2000
	data := make([]byte, 200)
	var size int64
	var list []series.Series
	for i := range n {
		s := series.Series{Labels: typical(i)}
		for j := range int64(4) {
			s.Chunks = append(s.Chunks, series.Chunk{MinTime: 1_700_000_000_000 + j, MaxTime: 1_700_000_000_000 + j,
				Raw: series.Encoded{Encoding: chunkenc.EncXOR, Data: data}})
		}
		size += int64(len(appendSeries(nil, s)))
		list = append(list, s)
	}
	addr := serve(b, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": fixed{list: list}}})
	})
	c := dial(b, addr, ClientOptions{Role: "receive"})
	r := &series.Request{Tenant: "a", Matchers: all()}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		set := c.Select(context.Background(), r)
		got := 0
		for set.Next() {
			got++
		}
		if set.Err() != nil || got != n {
			b.Fatal(got, set.Err())
		}
		_ = set.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/series")
}

func BenchmarkDecodeFrame(b *testing.B) {
	var ba batch
	data := make([]byte, 200)
	for i := range 256 {
		s := series.Series{Labels: typical(i)}
		for range 4 {
			s.Chunks = append(s.Chunks,
				series.Chunk{MinTime: 1, MaxTime: 2, Raw: series.Encoded{Encoding: chunkenc.EncXOR, Data: data}})
		}
		if err := ba.add(s); err != nil {
			b.Fatal(err)
		}
	}
	raw := frameBytes(ba.take(true))
	var d seriesDecoder
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.frame(raw); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/series")
}
