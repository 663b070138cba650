package series

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

func written(pairs ...string) labels.Labels {
	var b labels.ScratchBuilder
	for i := 0; i < len(pairs); i += 2 {
		b.Add(pairs[i], pairs[i+1])
	}
	return b.Labels()
}

// chunkAt is a chunk with bytes of its own.
func chunkAt(at int64) Chunk {
	return Chunk{MinTime: at, MaxTime: at + 9, Raw: Encoded{Encoding: chunkenc.EncXOR, Data: []byte{0, 1, byte(at)}}}
}

func show(t *testing.T, set Set) (text string) {
	t.Helper()
	for set.Next() {
		text += set.At().Labels.String()
		for _, c := range set.At().Chunks {
			text += fmt.Sprint(c.MinTime, " ")
		}
	}
	for _, w := range set.Warnings() {
		text += "\n" + w
	}
	if err := set.Err(); err != nil {
		text += "\n" + err.Error()
	}
	return text
}

func TestChecked(t *testing.T) {
	m := func(v string, at ...int64) Series {
		s := Series{Labels: labels.FromStrings("m", v)}
		for _, a := range at {
			s.Chunks = append(s.Chunks, chunkAt(a))
		}
		return s
	}
	odd := func(pairs ...string) Series { return Series{Labels: written(pairs...)} }
	f := func(name, want string, in ...Series) {
		t.Helper()
		if got := show(t, Checked(List(in), "s")); got != want {
			t.Errorf("%s: got %s\nwant %s", name, got, want)
		}
	}
	f("nothing", "")
	f("in order", `{m="1"}1 {m="2"}`, m("1", 1), m("2"))
	f("in parts", `{m="1"}1 20 40 {m="2"}1 `, m("1", 1), m("1", 20), m("1", 20, 40), m("2", 1))
	f("early", `{m="1"}{m="2"}{m="3"}{m="9"}`, m("1"), m("9"), m("2"), m("3"))
	f("late", `{m="1"}{m="2"}{m="3"}{m="9"}`, m("2"), m("3"), m("9"), m("1"))
	f("two early", `{m="1"}{m="2"}{m="8"}{m="9"}`, m("1"), m("8"), m("9"), m("2"))
	f("chunks out of order", `{m="1"}1 20 `, m("1", 20, 1))
	f("unsorted", `{m="1"}{m="2", x="y"}{m="3"}`, m("1"), odd("x", "y", "m", "2"), m("3"))
	f("empty values", `{m="1"}{m="2"}`, m("1"), odd("a", "", "m", "2"))
	f("all values are empty", `{}{m="1"}`, odd("a", ""), m("1"))
	f("twice",
		"{m=\"1\"}{m=\"3\"}\ns: skipped series with a label name that is there twice (2), such as {m=\"2\", m=\"2\"}", m("1"),
		odd("m", "2", "m", "2"), odd("m", "2", "m", "3"), m("3"))
	f("no name", "{m=\"1\"}\ns: skipped series with a label that has no name (1), such as {\"\"=\"x\"}", odd("", "x"),
		m("1"))
	f("not UTF-8", "{m=\"1\"}\ns: skipped series with a label that is not UTF-8 (1), such as {m=\"\\xff\"}",
		odd("m", "\xff"), m("1"))
	f("a long one",
		"\ns: skipped series with a label that has no name (1), such as {\"\"=\""+strings.Repeat("x", maxFaultText-5)+"...",
		odd("", strings.Repeat("x", 1000)))
	empty := m("1", 1, 20)
	empty.Chunks[0].Raw.Data = nil
	f("a chunk without data", "{m=\"1\"}20 {m=\"2\"}\ns: skipped chunks without usable data (1), such as {m=\"1\"}", empty,
		m("2"))

	// What is further away is lost, alone.
	var many []Series
	for i := range 3 * checkedWindow {
		many = append(many, m(fmt.Sprintf("%03d", i)))
	}
	late := slices.Concat(many[1:], many[:1])
	got := show(t, Checked(List(late), "s"))
	if n := strings.Count(got, "{m="); n != len(many) ||
		!strings.HasSuffix(got, `skipped series far out of order (1), such as {m="000"}`) {
		t.Errorf("%d series: %s", n, got)
	}
	early := slices.Concat(many[len(many)-5:], many[:len(many)-5])
	if got := show(t, Checked(List(early), "s")); strings.Count(got, "{m=") != len(many) ||
		strings.Contains(got, "skipped") {
		t.Errorf("five early ones: %s", got)
	}
}

// TestCheckedFails: what came last before an error may lack parts, and is not yielded.
func TestCheckedFails(t *testing.T) {
	in := []Series{{Labels: labels.FromStrings("m", "1")}, {Labels: labels.FromStrings("m", "2")},
		{Labels: labels.FromStrings("m", "3")}}
	got := show(t, Checked(&failingSet{Set: List(in), err: errors.New("cut off")}, "s"))
	if want := "{m=\"1\"}{m=\"2\"}\ncut off"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

type failingSet struct {
	Set
	err error
}

func (s *failingSet) Err() error { return s.err }

// TestCheckedSorts compares sets that are disturbed at random with sorted ones.
func TestCheckedSorts(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var in []Series
		for i := range rnd.IntN(4 * checkedWindow) {
			in = append(in, Series{Labels: labels.FromStrings("m", fmt.Sprintf("%04d", i))})
		}
		want := show(t, List(slices.Clone(in)))
		for range len(in) / 4 {
			at := rnd.IntN(len(in))
			to := min(at+rnd.IntN(checkedWindow/4), len(in)-1)
			in[at], in[to] = in[to], in[at]
		}
		if got := show(t, Checked(List(in), "s")); got != want {
			t.Fatalf("seed %d: got %s\nwant %s", seed, got, want)
		}
	}
}

// pulled is a set that counts how many series were read.
type pulled struct {
	Set
	n int
}

func (p *pulled) Next() bool {
	p.n++
	return p.Set.Next()
}

// TestCheckedAhead: what is read ahead is bounded in bytes, and still joins the parts of a large series.
func TestCheckedAhead(t *testing.T) {
	large := append([]byte{0, 1}, make([]byte, 3<<20)...)
	var in []Series
	for i := range 40 {
		for part := range int64(2) {
			in = append(in, Series{Labels: labels.FromStrings("m", fmt.Sprintf("%02d", i)), Chunks: []Chunk{
				{MinTime: part * 10, MaxTime: part*10 + 9, Raw: Encoded{Encoding: chunkenc.EncXOR, Data: large}}}})
		}
	}
	from := &pulled{Set: List(in)}
	set := Checked(from, "s")
	for n := 1; set.Next(); n++ {
		if got := len(set.At().Chunks); got != 2 {
			t.Fatalf("series %d has %d chunks", n, got)
		}
		if from.n > 2*n+4 {
			t.Fatalf("after %d series %d parts were read", n, from.n)
		}
	}
	if from.n != len(in)+1 || len(set.Warnings()) > 0 {
		t.Errorf("%d parts were read; %q", from.n, set.Warnings())
	}
}
