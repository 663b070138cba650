package series_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// TestStopFlag: every iterator ends with its context, and says so also when it had nothing left to read.
func TestStopFlag(t *testing.T) {
	var samples []sourcetest.Sample
	for i := range 1000 {
		samples = append(samples, sourcetest.Sample{T: int64(i) * 60_000, V: float64(i)})
	}
	raw := sourcetest.Encode(samples, 0)
	windows := sourcetest.Downsample(samples, series.FiveMinutes, 300)
	for name, r := range map[string]series.Reading{
		"plain": {}, "count": {Pick: series.PickCount}, "counter": {Pick: series.PickCounter}, "marked": {Lookback: 300_000},
	} {
		for _, chunks := range [][]series.Chunk{raw, windows} {
			for _, read := range []int{0, 100, 1 << 30} {
				ctx, cancel := context.WithCancel(t.Context())
				r.MaxTime, r.Resolution, r.Stop = 1e12, series.FiveMinutes, series.NewStopFlag(ctx)
				it := r.Iterator(chunks, nil)
				for range read {
					if it.Next() == chunkenc.ValNone {
						break
					}
				}
				if it.Err() != nil {
					t.Fatal(name, it.Err())
				}
				cancel()
				deadline := time.Now().Add(10 * time.Second)
				for it.Err() == nil && time.Now().Before(deadline) {
					time.Sleep(time.Millisecond) // the context tells of its end by itself
				}
				if !errors.Is(it.Err(), context.Canceled) {
					t.Errorf("%s: %v after the end of its context", name, it.Err())
				}
				for n := 0; it.Next() != chunkenc.ValNone; n++ {
					if n > 2 { // a marker, and the sample after it
						t.Fatalf("%s: it goes on after the end of its context", name)
					}
				}
				if err := r.Stop.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
