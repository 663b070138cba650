package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// ends are the two ends of a stream.
type ends struct {
	t testing.TB
	e *StreamEncoder
	d *StreamDecoder
}

func newPair(t testing.TB, names *SharedSeries) *ends {
	p := &ends{t: t, e: NewStreamEncoder(), d: NewStreamDecoder(names)}
	t.Cleanup(p.d.Close)
	return p
}

// frame writes one shard.
func (p *ends) frame(s Shard) []byte {
	p.t.Helper()
	frame, ok := p.e.Add(p.e.Begin(nil, s.Batch.Tenant), s)
	if !ok {
		p.t.Fatal("the first shard of a frame was refused")
	}
	return frame
}

// pass writes one shard and reads it again.
func (p *ends) pass(s Shard) *Batch {
	p.t.Helper()
	return p.read(p.frame(s), s)
}

// read reads a frame, which must be of these shards.
func (p *ends) read(frame []byte, shards ...Shard) *Batch {
	p.t.Helper()
	given := bytes.Clone(frame)
	got, err := p.d.Decode(given)
	if err != nil {
		p.t.Fatal(err)
	}
	clear(given)
	want := &Batch{Tenant: shards[0].Batch.Tenant}
	for _, s := range shards {
		for _, i := range s.Series {
			want.Series = append(want.Series, s.Batch.Series[i])
		}
		for _, i := range s.Metadata {
			want.Metadata = append(want.Metadata, s.Batch.Metadata[i])
		}
	}
	sameBatch(p.t, got, want)
	return got
}

// few is a shard of one sample each of the numbered series.
func few(id tenant.ID, series ...int) Shard {
	b := NewBatch(id)
	for _, i := range series {
		b.Add(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i))).Samples = []Sample{{T: 1000, V: float64(i)}}
	}
	return All(b)
}

// TestNumberedGolden holds the vectors of docs/format/write-frame.md.
func TestNumberedGolden(t *testing.T) {
	p := newPair(t, NewSharedSeries(0))
	page, err := os.ReadFile("../../docs/format/write-frame.md")
	if err != nil {
		t.Fatal(err)
	}
	f := func(s Shard, want string) {
		t.Helper()
		frame := p.frame(s)
		got := hex.EncodeToString(frame)
		if got != strings.ReplaceAll(want, " ", "") {
			t.Errorf("frame %s, want %s", got, want)
		}
		if !strings.Contains(string(page), got) {
			t.Errorf("write-frame.md does not hold %s", got)
		}
		p.read(frame, s).Release()
	}
	labelsOf := func(i int) string { return hex.EncodeToString([]byte(fmt.Sprintf("__name__\xffm\xffi\xff%d\xff", i))) }
	f(few("a", 0, 1),
		"02 0161 02 04 0f "+labelsOf(0)+" d00f 0000000000000000 04 0f "+labelsOf(1)+" 00 000000000000f03f 00")
	f(few("a", 0, 1), "02 0161 02 00 d00f 0000000000000000 00 00 000000000000f03f 00")
	f(few("a", 1), "02 0161 01 20 d00f 000000000000f03f 00")
	f(few("b", 1), "02 0162 01 44 0f "+labelsOf(1)+" d00f 000000000000f03f 00")
}

// TestNumberedRoundTrip: everything that a shard can say, new and known, and several tenants in one stream.
func TestNumberedRoundTrip(t *testing.T) {
	p := newPair(t, NewSharedSeries(0))
	for range 3 {
		p.pass(All(goldenBatch())).Release()
		other := goldenBatch()
		other.Tenant = "other"
		p.pass(few("other", 1, 2, 1)).Release()
		p.pass(Shard{Batch: goldenBatch(), Series: []int32{2, 0}}).Release()
		p.pass(Shard{Batch: goldenBatch(), Metadata: []int32{0}}).Release()
	}
	empty := NewBatch("a")
	empty.Add(labels.FromStrings("a", "b"))
	p.pass(All(empty)).Release()
}

// TestNumberedParts: shards that share no series go into one frame.
func TestNumberedParts(t *testing.T) {
	p := newPair(t, NewSharedSeries(0))
	p.pass(few("a", 1, 2, 3)).Release()
	first, second, again := All(goldenBatch()), few(testTenant, 4, 5), few(testTenant, 6, 4)
	frame := p.e.Begin(nil, testTenant)
	for _, s := range []Shard{first, second} {
		var ok bool
		if frame, ok = p.e.Add(frame, s); !ok {
			t.Fatal("a shard of other series was refused")
		}
	}
	for _, s := range []Shard{again, second, first} {
		if same, ok := p.e.Add(frame, s); ok || len(same) != len(frame) {
			t.Fatal("a series may be twice in a frame")
		}
	}
	p.read(frame, first, second).Release()
	p.pass(again).Release()

	p.e.numbers.maxNumbers = 0 // nothing new gets a number
	plain := few(testTenant, 7, 8)
	frame, _ = p.e.Add(p.e.Begin(nil, testTenant), plain)
	frame, ok := p.e.Add(frame, few(testTenant, 4))
	if !ok {
		t.Fatal("a shard of other series was refused")
	}
	if _, ok = p.e.Add(frame, few(testTenant, 8)); ok {
		t.Fatal("a series without a number may be twice in a frame")
	}
	p.read(frame, plain, few(testTenant, 4)).Release()
}

// TestNumberedChurn: random frames of several tenants whose series come and go, in changing order, through small
// tables.
func TestNumberedChurn(t *testing.T) {
	names := NewSharedSeries(0)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := newPair(t, names)
		p.e.numbers.maxNumbers, p.e.numbers.maxBytes = 1+r.IntN(400), 1000+r.IntN(10_000)
		p.d.maxNumbers, p.d.maxBytes = p.e.numbers.maxNumbers, p.e.numbers.maxBytes
		first := 0
		var kept []*Batch // decoded batches stay good whatever becomes of the numbers
		var want []string
		for range 200 {
			s := randomShard(r, first)
			b := p.pass(s)
			if r.IntN(20) == 0 {
				kept, want = append(kept, b), append(want, fmt.Sprint(b.Series))
			} else {
				b.Release()
			}
			if r.IntN(4) == 0 {
				first += r.IntN(30)
			}
			if r.IntN(5) == 0 {
				p.e.Age()
			}
			if len(p.d.table) != len(p.e.numbers.entries) || p.d.held != p.e.numbers.bytes || p.d.held > p.d.maxBytes {
				t.Fatalf("%d numbers of %d bytes here, %d of %d there", len(p.e.numbers.entries), p.e.numbers.bytes, len(p.d.table),
					p.d.held)
			}
		}
		for i, b := range kept {
			if got := fmt.Sprint(b.Series); got != want[i] {
				t.Fatalf("a batch became %s, was %s", got, want[i])
			}
		}
		p.e.numbers.check(t)
		p.d.Close()
	}
	if n := names.Len(); n != 0 {
		t.Fatalf("%d names are left when all streams are over", n)
	}
}

// randomShard has series of the window that begins at first.
func randomShard(r *rand.Rand, first int) Shard {
	b := NewBatch(tenant.ID([]string{"a", "b", "team-c"}[r.IntN(3)]))
	b.Metadata = []Metadata{{Family: "m", Help: fmt.Sprint(first)}}
	at, step := r.IntN(100), 1+2*r.IntN(3)
	for range r.IntN(60) {
		s := b.Add(labels.FromStrings("__name__", "m", "i", fmt.Sprint(first+at%100), "pad", strings.Repeat("x", at%50)))
		for range 1 + r.IntN(5)/4 {
			s.Samples = append(s.Samples, Sample{T: r.Int64N(1e12), V: r.Float64(), ST: int64(r.IntN(3) / 2)})
		}
		at += step
	}
	return All(b)
}

// check fails when the table contradicts itself.
func (t *numbers) check(tb testing.TB) {
	tb.Helper()
	bytes, indexed := 0, 0
	for n := range t.entries {
		bytes += int(t.sizes[n])
		if got, ok := t.find(t.entries[n].key, ^uint32(0)); !ok || got != uint32(n) {
			tb.Fatalf("number %d is found as %d, %v", n, got, ok)
		}
	}
	for _, n := range t.index {
		if n != 0 {
			indexed++
		}
	}
	if bytes != t.bytes || indexed != len(t.entries) || indexed > len(t.index)*3/4 {
		tb.Fatalf("%d bytes, counted %d; %d numbers, %d in an index of %d", bytes, t.bytes, len(t.entries), indexed,
			len(t.index))
	}
}

// TestNumbersAreBounded: however many series come and go, there are about as many numbers as series that are written.
func TestNumbersAreBounded(t *testing.T) {
	names := NewSharedSeries(0)
	p := newPair(t, names)
	const active = 200
	for round := range 500 {
		series := make([]int, active)
		for i := range series {
			series[i] = i + round*active/10 // a tenth of them is new
		}
		p.pass(few("a", series...)).Release()
		p.e.Age()
	}
	if n := len(p.e.numbers.entries); n > 2*active {
		t.Errorf("%d numbers for %d series", n, active)
	}
	if n := names.Len(); n != len(p.d.table) || n > 2*active {
		t.Errorf("%d names for %d series", n, active)
	}
	p.e.numbers.check(t)

	// Nothing is idle: the bound holds, and what is over it travels with its labels.
	p = newPair(t, names)
	p.e.numbers.maxNumbers, p.d.maxNumbers = 100, 100
	for range 3 {
		all := make([]int, 300)
		for i := range all {
			all[i] = i
		}
		p.pass(few("a", all...)).Release()
	}
	if len(p.d.table) != 100 {
		t.Errorf("%d numbers", len(p.d.table))
	}

	p = newPair(t, names)
	long := NewBatch("a")
	long.Add(labels.FromStrings("a", strings.Repeat("x", maxNumberLabel))).Samples = []Sample{{}}
	p.pass(All(long)).Release()
	if len(p.d.table) != 0 {
		t.Error("labels that long got a number")
	}
}

// TestCollidingKeys: 64 bits that two series have in common, of their keys or their placement hash, mix up neither
// side.
// The receiver's is not even mixed up by whole keys that are equal.
func TestCollidingKeys(t *testing.T) {
	p := newPair(t, NewSharedSeries(0))
	b := few("a", 1, 2, 3, 4).Batch
	for i := range b.Series {
		b.Series[i].Hash, b.Series[i].Key.Lo = 7, 7 // 64 of the 128 bits
	}
	for range 2 {
		got, err := p.d.Decode(p.frame(All(b)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Series {
			if !bytes.Equal(got.Series[i].Labels(), b.Series[i].Labels()) ||
				got.Series[i].Samples[0].V != b.Series[i].Samples[0].V {
				t.Errorf("series %d became %q", i, got.Series[i].Labels())
			}
		}
	}
	if len(p.d.table) != 4 {
		t.Errorf("%d numbers", len(p.d.table))
	}
	p.e.numbers.check(t)

	names := NewSharedSeries(0)
	one := names.hold("a", []byte("a\xffx\xffy\xff"))
	names.byKey[Key{}], one.key = one, Key{}
	key, _ := Identify([]byte("a\xffx\xffz\xff"))
	names.byKey[key] = one // as if the two had one key
	two := names.hold("a", []byte("a\xffx\xffz\xff"))
	if two == one || string(two.canonical()) != "x\xffz\xff" {
		t.Errorf("a name is %q", two.canonical())
	}
	names.release(two)
	if names.byKey[key] != one {
		t.Error("the other name is gone")
	}
}

// TestNamesAreShared: streams that name the same series share its labels and its hint, also when one of them ends.
func TestNamesAreShared(t *testing.T) {
	names := NewSharedSeries(0)
	p, q := newPair(t, names), newPair(t, names)
	a, b := p.pass(few("a", 1)), q.pass(few("a", 0, 1))
	if a.Series[0].Hint == nil || a.Series[0].Hint != b.Series[1].Hint ||
		&a.Series[0].Labels()[0] != &b.Series[1].Labels()[0] {
		t.Error("two streams have a series of their own each")
	}
	a.Series[0].Hint.Store(42)
	p.d.Close()
	p.d.Close()
	if names.Len() != 2 {
		t.Errorf("%d names", names.Len())
	}
	if c := q.pass(few("a", 1)); c.Series[0].Hint.Load() != 42 {
		t.Error("the hint is lost")
	}
	q.d.Close()
	if names.Len() != 0 {
		t.Errorf("%d names", names.Len())
	}
	if _, err := q.d.Decode(q.frame(few("a", 1))); err == nil {
		t.Error("a closed decoder decodes")
	}
	if string(a.Series[0].Labels()) != string(b.Series[1].Labels()) { // still good
		t.Error("labels changed")
	}
}

// TestKeptLabels: labels that the store keeps are the same to everybody, and the name keeps none.
func TestKeptLabels(t *testing.T) {
	names := NewSharedSeries(0)
	p, q := newPair(t, names), newPair(t, names)
	before := p.pass(few("a", 1, 2))
	was := string(before.Series[0].Labels())
	for i := range before.Series {
		s := &before.Series[i]
		if !s.KeepsLabels() {
			t.Fatal("a new name keeps no labels")
		}
		ls := LabelsOf(&labels.ScratchBuilder{}, s.Labels())
		s.KeptBy(ls)
		s.KeptBy(labels.EmptyLabels()) // too late
		if s.KeepsLabels() {
			t.Error("a name keeps labels that the store has")
		}
	}
	if got := before.Series[0].Labels(); string(got) != was || before.Series[0].LabelsSize() != len(got) {
		t.Errorf("labels %q, were %q", got, was)
	}
	p.pass(few("a", 1, 2)).Release()
	if again := q.pass(few("a", 2, 1)); again.Series[0].KeepsLabels() || again.Series[1].Hint != before.Series[0].Hint {
		t.Error("another stream does not find the name")
	}
	if names.Len() != 2 {
		t.Errorf("%d names", names.Len())
	}
	other := few("a", 1).Batch.Series[0]
	if other.KeepsLabels() {
		t.Error("a series without a name keeps labels")
	}
	other.KeptBy(labels.EmptyLabels())
}

// TestNumberedRefusals: a frame that can be read but not accepted is refused alone; the stream goes on.
func TestNumberedRefusals(t *testing.T) {
	p := newPair(t, NewSharedSeries(0))
	refused := func(frame []byte) {
		t.Helper()
		if b, err := p.d.Decode(frame); errs.KindOf(err) != errs.Invalid || p.d.Broken() != nil {
			t.Fatalf("%v, %v, broken: %v", b, err, p.d.Broken())
		}
	}
	p.pass(few("a", 1)).Release()

	bad := few("a", 2, 3)
	bad.Batch.Series[0].labels = []byte("b\xffb\xffa\xffb\xff") // not sorted
	bad.Batch.Series[0].size = len(bad.Batch.Series[0].labels)
	refused(p.frame(bad))
	p.pass(few("a", 1, 3)).Release() // 3 was in the refused frame
	refused(p.frame(Shard{Batch: bad.Batch, Series: []int32{0}}))
	for range 4 { // the number of the bad labels goes to another series
		p.e.Age()
		p.pass(few("a", 1, 3)).Release()
	}
	p.pass(few("a", 4)).Release()
	if len(p.d.table) != 3 {
		t.Errorf("%d numbers", len(p.d.table))
	}

	odd := few("..", 5)
	refused(p.frame(odd))
	refused(p.frame(odd))

	other := p.frame(few("a", 1))
	other[2] = 'z' // the tenant
	refused(other)
	p.pass(few("a", 1)).Release()

	p.e.numbers.maxNumbers = 0
	bad.Batch.Series[0].Key = Key{}
	refused(p.frame(bad)) // without a number
}

// TestNumberedDamage: a frame that cannot be read ends the stream.
func TestNumberedDamage(t *testing.T) {
	names := NewSharedSeries(0)
	setup := few("a", 1, 2)
	broken := func(what string, frame []byte, kind errs.Kind) {
		t.Helper()
		p := newPair(t, names)
		p.pass(setup).Release()
		good := p.frame(setup)
		if _, err := p.d.Decode(frame); errs.KindOf(err) != kind || p.d.Broken() == nil {
			t.Fatalf("%s: %v, broken: %v", what, err, p.d.Broken())
		}
		if _, err := p.d.Decode(good); errs.KindOf(err) != kind {
			t.Fatalf("%s: the next frame: %v", what, err)
		}
		p.d.Close()
	}
	whole := newPair(t, names)
	whole.pass(setup).Release()
	batch := goldenBatch()
	batch.Tenant = "a"
	frame := whole.frame(All(batch))
	head := len(whole.e.Begin(nil, "a"))
	for n := range frame {
		if n < head {
			broken(fmt.Sprintf("%d of %d bytes", n, len(frame)), frame[:n],
				map[bool]errs.Kind{true: errs.Unsupported, false: errs.Invalid}[n == 0])
		} else if n > head {
			broken(fmt.Sprintf("%d of %d bytes", n, len(frame)), frame[:n], errs.Invalid)
		}
	}
	sample := func(head uint64, labels string) []byte {
		b := binary.AppendUvarint([]byte("\x02\x01a\x01"), head)
		if head&calledAs != calledNumber {
			b = appendText(b, labels)
		}
		return append(b, make([]byte, 10)...)
	}
	broken("version 1", AppendShard(nil, setup), errs.Unsupported)
	broken("one byte more", append(whole.frame(setup), 1), errs.Invalid)
	broken("a number that was not given", sample(zigzagEncode(2)<<headBits, ""), errs.Invalid)
	broken("a number below 0", sample(zigzagEncode(-1)<<headBits, ""), errs.Invalid)
	broken("a huge number", sample(zigzagEncode(1<<58)<<headBits, ""), errs.Invalid)
	broken("a number given out of turn", sample(zigzagEncode(3)<<headBits|calledNew, "a\xffb\xff"), errs.Invalid)
	broken("labels too long for a number",
		sample(zigzagEncode(2)<<headBits|calledNew, strings.Repeat("x", maxNumberLabel+1)), errs.Invalid)
	broken("a number with labels that have none", sample(1<<headBits|calledLabels, "a\xffb\xff"), errs.Invalid)
	broken("another name", sample(3<<2, "a\xffb\xff"), errs.Invalid)
	broken("another shape", sample(3, ""), errs.Invalid)
	if names.Len() != 2 { // those of whole
		t.Errorf("%d names are left", names.Len())
	}

	for _, limit := range []func(d *StreamDecoder){func(d *StreamDecoder) { d.maxNumbers = 3 },
		func(d *StreamDecoder) { d.maxBytes = 50 }} {
		p := newPair(t, names)
		limit(p.d)
		if _, err := p.d.Decode(p.frame(few("a", 1, 2, 3, 4))); errs.KindOf(err) != errs.Exhausted || p.d.Broken() == nil {
			t.Errorf("over the limit: %v", err)
		}
		if len(p.d.table) > 3 {
			t.Errorf("%d numbers", len(p.d.table))
		}
	}
}

// FuzzNumbered decodes frames that nobody sane sends, on a stream with some history. Whatever it accepts passes through
// another stream as the same.
func FuzzNumbered(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 5))
	seed := newPair(f, NewSharedSeries(0))
	seed.pass(few("a", 1, 2, 3)).Release()
	f.Add(seed.frame(few("a", 1, 2, 3)))
	f.Add(seed.frame(few("a", 3, 4)))
	f.Add(seed.frame(All(goldenBatch())))
	f.Add(seed.frame(All(goldenBatch())))
	for range 30 {
		if b, err := DecodeV2(testTenant, oddV2(r)); err == nil {
			f.Add(seed.frame(All(b)))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		names := NewSharedSeries(0)
		p, q := newPair(t, names), newPair(t, names)
		setup := few("a", 1, 2, 3)
		p.pass(setup).Release()
		b, err := p.d.Decode(frame)
		if err == nil {
			for i := range b.Series {
				full := append(AppendTenant(nil, b.Tenant), b.Series[i].Labels()...)
				if key, hash := Identify(full); key != b.Series[i].Key || hash != b.Series[i].Hash ||
					!isCanonical(b.Series[i].Labels()) {
					t.Fatalf("series %d is %q", i, full)
				}
			}
			for range 2 {
				q.pass(All(b)).Release()
			}
			b.Release()
		}
		if len(p.d.table) > 3+len(frame) || p.d.held > 100+len(frame) {
			t.Fatalf("a frame of %d bytes made %d numbers", len(frame), len(p.d.table))
		}
		if p.d.Broken() == nil { // what p's encoder means by its numbers may not hold any more; there is no panic
			_, _ = p.d.Decode(p.frame(setup))
		}
		p.d.Close()
		q.d.Close()
		if names.Len() != 0 {
			t.Fatal("names are left")
		}
	})
}
