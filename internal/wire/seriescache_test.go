package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

func (k *SeriesCache) v1(id tenant.ID, msg []byte) (*Batch, error) { return k.DecodeV1(id, msg, nil) }
func (k *SeriesCache) v2(id tenant.ID, msg []byte) (*Batch, error) { return k.DecodeV2(id, msg, nil) }

// untell makes k forget what metadata there was.
func (k *SeriesCache) untell() {
	for i := range k.table.Load().slots {
		k.table.Load().slots[i].told.Store(0)
	}
}

// TestKnown decodes odd requests again and again with one memory, and finds in each what the oracle finds.
func TestKnown(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	k := NewSeriesCache(1 << 16)
	hits := 0
	for range 4000 {
		msg, decode, oracle := oddV1(r), k.v1, oracleV1
		if r.IntN(2) == 0 {
			msg, decode, oracle = oddV2(r), k.v2, oracleV2
		}
		want, _ := oracle(msg)
		for range 2 {
			k.untell()
			b, err := decode(testTenant, msg)
			if err != nil {
				t.Fatal(err)
			}
			want.check(t, b)
			for i := range b.Series {
				if s := &b.Series[i]; s.from != nil {
					hits++
				}
			}
			b.Release()
		}
	}
	if hits == 0 {
		t.Error("nothing was known")
	}
}

// TestKnownTenants: the same bytes are another series for another tenant.
func TestKnownTenants(t *testing.T) {
	k := NewSeriesCache(1 << 10)
	msg := typicalV1(3)
	for range 2 {
		for _, id := range []tenant.ID{"a", "b"} {
			got, err := k.DecodeV1(id, msg, nil)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := DecodeV1(id, msg)
			for i := range want.Series {
				if got.Series[i].Key != want.Series[i].Key || got.Series[i].Hash != want.Series[i].Hash {
					t.Fatalf("tenant %s: series %d has another's identity", id, i)
				}
			}
		}
	}
}

// TestKnownBoundaries: bytes that were labels once are not taken for labels where more labels follow, and a value that
// looks like a sample is not one.
func TestKnownBoundaries(t *testing.T) {
	k := NewSeriesCache(1 << 10)
	sample := []byte{0x12, 16, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0x80, 0x90, 0x91, 0xc2, 0xd9, 0x31}
	label := func(name, value string) []byte {
		l := append([]byte{0x0a, byte(len(name))}, name...)
		l = append(append(l, 0x12, byte(len(value))), value...)
		return append([]byte{0x0a, byte(len(l))}, l...)
	}
	request := func(parts ...[]byte) []byte {
		ts := bytes.Join(parts, nil)
		if len(ts) > 127 {
			t.Fatal("too long")
		}
		return append([]byte{0x0a, byte(len(ts))}, ts...)
	}
	up, job := label("__name__", "up"), label("job", "x")
	f := func(msg []byte) {
		t.Helper()
		want, wantErr := DecodeV1(testTenant, msg)
		for range 3 {
			got, err := k.DecodeV1(testTenant, msg, nil)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%v, want %v", err, wantErr)
			}
			if err != nil {
				continue
			}
			sameBatch(t, got, want)
		}
	}
	f(request(up, sample))
	f(request(up, job, sample))
	f(request(up, sample, job))
	f(request(up, sample, job, sample))
	f(request(sample, up))
	f(request(up, label("zz", string(sample))))
	f(request(up, label("zz", string(sample)), sample))
	f(request(up, sample, sample))
	f(request(job, sample))
	f(request(up, label("job", ""), sample))
	f(request(label("z", "é"), up, sample))
	f(request(label("z", "é"), sample, up))
	f(request(sample))
	f(append(request(up, sample), 0x0a))
}

// TestKnownForgets: the memory stays within its bound, and forgetting harms nothing.
func TestKnownForgets(t *testing.T) {
	const most = 4096
	k := NewSeriesCache(most)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for n := range 40 {
				msg := typicalFrom(g*1000+n*100, 500)
				b, _ := DecodeV1(testTenant, msg)
				got, err := k.DecodeV1(testTenant, msg, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range b.Series {
					if got.Series[i].Key != b.Series[i].Key || !bytes.Equal(got.Series[i].Labels(), b.Series[i].Labels()) {
						t.Errorf("series %d became %q", i, got.Series[i].Labels())
						return
					}
				}
				got.Release()
			}
		})
	}
	wg.Wait()
	if slots := int(k.Memory() / 64); slots > most/3*4 || k.Len() == 0 {
		t.Errorf("%d slots of %d are in use, for at most %d series", k.Len(), slots, most)
	}
}

// TestKnownHint: what is noted on a series is there the next time, by the same bytes only.
func TestKnownHint(t *testing.T) {
	k := NewSeriesCache(1 << 10)
	f := func(msg []byte, decode func(tenant.ID, []byte) (*Batch, error), want uint64) {
		t.Helper()
		b, err := decode(testTenant, msg)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		hint := b.Series[0].Hint
		if got := hint.Load(); got != want {
			t.Errorf("noted %d, want %d", got, want)
		}
		hint.Store(want + 1)
	}
	for i := range uint64(3) {
		f(typicalV1(1), k.v1, i)
		f(typicalV2(1), k.v2, i)
	}
}

// TestKnownMetadata: a series that is known brings its metadata once a minute, and when it is another.
func TestKnownMetadata(t *testing.T) {
	k := NewSeriesCache(1 << 10)
	f := func(help string, unit string, want int) {
		t.Helper()
		symbols := writev2.NewSymbolTable()
		ts := writev2.TimeSeries{
			LabelsRefs: symbols.SymbolizeLabels(typicalLabels(1), nil),
			Samples:    []writev2.Sample{{Value: 1, Timestamp: 1790000000000}},
			Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: symbols.Symbolize(help),
				UnitRef: symbols.Symbolize(unit)},
		}
		req := writev2.Request{Symbols: symbols.Symbols(), Timeseries: []writev2.TimeSeries{ts}}
		msg, err := req.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		b, err := k.DecodeV2(testTenant, msg, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		if len(b.Metadata) != want || want > 0 && (b.Metadata[0].Help != help || b.Metadata[0].Unit != unit) {
			t.Errorf("%q %q: %+v, want %d", help, unit, b.Metadata, want)
		}
	}
	f("Requests.", "", 1) // not known
	f("Requests.", "", 1)
	f("Requests.", "", 0)
	f("Requests, all.", "", 1)
	f("Requests, all.", "requests", 1)
	f("requests", "Requests, all.", 1)
	f("requests", "Requests, all.", 0)
	k.start = k.start.Add(-cacheTick)
	f("requests", "Requests, all.", 1)
	f("requests", "Requests, all.", 0)
}

func BenchmarkKnownV1(b *testing.B) {
	k := NewSeriesCache(1 << 20)
	benchDecode(b, typicalV1(benchSeries), k.v1)
}

func BenchmarkKnownV2(b *testing.B) {
	k := NewSeriesCache(1 << 20)
	benchDecode(b, typicalV2(benchSeries), k.v2)
}

// BenchmarkKnownMany has more series than the caches of a CPU have budget for.
func BenchmarkKnownMany(b *testing.B) {
	k := NewSeriesCache(1 << 20)
	var msgs [][]byte
	for n := range 50 {
		msgs = append(msgs, typicalFrom(n*benchSeries, benchSeries))
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		batch, err := k.DecodeV1(testTenant, msgs[n%len(msgs)], nil)
		if err != nil {
			b.Fatal(err)
		}
		batch.Release()
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
}

func FuzzKnown(f *testing.F) {
	f.Add(typicalV1(2), false)
	f.Add(typicalV2(2), true)
	f.Add(shuffled(typicalV1(2)), false)
	f.Fuzz(func(t *testing.T, msg []byte, v2 bool) {
		k := NewSeriesCache(1 << 10)
		plain, known := DecodeV1, k.v1
		if v2 {
			plain, known = DecodeV2, k.v2
		}
		want, wantErr := plain(testTenant, msg)
		for range 2 {
			k.untell()
			got, err := known(testTenant, msg)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("%v, want %v", err, wantErr)
			}
			if err == nil {
				sameBatch(t, got, want)
				got.Release()
			}
		}
	})
}
