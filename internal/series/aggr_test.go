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

func TestAggregates(t *testing.T) {
	aggr := downsampled(floats(300, 10, 600, 5), floats(300, 100, 600, 20), floats(300, 1, 600, 2), floats(300, 50, 600, 6), counterChunk(t, 10, 7, 300, 57, 600, 60, 600, 3))
	raw := sourcetest.Encode(floats(700, 4, 800, 6), 0)[0]
	f := func(fn string, want ...float64) {
		t.Helper()
		e := series.Entry{Series: series.Series{Labels: labels.FromStrings("a", "b"), Chunks: []series.Chunk{aggr, raw}}, Pick: series.PickFor(fn), MinTime: 0, MaxTime: 1000}
		got := render(drain(t, e.Iterator(nil)))
		if want := render(floats(want...)); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", fn, got, want)
		}
	}
	f("", 300, 10, 600, 4, 700, 4, 800, 6)
	f("avg_over_time", 300, 10, 600, 4, 700, 4, 800, 6)
	f("count_over_time", 300, 10, 600, 5, 700, 4, 800, 6)
	f("sum_over_time", 300, 100, 600, 20, 700, 4, 800, 6)
	f("min_over_time", 300, 1, 600, 2, 700, 4, 800, 6)
	f("max", 300, 50, 600, 6, 700, 4, 800, 6)
	// 7 .. 57 .. 60, where 3 was the last raw value: to 4 it grew by 1, to 6 by 2.
	f("rate", 10, 7, 300, 57, 600, 60, 700, 61, 800, 63)
}

// TestCounter: totals go on over chunks and across resets between them, and copies change nothing.
func TestCounter(t *testing.T) {
	chunk := func(pairs ...float64) series.Chunk {
		return series.Chunk{MinTime: int64(pairs[0]), MaxTime: int64(pairs[len(pairs)-2]), Aggr: &series.AggrChunks{series.Counter: {Encoding: chunkenc.EncXOR, Data: counterChunk(t, pairs...)}}}
	}
	f := func(want []float64, chunks ...series.Chunk) {
		t.Helper()
		e := series.Entry{Series: series.Series{Chunks: chunks}, Pick: series.PickCounter, MinTime: 0, MaxTime: 10_000}
		if got, want := render(drain(t, e.Iterator(nil))), render(floats(want...)); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	first, after := chunk(10, 5, 300, 20, 600, 50, 600, 8), chunk(610, 9, 900, 15, 900, 15) // a reset within the first
	f([]float64{10, 5, 300, 20, 600, 50, 610, 51, 900, 57}, first, after)
	f([]float64{10, 5, 300, 20, 600, 50, 610, 53, 900, 58}, first, chunk(610, 3, 900, 8, 900, 8)) // a reset between them
	f([]float64{10, 5, 300, 20, 600, 50, 610, 51, 900, 57}, first, first, after, after)
	f([]float64{10, 5, 300, 20, 600, 50, 610, 51, 900, 57}, first, chunk(20, 6, 300, 20, 300, 20), after)
	// A copy that begins later has a base of its own.
	f([]float64{10, 5, 300, 20, 600, 50, 900, 57}, first, chunk(350, 3, 600, 8, 900, 15, 900, 15))
}

// TestAveragesAmongOthers: downsampled chunks that overlap raw ones, as where a receiver still has what a compactor has
// downsampled.
func TestAveragesAmongOthers(t *testing.T) {
	raw := sourcetest.Encode(floats(100, 1, 350, 2), 0)[0]
	one := downsampled(floats(300, 2, 600, 2, 900, 2), floats(300, 20, 600, 22, 900, 24), nil, nil, nil)
	two := downsampled(floats(310, 1, 610, 1, 910, 1), floats(310, 5, 610, 6, 910, 7), nil, nil, nil)
	e := series.Entry{Series: series.Series{Chunks: []series.Chunk{raw, one, two}}, MaxTime: 1000}
	want := render(floats(100, 1, 300, 10, 310, 5, 350, 2, 600, 11, 610, 6, 900, 12, 910, 7))
	if got := render(drain(t, e.Iterator(nil))); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
