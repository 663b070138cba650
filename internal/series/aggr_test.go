package series_test

import (
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// downsampled is one chunk of windows ending at the times of count; the counter has its first and last raw values.
func downsampled(count, sum, low, high []sourcetest.Sample, counter []byte) series.Chunk {
	enc := func(s []sourcetest.Sample) series.Encoded {
		if s == nil {
			return series.Encoded{}
		}
		return sourcetest.Encode(s, 0)[0].Raw
	}
	return series.Chunk{
		MinTime: count[0].T, MaxTime: count[len(count)-1].T,
		Aggr: &series.AggrChunks{enc(count), enc(sum), enc(low), enc(high), {Encoding: chunkenc.EncXOR, Data: counter}},
	}
}

// counterChunk encodes pairs of time and value; the last time may occur twice.
func counterChunk(t *testing.T, pairs ...float64) []byte {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		app.Append(0, int64(pairs[i]), pairs[i+1])
	}
	return c.Bytes()
}

// Ends of windows of five minutes, and a time some seconds after such an end.
const (
	first, second, third, fourth = 299_999, 599_999, 899_999, 1_199_999
)

func TestAggregates(t *testing.T) {
	aggr := downsampled(floats(first, 10, second, 5), floats(first, 100, second, 20), floats(first, 1, second, 2),
		floats(first, 50, second, 6), counterChunk(t, 10, 7, first, 57, second, 60, second, 3))
	raw := sourcetest.Encode(floats(700_000, 4, 800_000, 6), 0)[0]
	f := func(pick series.Pick, want ...float64) {
		t.Helper()
		e := series.Entry{
			Series:  series.Series{Labels: labels.FromStrings("a", "b"), Chunks: []series.Chunk{aggr, raw}},
			Reading: &series.Reading{Pick: pick, MaxTime: 1e9, Resolution: series.FiveMinutes},
		}
		got := render(drain(t, e.Iterator(nil)))
		if want := render(floats(want...)); !slices.Equal(got, want) {
			t.Errorf("%d: got %q, want %q", pick, got, want)
		}
	}
	f(series.PickAvg, first, 10, second, 4, 700_000, 4, 800_000, 6)
	f(series.PickCount, first, 10, second, 5, 700_000, 1, 800_000, 1)
	f(series.PickSum, first, 100, second, 20, 700_000, 4, 800_000, 6)
	f(series.PickMin, first, 1, second, 2, 700_000, 4, 800_000, 6)
	f(series.PickMax, first, 50, second, 6, 700_000, 4, 800_000, 6)
	// 7 .. 57 .. 60, where 3 was the last raw value: to 4 it grew by 1, to 6 by 2.
	f(series.PickCounter, 10, 7, first, 57, second, 60, 700_000, 61, 800_000, 63)
}

// TestCounter: totals go on over chunks and across resets between them, and copies change nothing.
func TestCounter(t *testing.T) {
	chunk := func(pairs ...float64) series.Chunk {
		return series.Chunk{
			MinTime: int64(pairs[0]),
			MaxTime: int64(pairs[len(pairs)-2]),
			Aggr:    &series.AggrChunks{series.Counter: {Encoding: chunkenc.EncXOR, Data: counterChunk(t, pairs...)}},
		}
	}
	f := func(want []float64, chunks ...series.Chunk) {
		t.Helper()
		e := series.Entry{
			Series:  series.Series{Chunks: chunks},
			Reading: &series.Reading{Pick: series.PickCounter, MaxTime: 1e9},
		}
		if got, want := render(drain(t, e.Iterator(nil))), render(floats(want...)); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	const next = second + 10
	one, after := chunk(10, 5, first, 20, second, 50, second, 8), chunk(next, 9, third, 15, fourth, 17, fourth,
		17) // a reset within the first
	f([]float64{10, 5, first, 20, second, 50, next, 51, third, 57, fourth, 59}, one, after)
	f([]float64{10, 5, first, 20, second, 50, next, 53, third, 58, fourth, 59}, one,
		chunk(next, 3, third, 8, fourth, 9, fourth, 9)) // a reset between them
	f([]float64{10, 5, first, 20, second, 50, next, 51, third, 57, fourth, 59}, one, one, after, after)
	f([]float64{10, 5, first, 20, second, 50, next, 51, third, 57, fourth, 59}, one, chunk(20, 6, first, 20, first, 20),
		after)
	// A copy that begins later has a base of its own.
	f([]float64{10, 5, first, 20, second, 50, third, 57}, one, chunk(first+50, 3, second, 8, third, 15, third, 15))
}
