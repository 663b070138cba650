package series_test

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// TestAggregatesForm compares the bytes with Thanos's form as docs/format/bucket.md describes it.
func TestAggregatesForm(t *testing.T) {
	f := func(c series.AggrChunks, want []byte) {
		t.Helper()
		if got := series.AppendAggregates([]byte("before"), &c); !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%x, want %x", got, want)
		}
		got, err := series.DecodeAggregates(want, series.EveryAggregate)
		if err != nil || !reflect.DeepEqual(*got, c) {
			t.Errorf("%x: %v, %v, want %v", want, got, err, c)
		}
	}
	long := bytes.Repeat([]byte{7}, 300)
	f(series.AggrChunks{}, []byte{0, 0, 0, 0, 0})
	f(series.AggrChunks{ // floats: five XOR chunks
		series.Count:   {Encoding: chunkenc.EncXOR, Data: []byte{0, 1, 10}},
		series.Sum:     {Encoding: chunkenc.EncXOR, Data: []byte{0, 1, 20, 21}},
		series.Min:     {Encoding: chunkenc.EncXOR, Data: []byte{30}},
		series.Max:     {Encoding: chunkenc.EncXOR, Data: []byte{40}},
		series.Counter: {Encoding: chunkenc.EncXOR, Data: long},
	}, append([]byte{3, 1, 0, 1, 10, 4, 1, 0, 1, 20, 21, 1, 1, 30, 1, 1, 40, 0xac, 0x02, 1}, long...))
	f(series.AggrChunks{ // histograms: no minimum and no maximum
		series.Count:   {Encoding: chunkenc.EncXOR, Data: []byte{1}},
		series.Sum:     {Encoding: chunkenc.EncFloatHistogram, Data: []byte{2, 2}},
		series.Counter: {Encoding: chunkenc.EncFloatHistogram, Data: []byte{3}},
	}, []byte{1, 1, 1, 2, 3, 2, 2, 0, 0, 1, 3, 3})
}

func TestDecodeAggregates(t *testing.T) {
	whole := []byte{1, 1, 9, 0, 2, 1, 8, 8, 0, 0}
	only := [series.NumAggregates]bool{series.Min: true}
	got, err := series.DecodeAggregates(whole, only)
	if want := (series.AggrChunks{series.Min: {Encoding: chunkenc.EncXOR, Data: []byte{8, 8}}}); err != nil ||
		!reflect.DeepEqual(*got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for n := range whole {
		if got, err := series.DecodeAggregates(whole[:n], series.EveryAggregate); errs.KindOf(err) != errs.Invalid {
			t.Errorf("the first %d bytes: %v, %v", n, got, err)
		}
	}
	if _, err := series.DecodeAggregates([]byte{1, 99, 9, 0, 0, 0, 0}, only); errs.KindOf(err) != errs.Invalid {
		t.Errorf("an encoding that does not exist: %v", err)
	}
}

// TestAggregatesRoundTrip encodes chunks of random sizes.
func TestAggregatesRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	encodings := []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram}
	for range 1000 {
		var c series.AggrChunks
		for a := range c {
			if n := rnd.IntN(1 << rnd.IntN(12)); n > 0 {
				c[a] = series.Encoded{Encoding: encodings[rnd.IntN(len(encodings))], Data: make([]byte, n)}
				for i := range c[a].Data {
					c[a].Data[i] = byte(rnd.Uint32())
				}
			}
		}
		got, err := series.DecodeAggregates(series.AppendAggregates(nil, &c), series.EveryAggregate)
		if err != nil || !reflect.DeepEqual(*got, c) {
			t.Fatalf("%v became %v, %v", c, got, err)
		}
	}
}

func FuzzDecodeAggregates(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{3, 1, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := series.DecodeAggregates(b, series.EveryAggregate)
		if err != nil {
			return
		}
		again := series.AppendAggregates(nil, out)
		if len(again) > len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(again))
		}
		if got, err := series.DecodeAggregates(again, series.EveryAggregate); err != nil || !reflect.DeepEqual(got, out) {
			t.Fatalf("%v became %v, %v", out, got, err)
		}
	})
}
