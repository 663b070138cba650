package frontend

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// randomEntry is an entry of up to 20 series, with gaps and histograms.
func randomEntry(rnd *rand.Rand) *entry {
	step := 1 + rnd.Int64N(60_000)
	steps := 1 + rnd.IntN(200)
	e := &entry{asked: rnd.Int64(), matrix: matrix{piece: piece{from: rnd.Int64N(1e12)}, step: step}}
	e.to = e.from + int64(steps-1)*step
	e.series = make([]column, 0, 20)
	for i := range rnd.IntN(20) {
		c := column{metric: fmt.Sprintf(`{"i":"%03d"}`, i), values: []float64{}, hists: [][]byte{}}
		v := rnd.Float64() * 1000
		for n := range steps {
			switch k := rnd.IntN(40); {
			case k == 0:
				v = math.NaN()
			case k < 3:
				c.histAt, c.hists = append(c.histAt, int32(n)), append(c.hists, fmt.Appendf(nil, `{"sum":"%d"}`, n))
				continue
			case k < 6:
				continue
			case k < 20:
				v = float64(rnd.IntN(1e6))
			}
			c.at, c.values = append(c.at, int32(n)), append(c.values, v)
		}
		e.series = append(e.series, c)
	}
	if rnd.IntN(3) == 0 {
		e.infos = []string{"metric might not be a counter", ""}
	}
	return e
}

// same compares entries; NaN is equal to NaN.
func same(a, b *entry) bool { return fmt.Sprintf("%+v", *a) == fmt.Sprintf("%+v", *b) }

func TestEntry(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		e := randomEntry(rnd)
		got, err := decode(e.encode())
		if err != nil {
			t.Fatal(err)
		}
		if !same(got, e) {
			t.Fatalf("%+v became %+v", e, got)
		}
	}
}

// FuzzEntry: no bytes break the decoder, and what it takes can be written and read again.
func FuzzEntry(f *testing.F) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		raw, _ := decompressor.DecodeAll(randomEntry(rnd).encode(), nil)
		f.Add(raw)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := decode(compressor.EncodeAll(raw, nil))
		if err != nil {
			return
		}
		again, err := decode(e.encode())
		if err != nil || !same(again, e) {
			t.Errorf("%+v became %+v, %v", e, again, err)
		}
		for _, c := range e.series {
			for _, at := range append(append([]int32{}, c.at...), c.histAt...) {
				if at < 0 || int(at) >= e.piece.steps(e.step) {
					t.Errorf("step %d of %d", at, e.piece.steps(e.step))
				}
			}
		}
	})
}

// TestEntryCutShort: an entry that lacks its end is refused.
func TestEntryCutShort(t *testing.T) {
	raw, _ := decompressor.DecodeAll(randomEntry(rand.New(rand.NewPCG(9, 10))).encode(), nil)
	for n := range raw {
		if e, err := decode(compressor.EncodeAll(raw[:n], nil)); err == nil {
			t.Fatalf("%d of %d bytes: %+v", n, len(raw), e)
		}
	}
}

// day is the answer of a day of a dashboard: 1440 steps of some series.
func day(n int) *entry {
	rnd := rand.New(rand.NewPCG(11, 12))
	e := &entry{matrix: matrix{piece: piece{0, 1439 * 60_000}, step: 60_000}}
	for i := range n {
		c := column{metric: fmt.Sprintf(`{"namespace":"n%d","pod":"pod-%d"}`, i%50, i)}
		for k := range 1440 {
			c.at, c.values = append(c.at, int32(k)), append(c.values, math.Round(rnd.Float64()*1e4)/100)
		}
		e.series = append(e.series, c)
	}
	return e
}

func BenchmarkEntryEncode(b *testing.B) {
	e := day(1000)
	b.ReportAllocs()
	for b.Loop() {
		b.ReportMetric(float64(len(e.encode()))/(1000*1440), "B/sample")
	}
}

func BenchmarkEntryDecode(b *testing.B) {
	data := day(1000).encode()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMemory(t *testing.T) {
	now := time.Unix(0, 0)
	m := NewMemory(3*(itemBytes+11), 0, time.Hour)
	m.maxItem = 1 << 20
	m.now = func() time.Time { return now }
	get := func(want ...string) {
		t.Helper()
		var got []string
		for _, k := range []string{"a", "b", "c", "d"} {
			if m.lru.Contains(k) {
				got = append(got, k)
			}
		}
		if !reflect.DeepEqual(got, want) || m.Bytes() != int64(len(want)*(itemBytes+11)) {
			t.Errorf("%q with %d bytes, want %q", got, m.Bytes(), want)
		}
	}
	ten := make([]byte, 10)
	m.Put("a", ten)
	m.Put("b", ten)
	m.Put("c", ten)
	get("a", "b", "c")
	m.Get("a")
	m.Put("d", ten)
	get("a", "c", "d")
	m.Put("c", ten)
	get("a", "c", "d")
	m.Put("c", make([]byte, 5000))
	get("a", "d")
	now = now.Add(2 * time.Hour)
	if m.Get("a") != nil {
		t.Error("a value that is too old")
	}
	get("d")
	m = NewMemory(1<<20, 2, 0)
	for _, k := range []string{"a", "b", "c"} {
		m.Put(k, ten)
	}
	get("b", "c")
}
