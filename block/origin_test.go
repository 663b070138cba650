package block

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// partOf makes m part shard of of blocks with its sources, which replaced some blocks.
func partOf(m *Meta, shard, of int, replaces ...int) *Meta {
	m.Origin = &Origin{ID: m.ULID, Sources: m.Compaction.Sources, Shard: shard, Of: of, Removed: []string{"receive_replica"}}
	for _, i := range replaces {
		m.Origin.Replaces = append(m.Origin.Replaces, testID(i))
	}
	m.Compaction.Level = 2
	if of > 1 {
		m.Compaction.Sources = []ulid.ULID{m.ULID}
	}
	return m
}

// TestPart: what parts together have.
func TestPart(t *testing.T) {
	f := func(p Part, want bool, parts ...Part) {
		t.Helper()
		if got := p.CoveredBy(parts); got != want {
			t.Errorf("%v by %v: %v", p, parts, got)
		}
	}
	f(Part{0, 1}, false)
	f(Part{0, 1}, true, Part{0, 1})
	f(Part{0, 1}, false, Part{0, 2})
	f(Part{0, 1}, true, Part{1, 2}, Part{0, 2})
	f(Part{0, 1}, false, Part{0, 2}, Part{0, 2})
	f(Part{0, 1}, true, Part{1, 2}, Part{0, 4}, Part{2, 4})
	f(Part{0, 1}, false, Part{1, 2}, Part{0, 4}, Part{3, 4})
	f(Part{3, 4}, true, Part{1, 2})
	f(Part{2, 4}, false, Part{1, 2})
	f(Part{1, 2}, true, Part{1, 4}, Part{3, 4})
	f(Part{1, 2}, true, Part{1, 4}, Part{3, 8}, Part{7, 8})

	// By the series themselves.
	rnd := rand.New(rand.NewPCG(1, 2))
	some := func() Part {
		of := 1 << rnd.IntN(4)
		return Part{rnd.IntN(of), of}
	}
	for range 10_000 {
		p, parts := some(), make([]Part, rnd.IntN(6))
		for i := range parts {
			parts[i] = some()
		}
		want := true
		for h := range 8 {
			in := func(q Part) bool { return h%q.Of == q.Shard }
			want = want && (!in(p) || slices.ContainsFunc(parts, in))
		}
		f(p, want, parts...)
	}
}

// TestReplacedByParts: a block is replaced when all parts that may have series of it are there.
func TestReplacedByParts(t *testing.T) {
	a, r := []string{"tenant_id", "a"}, []string{"tenant_id", "a", "receive_replica", "r1"}
	f := func(name, want string, metas ...*Meta) {
		t.Helper()
		var got []string
		all := Replaced(metas)
		for _, m := range metas {
			if by, ok := all[m.ULID]; ok {
				word := m.ULID.String()[25:] + ":"
				for _, m := range by.By {
					word += m.ULID.String()[25:]
				}
				got = append(got, word)
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	x, y := testMeta(0, 0, 10, 0, []int{0}, r...), testMeta(1, 10, 20, 0, []int{1}, r...)
	part := func(i, shard, of int) *Meta {
		return partOf(testMeta(i, 0, 20, 0, []int{0, 1}, a...), shard, of, 0, 1)
	}
	f("all", "0:23 1:23", x, y, part(2, 0, 2), part(3, 1, 2))
	f("one is missing", "", x, y, part(2, 0, 2))
	f("the same one twice", "3:2", x, y, part(2, 0, 2), part(3, 0, 2))
	f("parts of parts", "0:235 1:235", x, y, part(2, 0, 2), part(3, 1, 4), part(5, 3, 4))
	empty := part(2, 0, 4)
	empty.Origin.Empty = []int{1, 3}
	f("empty parts", "0:23 1:23", x, y, empty, part(3, 2, 4))
	f("other labels", "", testMeta(0, 0, 10, 0, []int{0}, "tenant_id", "b", "receive_replica", "r1"), part(2, 0, 1))
	f("a whole one", "0:2", x, part(2, 0, 1))
	f("of the same sources", "0:2", testMeta(0, 0, 20, 0, []int{0, 1}, r...), part(2, 0, 1))
	same := part(2, 0, 1)
	same.Origin.Replaces = nil
	f("of the same sources, made of others", "", testMeta(0, 0, 20, 0, []int{0, 1}, r...), same)

	// A part is replaced by its parts, and what was replaced before is by these.
	next := func(i, shard, of int) *Meta {
		return partOf(testMeta(i, 0, 40, 0, []int{0, 1, 4}, a...), shard, of, 2)
	}
	f("part by part", "0:63 2:6", x, part(2, 0, 2), part(3, 1, 2), next(6, 0, 2))
	f("by its parts", "0:673 2:67", x, part(2, 0, 2), part(3, 1, 2), next(6, 0, 4), next(7, 2, 4))
	f("by some of them", "0:236", x, part(2, 0, 2), part(3, 1, 2), next(6, 0, 4))
	f("Thanos merges parts", "0:8 2:8 3:8", x, part(2, 0, 2), part(3, 1, 2), testMeta(8, 0, 20, 0, []int{2, 3}, a...))
	f("and what it replaced is gone", "2:8", part(2, 0, 2), testMeta(8, 0, 20, 0, []int{2, 3}, a...))

	// Metas that contradict each other hide nothing.
	b, c := part(2, 0, 1), part(3, 0, 1)
	b.Origin.Replaces, c.Origin.Replaces = []ulid.ULID{c.ULID}, []ulid.ULID{b.ULID}
	f("a cycle", "2:3", b, c)
}

// TestReplacedHasAll: whatever metas say, those that stay have all samples of those that go.
func TestReplacedHasAll(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var metas []*Meta
		for i := range 2 + rnd.IntN(8) {
			m := testMeta(i, 0, 10, 0, nil, "tenant_id", "a")
			for s := range 4 {
				if rnd.IntN(2) == 0 {
					m.Compaction.Sources = append(m.Compaction.Sources, ulid.ULID{byte(s)})
				}
			}
			if len(m.Compaction.Sources) == 0 {
				m.Compaction.Sources = []ulid.ULID{m.ULID}
			}
			if rnd.IntN(3) > 0 {
				of := 1 << rnd.IntN(3)
				partOf(m, rnd.IntN(of), of, rnd.IntN(8))
				m.Compaction.Level += rnd.IntN(2)
			}
			metas = append(metas, m)
		}
		type piece struct {
			source ulid.ULID
			hash   int
		}
		pieces := func(gone map[ulid.ULID]Replacement) map[piece]bool {
			out := map[piece]bool{}
			for _, m := range metas {
				if _, ok := gone[m.ULID]; ok {
					continue
				}
				for _, s := range m.Sources() {
					for h := range 4 {
						if p := m.Part(); h%p.Of == p.Shard {
							out[piece{s, h}] = true
						}
					}
				}
			}
			return out
		}
		replaced := Replaced(metas)
		if all, left := pieces(nil), pieces(replaced); !reflect.DeepEqual(all, left) {
			t.Fatalf("seed %d: %v of %v are left", seed, left, all)
		}
		for id, r := range replaced {
			for _, by := range r.By {
				if _, gone := replaced[by.ULID]; gone {
					t.Fatalf("seed %d: %s is replaced by %s, which is replaced", seed, id, by.ULID)
				}
			}
		}
	}
}

// TestOrigin: extensions.hearth is read and written, with what others wrote beside it and in it.
func TestOrigin(t *testing.T) {
	id := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	ours := `{"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","sources":["01ARZ3NDEKTSV4RRFFQ69G5FA0"],` +
		`"replaces":["01ARZ3NDEKTSV4RRFFQ69G5FA1"],"shard":1,"of":2,"removed":["receive_replica"],"later":{"a":1}}`
	read := func(hearth string) *Meta {
		t.Helper()
		m, err := ReadMeta(strings.NewReader(strings.Replace(thanosMeta, `"x": 1`, `"x": 1, "hearth": `+hearth, 1)), id)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := read(ours)
	want := &Origin{ID: id, Sources: []ulid.ULID{testID(0)}, Replaces: []ulid.ULID{testID(1)}, Shard: 1, Of: 2,
		Removed: []string{"receive_replica"}}
	if !reflect.DeepEqual(m.Origin, want) {
		t.Fatalf("%+v", m.Origin)
	}
	b := m.essential()
	if back, err := metaOf(&b, newInterner()); err != nil || !reflect.DeepEqual(back.Origin, want) {
		t.Errorf("a view has %+v, %v", back.Origin, err)
	}
	changed := *want
	changed.Empty = []int{0}
	m.Origin = &changed
	var out bytes.Buffer
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	again, err := ReadMeta(&out, id)
	if err != nil || !reflect.DeepEqual(again.Origin, &changed) {
		t.Fatalf("%+v, %v", again.Origin, err)
	}
	var ext struct {
		X      int
		Hearth struct{ Later json.RawMessage }
	}
	if err := json.Unmarshal(again.Thanos.Extensions, &ext); err != nil || ext.X != 1 ||
		string(bytes.Join(bytes.Fields(ext.Hearth.Later), nil)) != `{"a":1}` {
		t.Errorf("%s, %v", again.Thanos.Extensions, err)
	}
	for _, faulty := range []string{`1`, `null`, `{}`, `{"id":7}`, strings.Replace(ours, "5FAV", "5FAW", 1),
		strings.Replace(ours, `"of":2`, `"of":3`, 1), strings.Replace(ours, `"shard":1`, `"shard":2`, 1),
		strings.Replace(ours, `"sources":["01ARZ3NDEKTSV4RRFFQ69G5FA0"],`, ``, 1)} {
		if m := read(faulty); m.Origin != nil {
			t.Errorf("%s: %+v", faulty, m.Origin)
		}
	}
}

// TestStableHash: the hash by which series are divided among parts is part of the format. Blocks that were split would
// have series in the wrong part if it changed.
func TestStableHash(t *testing.T) {
	f := func(want uint64, pairs ...string) {
		t.Helper()
		ls := labels.FromStrings(pairs...)
		if got := labels.StableHash(ls); got != want {
			t.Errorf("%.80s: %#x, want %#x", ls, got, want)
		}
		var b []byte // what is hashed, as docs/format/split-blocks.md says it
		ls.Range(func(l labels.Label) { b = append(b, l.Name+"\xff"+l.Value+"\xff"...) })
		if got := xxhash.Sum64(b); got != want {
			t.Errorf("%.80s: the page says %#x, want %#x", ls, got, want)
		}
	}
	f(0xef46db3751d8e999)
	f(0x23d4c2cb13387598, "__name__", "up")
	f(0xf28c8afcd224e55f, "__name__", "up", "instance", "localhost:9090", "job", "prometheus")
	f(0xe12f73da64bc8aeb, "__name__", "http_request_duration_seconds_bucket", "le", "0.5", "path", "/ü")
	f(0x9f59657618f31885, "a", "", "b", strings.Repeat("x", 2000))
}

// TestServedByParts: samples of a block are served when all parts that may have series of it are.
func TestServedByParts(t *testing.T) {
	a := []string{"tenant_id", "a"}
	x := testMeta(0, 0, 10, 0, []int{0}, a...)
	part := func(i, shard, of int) *Meta {
		return partOf(testMeta(i, 0, 20, 0, []int{0, 1}, a...), shard, of, 0, 1)
	}
	f := func(name string, want bool, m *Meta, inBucket, served []*Meta) {
		t.Helper()
		v := View{Metas: map[ulid.ULID]*Meta{}}
		for _, m := range slices.Concat(inBucket, served) {
			v.Metas[m.ULID] = m
		}
		if got := v.SourcesOf(served)[m.ULID]; got != want {
			t.Errorf("%s: served %v", name, got)
		}
	}
	f("one part", false, x, []*Meta{x}, []*Meta{part(2, 0, 2)})
	f("both", true, x, []*Meta{x}, []*Meta{part(2, 0, 2), part(3, 1, 2)})
	f("both, and it is gone", true, x, nil, []*Meta{part(2, 0, 2), part(3, 1, 2)})
	f("one part, and it is gone", false, x, nil, []*Meta{part(2, 0, 2)})
	f("a part by its parts", true, part(2, 0, 2), []*Meta{part(2, 0, 2)}, []*Meta{part(2, 0, 2)})
	empty := part(2, 0, 2)
	empty.Origin.Empty = []int{1}
	f("the other is empty", true, x, []*Meta{x}, []*Meta{empty})

	all := func(name string, want bool, m *Meta, parts ...*Meta) {
		t.Helper()
		if got := HaveAll(parts, m); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	y := testMeta(1, 10, 20, 0, []int{1}, a...)
	all("a part was made of whole blocks", true, part(2, 0, 2), x, y)
	all("of which one is gone", false, part(2, 0, 2), x)
	all("of parts", true, part(2, 0, 2), part(3, 0, 4), part(4, 2, 4))
	all("of one of them", false, part(2, 0, 2), part(3, 0, 4))
	all("of another", false, part(2, 0, 2), part(3, 1, 2))
	all("merged by Thanos", true, testMeta(8, 0, 20, 0, []int{2, 3}, a...), part(2, 0, 2), part(3, 1, 2))
	all("one part of it is left", false, testMeta(8, 0, 20, 0, []int{2, 3}, a...), part(2, 0, 2))
}
