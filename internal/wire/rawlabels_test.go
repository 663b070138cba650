package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// mistake makes k take every series of msg for the one after it in the message, as if their spellings had one hash128.
// It is what a collision would be, which nobody can make.
func (k *SeriesCache) mistake(msg []byte, v2 bool) {
	decode := k.DecodeV1
	if v2 {
		decode = k.DecodeV2
	}
	b, err := decode(testTenant, msg, nil) // learns all that can be learned
	if err != nil {
		return
	}
	defer b.Release()
	var ids []Key
	for _, n := range b.ahead {
		ids = append(ids, n.id)
	}
	var learned []cacheSlot
	for i := range k.table.Load().slots {
		if s := &k.table.Load().slots[i]; s.used.Load() != 0 {
			learned = append(learned, cacheSlot{key: s.key, hash: s.hash, size: s.size, name: s.name})
		}
	}
	look := k.lookup(testTenant)
	k.table.Store(&cacheTable{make([]cacheSlot, len(k.table.Load().slots))})
	k.used = 0
	for i, id := range ids {
		if len(learned) > 0 {
			as := &learned[(i+1)%len(learned)]
			look.put(id, &Series{Key: as.key, Hash: as.hash, size: int(as.size)}, int(as.name)+i%5)
		}
	}
}

// consume does all that is done with batches, and fails when a frame harms what comes after it.
func consume(t testing.TB, b *Batch) {
	t.Helper()
	p := newPair(t, NewSharedSeries(0))
	for i := range b.Series {
		s := &b.Series[i]
		if labels := s.Labels(); len(labels) > 0 && !isCanonical(labels) {
			t.Fatalf("series %d has labels %q", i, labels)
		}
		_ = s.Text()
	}
	s := All(b)
	if got, err := DecodeShard(AppendShard(nil, s)); err == nil {
		got.Release()
	} else if errs.KindOf(err) != errs.Invalid {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := p.d.Decode(p.frame(s)); err == nil {
			got.Release()
		} else if errs.KindOf(err) != errs.Invalid || p.d.Broken() != nil {
			t.Fatalf("%v, stream: %v", err, p.d.Broken())
		}
		p.pass(few("another", 1, 2)).Release()
	}
	r := Rewrite(b)
	r.change(0)
	for i := range b.Series {
		r.Keep(i)
	}
	own, _ := r.Done()
	own.Release()
}

// TestMistakenSeries: bytes that are taken for labels which they are not cost their request, and nothing else.
func TestMistakenSeries(t *testing.T) {
	unreadable := requestV1(collidingSeries('b', 'b'), collidingSeries(0xc4, 0), collidingSeries('c', 'a'))
	k := NewSeriesCache(1 << 10)
	k.mistake(unreadable, false)
	b, err := k.DecodeV1(testTenant, unreadable, nil)
	if err != nil || len(b.Series) == 0 {
		t.Fatal(b, err)
	}
	none := 0
	for i := range b.Series {
		if len(b.Series[i].Labels()) == 0 {
			none++
		}
	}
	if none != 1 {
		t.Errorf("%d series without labels, want the one that cannot be read", none)
	}
	consume(t, b)

	symbols := []string{"", "__name__", "up", "a", "\xff\xff", "b", "x"}
	req := writev2.Request{Symbols: symbols}
	for _, refs := range [][]uint32{{1, 2}, {1, 2, 3, 4}, {1, 2, 3, 6}, {3, 6, 5, 6}, {1, 2, 1, 2}, {1, 2, 5, 6}} {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
			LabelsRefs: refs, Samples: []writev2.Sample{{Timestamp: 1790000000000}},
			Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: uint32(len(req.Timeseries) % 7)},
		})
	}
	msg, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	k.mistake(msg, true)
	if b, err = k.DecodeV2(testTenant, msg, nil); err != nil || len(b.Series) == 0 {
		t.Fatal(b, err)
	}
	consume(t, b)
}

// TestLongReferences: a reference of more than 32 bits means what its lower 32 bits mean, the first time and the
// second.
func TestLongReferences(t *testing.T) {
	request := func(help uint64, refs ...uint64) []byte {
		field := func(dst []byte, num int, content []byte) []byte {
			return append(binary.AppendUvarint(append(dst, byte(num<<3|typeBytes)), uint64(len(content))), content...)
		}
		var packed []byte
		for _, r := range refs {
			packed = binary.AppendUvarint(packed, r)
		}
		series := field(field(nil, 1, packed), 2,
			binary.AppendUvarint(append(append([]byte{1<<3 | typeFixed64}, make([]byte, 8)...), 2<<3), 1790000000000))
		series = field(series, 5, binary.AppendUvarint([]byte{1 << 3, 1, 3 << 3}, help))
		var msg []byte
		for _, s := range []string{"", "__name__", "up", "Help.", "Other help."} {
			msg = field(msg, 4, []byte(s))
		}
		return field(msg, 5, series)
	}
	k := NewSeriesCache(1 << 10)
	for i, msg := range [][]byte{request(3, 1, 2), request(4, 1, 2+1<<32), request(3, 1+1<<40, 2+1<<33)} {
		want, err := DecodeV2(testTenant, msg)
		if err != nil || len(want.Series) != 1 {
			t.Fatal(i, want, err)
		}
		k.untell()
		got, err := k.DecodeV2(testTenant, msg, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		sameBatch(t, got, want)
	}
}

// FuzzMistakenSeries is TestMistakenSeries for any message.
func FuzzMistakenSeries(f *testing.F) {
	f.Add(requestV1(collidingSeries('b', 'b'), collidingSeries(0xc4, 0)), false)
	f.Add(typicalV1(3), false)
	f.Add(typicalV2(3), true)
	f.Add(bytes.Replace(typicalV2(3), []byte("checkout"), []byte("check\xff\xfft"), 1), true)
	f.Fuzz(func(t *testing.T, msg []byte, v2 bool) {
		k := NewSeriesCache(1 << 8)
		k.mistake(msg, v2)
		decode := k.v1
		if v2 {
			decode = k.v2
		}
		plain, plainErr := DecodeV1(testTenant, msg)
		if v2 {
			plain, plainErr = DecodeV2(testTenant, msg)
		}
		b, err := decode(testTenant, msg)
		if (err == nil) != (plainErr == nil) {
			t.Fatalf("%v, and without a memory %v", err, plainErr)
		}
		if err == nil {
			consume(t, b)
			b.Release()
			plain.Release()
		}
	})
}

func TestKnownIsSeeded(t *testing.T) {
	msg := typicalV1(1)
	ids := map[string]bool{}
	for range 3 {
		b, err := NewSeriesCache(1<<8).DecodeV1(testTenant, msg, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids[fmt.Sprint(b.ahead[0].id)] = true
	}
	if len(ids) != 3 {
		t.Error("two memories know a series by the same number")
	}
}
