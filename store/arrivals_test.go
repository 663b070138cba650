package store

import (
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// made is a block of sources, by letters, from one time to another.
func made(sources string, mint, maxt, resolution int64) *block.Meta {
	m := &block.Meta{}
	m.MinTime, m.MaxTime, m.Thanos.Downsample.Resolution = mint, maxt, resolution
	for _, l := range []byte(sources) {
		m.Compaction.Sources = append(m.Compaction.Sources, ulid.ULID{l})
	}
	return m
}

// sourceNames is the sources of blocks.
func sourceNames(all []*block.Meta) string {
	var names []string
	for _, m := range all {
		name := ""
		for _, id := range m.Compaction.Sources {
			name += string(id[0])
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func TestNewsAndLosses(t *testing.T) {
	a, b, c := made("a", 0, 10, 0), made("b", 0, 10, 0), made("c", 10, 20, 0)
	ab, abc := made("ab", 0, 10, 0), made("abc", 0, 20, 0)
	ab5, other := made("ab", 0, 10, 300), made("d", 0, 10, 0)
	announced := func(m *block.Meta) bool { return m == c }
	f := func(name string, was, is []*block.Meta, wantNews, wantLosses string) {
		t.Helper()
		var gone, came []*block.Meta
		for _, m := range was {
			if !slices.Contains(is, m) {
				gone = append(gone, m)
			}
		}
		for _, m := range is {
			if !slices.Contains(was, m) {
				came = append(came, m)
			}
		}
		if n, l := sourceNames(news(was, came, announced)), sourceNames(losses(is, gone)); n != wantNews || l != wantLosses {
			t.Errorf("%s: news %q, losses %q; want %q and %q", name, n, l, wantNews, wantLosses)
		}
	}
	blocks := func(all ...*block.Meta) []*block.Meta { return all }
	f("nothing", blocks(a), blocks(a), "", "")
	f("another's block", blocks(a), blocks(a, other), "d", "")
	f("a receiver's block", blocks(a), blocks(a, c), "", "")
	f("compaction", blocks(a, b), blocks(ab), "", "")
	f("compaction that took something else in", blocks(a, b), blocks(abc), "abc", "")
	f("compaction of a larger block", blocks(ab, c), blocks(abc), "", "")
	f("downsampling", blocks(ab), blocks(ab, ab5), "", "")
	f("retention", blocks(ab, c), blocks(c), "", "ab")
	f("retention of what has a coarser block", blocks(ab, ab5), blocks(ab5), "", "ab")
	f("one of two blocks with the same samples", blocks(a, ab), blocks(ab), "", "")
	f("a block that was split again", blocks(abc), blocks(ab, c), "", "")
}
