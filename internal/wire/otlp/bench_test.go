package otlp

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// gauges has n data points of 10 attributes, 10 metrics, one resource: as a collector sends what it scraped.
func gauges(n int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	ms := resourceOf(md, service)
	for i := range 10 {
		points := named(ms, fmt.Sprint("container.memory.", i), "By").SetEmptyGauge().DataPoints()
		for j := range n / 10 {
			p := points.AppendEmpty()
			p.SetTimestamp(stamp(time.Duration(j) * time.Millisecond))
			p.SetDoubleValue(float64(j))
			for k := range 10 {
				p.Attributes().PutStr(fmt.Sprintf("k8s.attribute.%d", k), fmt.Sprintf("value-%d-%d", k, j%(k+100)))
			}
		}
	}
	return md
}

func classic(n int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	points := histogramOf(resourceOf(md, service), "latency", n)
	for i := range n {
		points.At(i).ExplicitBounds().FromRaw([]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
		points.At(i).BucketCounts().FromRaw([]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	}
	return md
}

func BenchmarkTranslate(b *testing.B) {
	exp := pmetric.NewMetrics()
	exponentialOf(resourceOf(exp, service), "e", make([]int32, 1000)...)
	for _, c := range []struct {
		name string
		form Form
		md   pmetric.Metrics
	}{{"gauge/proto", Protobuf, gauges(2000)}, {"gauge/json", JSON, gauges(2000)}, {"classic10/proto", Protobuf, classic(500)}, {"exponential/proto", Protobuf, exp}} {
		msg := encode(c.form, c.md)
		points := float64(c.md.DataPointCount())
		tr, err := New(DefaultOptions())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Size(c.form, msg); err != nil {
					b.Fatal(err)
				}
				md, err := Decode(c.form, msg)
				if err != nil {
					b.Fatal(err)
				}
				got, err := tr.Translate(context.Background(), "acme", md, 256<<20)
				if err != nil {
					b.Fatal(err)
				}
				got.Batch.Release()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/points, "ns/point")
		})
		b.Run(c.name+"/size", func(b *testing.B) {
			for b.Loop() {
				if _, err := Size(c.form, msg); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/points, "ns/point")
		})
		b.Run(c.name+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(c.form, msg); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/points, "ns/point")
		})
	}
}
