package bucketindex

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// someIndex is an index of n blocks as receivers of 50 tenants and compactors make them.
func someIndex(r *rand.Rand, n int) Index {
	var ix Index
	id := func(at int64) (id ulid.ULID) {
		_ = id.SetTime(uint64(at))
		for i := 6; i < len(id); i++ {
			id[i] = byte(r.Uint32())
		}
		return id
	}
	const hour = int64(3_600_000)
	for i := range n {
		maxt := 1_700_000_000_000 + int64(i/150)*2*hour
		b := Block{
			BlockMeta: tsdb.BlockMeta{ULID: id(maxt + r.Int64N(60_000)), MinTime: maxt - 2*hour, MaxTime: maxt, Version: 1},
			Labels: map[string]string{"tenant_id": fmt.Sprintf("tenant-%d", i%50), "receive_replica": fmt.Sprintf("r%d", i/50%3),
				"region": "eu-west-1"},
			Source:        "receive",
			Files:         []File{{"chunks/000001", 1_000_000 + r.Int64N(1_000_000)}, {"index", 100_000 + r.Int64N(100_000)}},
			SeriesMaxSize: 100 + r.Int64N(100), ChunkMaxSize: 200 + r.Int64N(100), Uploaded: maxt + r.Int64N(hour),
		}
		b.Stats = tsdb.BlockStats{NumSamples: 100_000 + r.Uint64N(100_000), NumSeries: 200 + r.Uint64N(100),
			NumChunks: 400 + r.Uint64N(100)}
		b.Stats.NumFloatSamples = b.Stats.NumSamples
		b.Compaction = tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{b.ULID}}
		if i%10 == 9 {
			b.Source, b.Resolution = "compactor", 300_000
			b.Compaction.Level = 2
			for range 4 {
				b.Compaction.Sources = append(b.Compaction.Sources, id(maxt))
			}
		}
		if i%20 == 9 {
			b.Origin = &Origin{ID: b.ULID, Sources: []ulid.ULID{{1}, {2, 9}}, Replaces: []ulid.ULID{{2}}, Shard: 1, Of: 4,
				Empty: []int{0, 2}, Removed: []string{"receive_replica"}, Producers: []string{"r1", "r2"}}
			b.Compaction.Sources = []ulid.ULID{b.ULID}
		}
		ix.Blocks = append(ix.Blocks, b)
		if i%20 == 0 {
			ix.Marks = append(ix.Marks, Mark{ID: b.ULID, Kind: Deletion, At: maxt / 1000, Details: "source of compacted block",
				Own: i%40 == 0})
		}
		if i%100 == 0 {
			ix.Leftovers = append(ix.Leftovers, Leftover{id(maxt), maxt})
		}
	}
	ix.Sort()
	return ix
}

// keep adds a copy of b, which the next block is written over.
func (ix *Index) keep(b *Block) {
	kept := *b
	kept.Compaction.Sources = slices.Clone(b.Compaction.Sources)
	kept.Compaction.Hints = slices.Clone(b.Compaction.Hints)
	kept.Files = slices.Clone(b.Files)
	ix.Blocks = append(ix.Blocks, kept)
}

// decoded is the index that content has.
func decoded(content []byte) (ix Index, err error) {
	ix.Rest, err = Decode(content, ix.keep)
	return ix, err
}

// plain is ix as text. Nil and empty slices are equal.
func plain(ix Index) string {
	out := fmt.Sprintf("%+v", ix.Rest)
	for _, b := range ix.Blocks {
		if o := b.Origin; o != nil {
			out += fmt.Sprintf("%+v", *o)
		}
		b.Origin = nil
		out += fmt.Sprintf("%+v", b)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	f := func(name string, ix Index) {
		t.Helper()
		content, err := Encode(ix)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := Encode(ix)
		if err != nil || !bytes.Equal(content, again) {
			t.Errorf("%s: two contents for one index, %v", name, err)
		}
		got, err := decoded(content)
		if err != nil || plain(got) != plain(ix) {
			t.Errorf("%s: %v\n%s, want\n%s", name, err, plain(got), plain(ix))
		}
	}
	f("empty", Index{})
	f("many", someIndex(rand.New(rand.NewPCG(1, 2)), 1000))
	odd := Index{Blocks: []Block{{
		BlockMeta: tsdb.BlockMeta{
			Version: 1, MinTime: math.MinInt64, MaxTime: math.MaxInt64,
			Stats: tsdb.BlockStats{NumTombstones: math.MaxUint64},
			Compaction: tsdb.BlockMetaCompaction{Level: 7, Deletable: true, Failed: true,
				Hints: []string{"from-out-of-order", ""}, Sources: []ulid.ULID{{1}, {1}, {0}}},
		},
		Labels: map[string]string{"": "", "ü": "x"}, Resolution: math.MaxInt64, Files: []File{{"", 0}},
		SeriesMaxSize: math.MaxInt64, Uploaded: -62135596800000,
	}, {BlockMeta: tsdb.BlockMeta{ULID: ulid.ULID{9}, Version: 1}, Labels: map[string]string{}}}}
	odd.Marks = []Mark{{Kind: Deletion, At: -1, Own: true}, {Kind: NoDownsample, Reason: "r", Details: "d"},
		{ID: ulid.ULID{1}, Kind: NoCompact}}
	odd.Leftovers = []Leftover{{ulid.ULID{}, -5}, {ulid.ULID{255}, math.MaxInt64}}
	f("odd", odd)
}

// TestDecodeRefuses: a content that is cut short or goes on is refused, and so is one that Encode should not have made.
func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(someIndex(rand.New(rand.NewPCG(3, 4)), 30))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if _, err := decoded(good[:i]); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := decoded(append(slices.Clone(good), 0)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a byte more: %v", err)
	}
	refused := func(name string, ix Index) {
		t.Helper()
		content, err := Encode(ix)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decoded(content); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, b := Block{BlockMeta: tsdb.BlockMeta{ULID: ulid.ULID{1}}}, Block{BlockMeta: tsdb.BlockMeta{ULID: ulid.ULID{2}}}
	refused("not in order", Index{Blocks: []Block{b, a}})
	refused("a block twice", Index{Blocks: []Block{a, a}})
	b.MinTime, b.MaxTime = 2, 1
	refused("times", Index{Blocks: []Block{b}})
	refused("a mark of no kind", Index{Rest: Rest{Marks: []Mark{{}}}})
	refused("a mark twice", Index{Rest: Rest{Marks: []Mark{{Kind: 1}, {Kind: 1}}}})
	refused("a leftover twice", Index{Rest: Rest{Leftovers: []Leftover{{}, {}}}})
	refused("not UTF-8", Index{Blocks: []Block{{Source: "\xff"}}})
	for _, o := range []Origin{{}, {Of: 3}, {Of: 2, Shard: 2}, {Of: MaxParts * 2}, {Of: 2, Empty: []int{0}},
		{Of: 2, Empty: []int{2}}, {Of: 1, Removed: []string{"b", "a"}}, {Of: 1, Replaces: []ulid.ULID{{1}, {1}}}} {
		o.Sources = []ulid.ULID{{1}}
		refused("origin", Index{Blocks: []Block{{Origin: &o}}})
	}
	refused("origin without sources", Index{Blocks: []Block{{Origin: &Origin{Of: 1}}}})
	a.Resolution = -1
	refused("resolution", Index{Blocks: []Block{a}})
}

// TestEncodeTooLarge: what no reader would take is not written.
func TestEncodeTooLarge(t *testing.T) {
	long := strings.Repeat("x", maxBody+1)
	if _, err := Encode(Index{Blocks: []Block{{Source: long}}}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("%v", err)
	}
}

func TestPointer(t *testing.T) {
	began := time.UnixMilli(1_700_000_000_123)
	content := []byte("some content")
	p := NewPointer(content, 7, began)
	back, err := ParsePointer(p.Encode())
	if err != nil || back != p || !back.Updated().Equal(began) || back.Check(content) != nil || !ContentName(p.Object()) {
		t.Fatalf("%+v, %v, want %+v", back, err, p)
	}
	for _, other := range []string{"", "some conten", "some contents", "Some content"} {
		if errs.KindOf(p.Check([]byte(other))) != errs.Invalid {
			t.Errorf("%q is taken for the content", other)
		}
	}
	f := func(text string, number uint64) {
		t.Helper()
		got, err := ParsePointer([]byte(text))
		if errs.KindOf(err) != errs.Invalid || got != (Pointer{Number: number}) {
			t.Errorf("%.100s: %+v, %v", text, got, err)
		}
	}
	f("", 0)
	f("[]", 0)
	f(`{"version":1,"number":-1}`, 0)
	f(`{"version":2,"number":9}`, 9)
	edit := func(old, new string) string { return string(bytes.Replace(p.Encode(), []byte(old), []byte(new), 1)) }
	f(edit(`"number":7`, `"number":0`), 0)
	f(edit(p.Hash, p.Hash[1:]), 7)
	f(edit(p.Hash, "../../bucket.json"), 7)
	f(edit(p.Hash[:1], "G"), 7)
	f(edit(`"size":12`, `"size":-12`), 7)
	f(edit(`"size":12`, `"size":1000000000`), 7)
	f(edit(`"updated_at":1`, `"updated_at":-1`), 7)
	f(string(bytes.Repeat([]byte(" "), MaxPointerSize+1)), 0)
	for _, name := range []string{PointerName, Folder, Folder + "x", "x/" + p.Object(), p.Object() + "/"} {
		if ContentName(name) {
			t.Errorf("%s is taken for a content", name)
		}
	}
}

func TestFile(t *testing.T) {
	content := []byte("some content")
	for _, p := range []Pointer{{}, NewPointer(content, 7, time.UnixMilli(5))} {
		file := EncodeFile(p, content)
		gotP, got, err := DecodeFile(file)
		if err != nil || gotP != p || !bytes.Equal(got, content) {
			t.Errorf("%+v, %q, %v", gotP, got, err)
		}
		for i := range file {
			bad := slices.Clone(file)
			bad[i] ^= 4
			if _, _, err := DecodeFile(bad); errs.KindOf(err) != errs.Invalid {
				t.Errorf("byte %d is wrong: %v", i, err)
			}
			if _, _, err := DecodeFile(file[:i]); errs.KindOf(err) != errs.Invalid {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 1, 20} {
		content, err := Encode(someIndex(rand.New(rand.NewPCG(7, uint64(n))), n))
		if err != nil {
			f.Fatal(err)
		}
		body, _, err := inflate(content)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content, body)
	}
	f.Fuzz(func(t *testing.T, content, body []byte) {
		_, _ = decoded(content)
		// Changes of the compressed bytes hardly ever get beyond the decompression, so the body is tried by itself.
		d := decoder{b: body, version: version}
		var ix Index
		d.tables()
		d.blocks(ix.keep)
		ix.Rest = d.rest()
		if d.err != nil || len(d.b) > 0 {
			return
		}
		again, err := Encode(ix)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decoded(again); err != nil || plain(back) != plain(ix) {
			t.Fatalf("%v\n%s, want\n%s", err, plain(back), plain(ix))
		}
	})
}

func FuzzParsePointer(f *testing.F) {
	f.Add(NewPointer([]byte("x"), 1, time.UnixMilli(1)).Encode())
	f.Add([]byte(`{"version":1,"number":18446744073709551615,"hash":"","size":1e3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePointer(b)
		if err != nil {
			return
		}
		if back, err := ParsePointer(p.Encode()); err != nil || back != p || !ContentName(p.Object()) {
			t.Fatalf("%+v, %v, want %+v", back, err, p)
		}
	})
}

func FuzzDecodeFile(f *testing.F) {
	f.Add(EncodeFile(Pointer{}, nil))
	f.Add(EncodeFile(NewPointer([]byte("x"), 1, time.UnixMilli(1)), []byte("y")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, content, err := DecodeFile(b)
		if err != nil {
			return
		}
		again, same, err := DecodeFile(EncodeFile(p, content))
		if err != nil || again != p || !bytes.Equal(same, content) {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	ix := someIndex(rand.New(rand.NewPCG(1, 1)), 100_000)
	b.ReportAllocs()
	for b.Loop() {
		content, err := Encode(ix)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(content)), "content-B")
	}
}

func BenchmarkDecode(b *testing.B) {
	content, err := Encode(someIndex(rand.New(rand.NewPCG(1, 1)), 100_000))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(content, func(*Block) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestIndexIsKept: a block has no field that the format forgets.
func TestIndexIsKept(t *testing.T) {
	known := map[string]int{"tsdb.BlockMeta": 6, "tsdb.BlockStats": 6, "tsdb.BlockMetaCompaction": 6,
		"bucketindex.Block": 9, "bucketindex.Origin": 8, "bucketindex.Mark": 6, "bucketindex.Leftover": 2, "bucketindex.File": 2}
	for _, v := range []any{tsdb.BlockMeta{}, tsdb.BlockStats{}, tsdb.BlockMetaCompaction{}, Block{}, Origin{}, Mark{},
		Leftover{},
		File{}} {
		if typ := reflect.TypeOf(v); known[typ.String()] != typ.NumField() {
			t.Errorf("%s has %d fields: the format has been made for %d", typ, typ.NumField(), known[typ.String()])
		}
	}
}

// TestVersion1: what was written before parts could say what they are is read, without those that do not say so.
func TestVersion1(t *testing.T) {
	ix := someIndex(rand.New(rand.NewPCG(5, 6)), 40)
	for i := range ix.Blocks {
		ix.Blocks[i].Origin = nil
	}
	content, err := Encode(ix)
	if err != nil {
		t.Fatal(err)
	}
	content[len(magic)] = without // blocks without an origin have the same bytes in both versions
	got, err := decoded(content)
	if err != nil || len(got.Blocks) != 38 {
		t.Fatalf("%d blocks, %v", len(got.Blocks), err)
	}
	for _, b := range got.Blocks {
		if c := b.Compaction; len(c.Sources) == 1 && c.Level > 1 && c.Sources[0] == b.ULID {
			t.Errorf("%s may be a part", b.ULID)
		}
	}
	content[len(magic)] = version + 1
	if _, err := decoded(content); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a later version: %v", err)
	}
}
