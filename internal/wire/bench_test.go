package wire

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

const benchSeries = 2000

func benchDecode(b *testing.B, msg []byte, decode func(tenant.ID, []byte) (*Batch, error)) {
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		batch, err := decode(testTenant, msg)
		if err != nil || len(batch.Series) != benchSeries {
			b.Fatal(len(batch.Series), err)
		}
		batch.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
}

func BenchmarkDecodeV1(b *testing.B) { benchDecode(b, typicalV1(benchSeries), DecodeV1) }
func BenchmarkDecodeV2(b *testing.B) { benchDecode(b, typicalV2(benchSeries), DecodeV2) }

// BenchmarkDecodeV1Unsorted is the general path.
func BenchmarkDecodeV1Unsorted(b *testing.B) {
	benchDecode(b, shuffled(typicalV1(benchSeries)), DecodeV1)
}

func BenchmarkAppendShard(b *testing.B) {
	batch, err := DecodeV1(testTenant, typicalV1(benchSeries))
	if err != nil {
		b.Fatal(err)
	}
	s := All(batch)
	var frame []byte
	b.ReportAllocs()
	for b.Loop() {
		frame = AppendShard(frame[:0], s)
	}
	b.SetBytes(int64(len(frame)))
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
}

func BenchmarkDecodeShard(b *testing.B) {
	batch, err := DecodeV1(testTenant, typicalV1(benchSeries))
	if err != nil {
		b.Fatal(err)
	}
	frame := AppendShard(nil, All(batch))
	benchDecode(b, frame, func(_ tenant.ID, frame []byte) (*Batch, error) { return DecodeShard(frame) })
}

func BenchmarkIdentify(b *testing.B) {
	full := AppendLabels(AppendTenant(nil, testTenant), typicalLabels(7))
	b.SetBytes(int64(len(full)))
	for b.Loop() {
		Identify(full)
	}
}

// BenchmarkLibraryV1 and V2 are what Prometheus's types cost up to labels, to compare with.
func BenchmarkLibraryV1(b *testing.B) {
	msg := typicalV1(benchSeries)
	builder := labels.NewScratchBuilder(0)
	b.ReportAllocs()
	for b.Loop() {
		var req prompb.WriteRequest
		if err := req.Unmarshal(msg); err != nil {
			b.Fatal(err)
		}
		for i := range req.Timeseries {
			req.Timeseries[i].ToLabels(&builder, nil)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
}

func BenchmarkLibraryV2(b *testing.B) {
	msg := typicalV2(benchSeries)
	builder := labels.NewScratchBuilder(0)
	b.ReportAllocs()
	for b.Loop() {
		var req writev2.Request
		if err := req.Unmarshal(msg); err != nil {
			b.Fatal(err)
		}
		for i := range req.Timeseries {
			if _, err := req.Timeseries[i].ToLabels(&builder, req.Symbols); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
}
