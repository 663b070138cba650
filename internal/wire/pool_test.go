package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestPoolKeepsBatchesApart decodes from many goroutines, holds batches for a while and looks whether they still say
// what they said.
func TestPoolKeepsBatchesApart(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 7))
			type held struct {
				b    *Batch
				want *outcome
			}
			var hold []held
			for range 300 {
				msg, decode, oracle := oddV1(r), DecodeV1, oracleV1
				if r.IntN(2) == 0 {
					msg, decode, oracle = oddV2(r), DecodeV2, oracleV2
				}
				want, _ := oracle(msg)
				b, err := decode(testTenant, msg)
				if err != nil {
					t.Error(err)
					return
				}
				b.Retain()
				b.Release()
				clear(msg)
				if hold = append(hold, held{b, want}); len(hold) == 5 {
					i := r.IntN(5)
					hold[i].want.check(t, hold[i].b)
					hold[i].b.Release()
					hold = append(hold[:i], hold[i+1:]...)
				}
			}
		})
	}
	wg.Wait()
}

// TestDecodeAllocates nothing for float series once the pools are warm, by either protocol and either path.
func TestDecodeAllocates(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
	f := func(name string, most float64, run func()) {
		t.Helper()
		for range 3 {
			run()
		}
		if n := testing.AllocsPerRun(20, run); n > most+poolNoise {
			t.Errorf("%s: %v allocations, want at most %v", name, n, most)
		}
	}
	decoding := func(msg []byte, decode func(tenant.ID, []byte) (*Batch, error)) func() {
		return func() {
			b, err := decode(testTenant, msg)
			if err != nil || len(b.Series) != 500 || len(b.Rejected) > 0 {
				t.Fatal(len(b.Series), err)
			}
			b.Release()
		}
	}
	v1, v2 := typicalV1(500), typicalV2(500)
	f("1.0", 0, decoding(v1, DecodeV1))
	f("1.0, unsorted", 0, decoding(shuffled(v1), DecodeV1))
	f("2.0", 40, decoding(v2, DecodeV2)) // one for each of the 40 metric families

	b, _ := DecodeV1(testTenant, v1)
	frame := AppendShard(nil, All(b))
	shard := All(b)
	f("append", 0, func() { frame = AppendShard(frame[:0], shard) })
	f("frame", 1, decoding(frame, func(_ tenant.ID, msg []byte) (*Batch, error) { return DecodeShard(msg) })) // the tenant

	body := bytes.NewReader(nil)
	compressed := snappyBody(v1)
	f("body", 0, func() {
		buf := GetBuffer()
		body.Reset(compressed)
		if _, err := buf.ReadSnappy(body, 1<<30, 1<<30); err != nil {
			t.Fatal(err)
		}
		PutBuffer(buf)
	})
}

// TestPoolLetsGo: what one huge request needed is not kept by the small ones after it.
func TestPoolLetsGo(t *testing.T) {
	f := func(used, capacity, want int) {
		t.Helper()
		if got := cap(reuse(make([]byte, used, capacity))); got != want {
			t.Errorf("%d of %d bytes used: %d kept, want %d", used, capacity, got, want)
		}
	}
	f(0, smallArena, smallArena)
	f(100, 8*smallArena, 0)
	f(2*smallArena, 8*smallArena, 8*smallArena)
}

// TestHistogramsAreNotPooled: a head keeps the histogram that it was given.
func TestHistogramsAreNotPooled(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	msg := func() []byte {
		var req prompb.WriteRequest
		for i := range 20 {
			req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
				Labels:     prompb.FromLabels(labels.FromStrings("__name__", "h", "i", fmt.Sprint(i)), nil),
				Histograms: oddHistograms(r),
			})
		}
		msg, _ := req.Marshal()
		return msg
	}
	type kept struct {
		h    Histogram
		want string
	}
	var all []kept
	for range 50 {
		b, err := DecodeV1(testTenant, msg())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range b.Series {
			for _, h := range s.Histograms {
				all = append(all, kept{h, fmt.Sprint(h.H, h.FH)})
			}
		}
		b.Release()
	}
	if len(all) == 0 {
		t.Fatal("no histograms")
	}
	for _, k := range all {
		if got := fmt.Sprint(k.h.H, k.h.FH); got != k.want {
			t.Fatalf("a histogram changed from %s to %s", k.want, got)
		}
	}
}

func TestReleasePanics(t *testing.T) {
	b := NewBatch(testTenant)
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("the second Release of one reference goes unnoticed")
		}
	}()
	b.Release()
}
