package xor

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

type point struct {
	t int64
	v float64
}

// points are samples of one of several kinds.
func points(rnd *rand.Rand, n int) (out []point) {
	t, v := rnd.Int64N(1<<41)-1<<40, 0.0
	kind := rnd.IntN(5)
	for range n {
		switch rnd.IntN(12) {
		case 0:
			t += 1 + rnd.Int64N(1<<rnd.IntN(40))
		case 1, 2:
			t += 15_000 + rnd.Int64N(20) - 10
		default:
			t += 15_000
		}
		switch kind {
		case 0:
			v += float64(rnd.IntN(50))
		case 1:
			v = rnd.NormFloat64()
		case 2:
			v = math.Float64frombits(rnd.Uint64())
		case 3:
			v = float64(rnd.IntN(2))
		}
		if kind == 4 && rnd.IntN(4) == 0 {
			v = []float64{math.Inf(1), math.Float64frombits(value.StaleNaN), 0, math.MaxFloat64, 5e-324}[rnd.IntN(5)]
		}
		out = append(out, point{t, v})
	}
	return out
}

func encoded(t testing.TB, in []point) []byte {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range in {
		app.Append(0, p.t, p.v)
	}
	return c.Bytes()
}

// appended replaces s by the samples of a chunk.
func appended(s *Samples, data []byte) error {
	s.Reset()
	return s.Append(data)
}

// TestXOR: chunks have the bytes that the library writes, and are read as the library reads them.
func TestXOR(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var w Writer
	var got Samples
	for round := range 5000 {
		in := points(rnd, rnd.IntN(200))
		want := encoded(t, in)
		w.Reset()
		for _, p := range in {
			w.Append(p.t, p.v)
		}
		if !bytes.Equal(w.Bytes(), want) {
			t.Fatalf("round %d: other bytes", round)
		}
		if err := appended(&got, want); err != nil || len(got.T) != len(in) {
			t.Fatalf("round %d: %d samples, want %d: %v", round, len(got.T), len(in), err)
		}
		for i, p := range in {
			if got.T[i] != p.t || math.Float64bits(got.V[i]) != math.Float64bits(p.v) {
				t.Fatalf("round %d: sample %d is %d %v, want %v", round, i, got.T[i], got.V[i], p)
			}
		}
	}
}

// FuzzRead: of any bytes the samples are read that the library reads, and what is damaged for one is damaged for the
// other. Only a difference without a length, which no writer writes, is taken by the library.
func FuzzRead(f *testing.F) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := range 20 {
		f.Add(encoded(f, points(rnd, n*7)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Samples
		err := appended(&s, b)
		if len(b) < headerSize {
			return
		}
		c, _ := chunkenc.FromData(chunkenc.EncXOR, b)
		it := c.Iterator(nil)
		for i := range s.T {
			if it.Next() == chunkenc.ValNone {
				t.Fatal("more samples than the library reads:", it.Err())
			}
			if at, v := it.At(); at != s.T[i] || math.Float64bits(v) != math.Float64bits(s.V[i]) {
				t.Fatalf("%d %x, the library reads %d %x", s.T[i], s.V[i], at, v)
			}
		}
		if err == nil && (it.Next() != chunkenc.ValNone || it.Err() != nil) {
			t.Fatal("fewer samples than the library reads:", it.Err())
		}
	})
}

func BenchmarkRead(b *testing.B) {
	rnd := rand.New(rand.NewPCG(5, 6))
	in := make([]point, 0, 120)
	v := 0.0
	for i := range 120 {
		v += float64(rnd.IntN(100)) / 8
		in = append(in, point{int64(i)*15_000 + rnd.Int64N(3), v})
	}
	data := encoded(b, in)
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		var s Samples
		for b.Loop() {
			if err := appended(&s, data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		c, _ := chunkenc.FromData(chunkenc.EncXOR, data)
		var it chunkenc.Iterator
		for b.Loop() {
			it = c.Iterator(it)
			for it.Next() != chunkenc.ValNone {
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	rnd := rand.New(rand.NewPCG(7, 8))
	in := make([]point, 0, 120)
	for i := range 120 {
		in = append(in, point{int64(i) * 300_000, float64(rnd.IntN(100_000)) / 8})
	}
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		var w Writer
		for b.Loop() {
			w.Reset()
			for _, p := range in {
				w.Append(p.t, p.v)
			}
			_ = w.Bytes()
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c := chunkenc.NewXORChunk()
			app, _ := c.Appender()
			for _, p := range in {
				app.Append(0, p.t, p.v)
			}
		}
	})
}
