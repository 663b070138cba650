package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
)

// TestConditions: matchers on one label are one condition, and how its lists are found.
func TestConditions(t *testing.T) {
	for _, f := range []struct {
		matchers []*labels.Matcher
		want     string
	}{
		{nil, ""},
		{[]*labels.Matcher{match(labels.MatchEqual, "a", "x")}, "a with x"},
		{[]*labels.Matcher{match(labels.MatchNotEqual, "a", "x")}, "a without x"},
		{[]*labels.Matcher{match(labels.MatchEqual, "a", "")}, "a without values from \"\""},
		{[]*labels.Matcher{match(labels.MatchNotEqual, "a", "")}, "a with values from \"\""},
		{[]*labels.Matcher{match(labels.MatchRegexp, "a", ".*")}, ""},
		{[]*labels.Matcher{match(labels.MatchRegexp, "a", "y|x|z")}, "a with x y z"},
		{[]*labels.Matcher{match(labels.MatchNotRegexp, "a", "y|x")}, "a without x y"},
		{[]*labels.Matcher{match(labels.MatchRegexp, "a", "pre.*")}, "a with values from \"pre\""},
		{[]*labels.Matcher{match(labels.MatchNotRegexp, "a", "pre.+")}, "a without values from \"pre\""},
		{[]*labels.Matcher{match(labels.MatchRegexp, "a", "x|")}, "a without values from \"\""},
		{[]*labels.Matcher{match(labels.MatchRegexp, "a", "x|y|z"), match(labels.MatchNotEqual, "a", "y")}, "a with x z"},
		{[]*labels.Matcher{match(labels.MatchNotEqual, "a", "y"), match(labels.MatchNotRegexp, "a", "x|z")},
			"a without x y z"},
		{[]*labels.Matcher{match(labels.MatchEqual, "a", "x"), match(labels.MatchEqual, "a", "y")}, "a with"},
		{[]*labels.Matcher{match(labels.MatchNotEqual, "a", ""), match(labels.MatchRegexp, "a", "p.*"),
			match(labels.MatchRegexp, "a", "pre.*")}, "a with values from \"pre\""},
		{[]*labels.Matcher{match(labels.MatchEqual, "a", "x"), match(labels.MatchNotEqual, "b", "y"),
			match(labels.MatchNotEqual, "a", "z")}, "a with x, b without y"},
	} {
		var got []string
		for _, c := range conditions(f.matchers) {
			text := c.name + " with"
			if c.without {
				text += "out"
			}
			if values, known := c.values(); known {
				text = strings.Join(append([]string{text}, values...), " ")
			} else {
				text += fmt.Sprintf(" values from %q", c.prefix())
			}
			got = append(got, text)
		}
		if s := strings.Join(got, ", "); s != f.want {
			t.Errorf("%v: %s, want %s", f.matchers, s, f.want)
		}
	}
}

// TestPlan: which lists are read. Each condition is its name, + or - for lists that are added or taken away, and how
// many series they have; ! is late already.
func TestPlan(t *testing.T) {
	f := func(e entries, want string, conditions ...string) {
		t.Helper()
		var cs []*condition
		for _, text := range conditions {
			c := &condition{name: text[:1], without: text[1] == '-', late: strings.HasSuffix(text, "!")}
			var n int64
			if _, err := fmt.Sscanf(text[2:], "%d", &n); err != nil {
				t.Fatal(err)
			}
			c.lists = []index.Range{{Start: 1000, End: 1000 + listLead + 4*n}}
			cs = append(cs, c)
		}
		plan(cs, e)
		var read, late []string
		for _, c := range cs {
			if c.late {
				late = append(late, c.name)
			} else {
				read = append(read, c.name)
			}
		}
		if got := strings.Join(read, "") + " " + strings.Join(late, ""); got != want {
			t.Errorf("%+v %v: reads %s, want %s", e, conditions, got, want)
		}
	}
	small, large := entries{1000, 150_000}, entries{2_000_000, 1_200_000_000}
	f(large, " ")
	f(large, "a ", "a+2000000")
	f(large, "ab ", "a+1000", "b+1000")
	f(large, "ba ", "a+20000", "b+1000")         // 80 KB of lists, and 4 MB of entries elsewhere
	f(large, "a b", "a+1000", "b+2000000")       // 8 MB of lists that leave nothing out
	f(large, "a b", "a+10", "b+20000")           // ten entries take less than 80 KB
	f(large, "a b", "a+1000", "b-100")           // what is taken away is hardly any of the 1,000
	f(large, "ab ", "a+1000000", "b-1000000")    // half of 600 MB
	f(large, "a ", "a-10")                       // of all series, 52 bytes leave out ten
	f(large, "a b", "a+20", "b-1000000")         // 80 KB of entries, and 4 MB of lists
	f(small, "b ca", "a+1000", "b+1", "c+600")   // one entry
	f(small, "b ac", "a+1000", "b+100", "c+10!") // c costs too much to look up
	f(small, "bc a", "a+1000", "b+2", "c+500")
	f(large, "a b", "a+1000", "b+5!")
	f(entries{}, "a b", "a+0", "b+0")
	f(entries{10, 1000}, "b a", "a+4000000000", "b+1") // more series than there are
}

// TestPlanReadsWhatSaves: no list is read that takes more than all entries that it could leave out.
func TestPlanReadsWhatSaves(t *testing.T) {
	for _, e := range []entries{{1000, 150_000}, {2_000_000, 1_200_000_000}, {1, 16}} {
		for n := int64(1); n <= e.total; n *= 10 {
			for m := int64(1); m <= e.total; m *= 10 {
				cs := []*condition{{name: "a", lists: []index.Range{{End: listLead + 4*n}}},
					{name: "b", lists: []index.Range{{End: listLead + 4*m}}}}
				plan(cs, e)
				_, first := size(cs[0].lists)
				bytes, _ := size(cs[1].lists)
				if cs[0].late || first != min(n, m) {
					t.Fatalf("%+v %d %d: does not begin with the fewest series", e, n, m)
				}
				if !cs[1].late && bytes > e.cost(first) {
					t.Fatalf("%+v %d %d: reads lists of %d bytes instead of entries of %d", e, n, m, bytes, e.cost(first))
				}
			}
		}
	}
}

// TestAhead: what is read ahead is at once enough, and falls slowly to what is seen, never below the least.
func TestAhead(t *testing.T) {
	for _, f := range []struct{ now, n, least, want int64 }{
		{100, 1000, 50, 1250},
		{100, 100, 100, 100},
		{6500, 100, 100, 6400},
		{6500, 6500, 100, 6500},
		{110, 20, 100, 110}, // falls by a 64th of the difference, as whole bytes
		{1000, 64 << 20, 100, maxAhead},
	} {
		if got := ahead(f.now, f.n, f.least); got != f.want {
			t.Errorf("%d after %d: %d, want %d", f.now, f.n, got, f.want)
		}
	}
	for said, want := range map[int64]int64{0: 2048, -5: 2048, 1: 1 + aroundData, 4096: 4096 + aroundData, 4097: 2048,
		1 << 62: 2048} {
		var a readAhead
		a.start(said, 2048)
		if a.size() != want {
			t.Errorf("meta.json says %d: reads %d, want %d", said, a.size(), want)
		}
	}
}
