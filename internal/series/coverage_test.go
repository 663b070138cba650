package series

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
)

// ids are blocks by their letters.
func ids(letters string) (all []ulid.ULID) {
	for _, l := range []byte(letters) {
		all = append(all, ulid.ULID{l})
	}
	return all
}

// covers is a response: "a b/c d" served a and b of what view 1 needs, and left c and d to others.
func covers(view uint64, text string) Coverage {
	served, others, _ := strings.Cut(text, "/")
	c := Coverage{Holding: Holding{Bucket: "x", View: View{Number: view}}, Served: ids(served)}
	for _, id := range ids(others) {
		c.Others = append(c.Others, Block{ID: id})
	}
	c.Needed = DigestOf(append(ids(served), ids(others)...)...)
	return c
}

func TestDigest(t *testing.T) {
	if a, b := DigestOf(ids("abc")...), DigestOf(ids("cabba")...); a != b || a.Blocks != 3 {
		t.Errorf("%+v and %+v are of one set", a, b)
	}
	if DigestOf(ids("ab")...) == DigestOf(ids("ac")...) || DigestOf() != (Digest{}) {
		t.Error("digests do not tell sets apart")
	}
	// Other versions must find the same.
	if got, want := fmt.Sprintf("%x", DigestOf(ids("ab")...).Sums), "[d19a805825a9c711 66ecf2d8ae56f2b3]"; got != want {
		t.Errorf("the digest of two blocks is %s, was %s", got, want)
	}
}

func TestUncovered(t *testing.T) {
	unlisted := func(c Coverage) Coverage { c.Others = nil; return c }
	hash := func(c Coverage, h string) Coverage { c.View.Hash = h; return c }
	whole := func(view uint64) Coverage {
		return Coverage{Holding: Holding{Bucket: "x", View: View{Number: view}, Whole: true}}
	}
	replacing := func(c Coverage, by byte, what string) Coverage {
		at := slices.IndexFunc(c.Others, func(b Block) bool { return b.ID[0] == by })
		c.Others[at].Replaces = ids(what)
		return c
	}
	elsewhere := covers(9, "/z")
	elsewhere.Bucket = "y"
	f := func(name string, seen uint64, want string, proven bool, heard ...Coverage) {
		t.Helper()
		gaps, ok := Uncovered("x", append(heard, elsewhere),
			[]Holding{{Bucket: "x", View: View{Number: seen}}, {Bucket: "y", View: View{Number: 99}}})
		var got []string
		for _, g := range gaps {
			text := fmt.Sprint(g.View.Number, g.View.Hash, ":")
			for _, id := range g.Missing {
				text += string(id[0])
			}
			if g.Unnamed > 0 {
				text += fmt.Sprint("+", g.Unnamed)
			}
			if g.Unheard {
				text += "?"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != want || ok != proven {
			t.Errorf("%s: gaps %q, proven %t; want %q, %t", name, got, ok, want, proven)
		}
	}
	f("nothing is known", 0, "", false)
	f("nobody said anything", 3, "3:?", false)
	f("one serves all", 1, "", true, covers(1, "ab"))
	f("two share", 1, "", true, covers(1, "a/b"), covers(1, "b/a"))
	f("two share what is too long to list", 1, "", true, unlisted(covers(1, "a/b")), unlisted(covers(1, "b/a")))
	f("one is missing", 1, "1:c", false, covers(1, "a/bc"), covers(1, "b/ac"))
	f("some are missing, of which nobody has the names", 1, "1:+2", false, unlisted(covers(1, "a/bcd")),
		unlisted(covers(1, "b/acd")))
	f("nothing is needed", 1, "", true, covers(1, ""))
	f("an old view is short", 2, "", true, covers(1, "a/b"), covers(2, "c"))
	f("an old view has a needed block", 2, "", true, covers(1, "a"), covers(2, "c/a"))
	f("the same, and nobody knows its name", 2, "2:+1", false, covers(1, "a"), unlisted(covers(2, "c/a")))
	f("a newer view was seen", 3, "3:?", false, covers(2, "a"))
	f("an old view serves what a block replaces", 2, "", true, covers(1, "ab"), replacing(covers(2, "c/s"), 's', "ab"))
	f("a part of what a block replaces is not enough", 2, "2:s", false, covers(1, "a/b"),
		replacing(covers(2, "c/s"), 's', "ab"))
	f("two contents of one number", 1, "", true, hash(covers(2, "a/b"), "h"), hash(covers(2, "b"), "i"))
	f("two contents, and one is short", 1, "2i:c", false, hash(covers(2, "a"), "h"), hash(covers(2, "b/c"), "i"))
	f("another content of the newest number was seen", 2, "2:?", false, hash(covers(2, "a"), "h"))
	f("two that do not agree about one content", 2, "2:b", false, covers(2, "a"), covers(2, "a/b"))
	f("whole, of its own view", 0, "", true, whole(0))
	f("whole and a share, of listings of their own", 0, "0:b", false, whole(0), covers(0, "a/b"))
	f("whole, where there are views", 1, "1:b", false, whole(0), covers(1, "a/b"))
	f("whole, of a view", 4, "", true, whole(4), covers(4, "a/b"))
	f("whole, of an old view", 5, "5:b", false, whole(4), covers(5, "a/b"))
}

func TestStandsFor(t *testing.T) {
	f := func(name string, failed Holding, proven, want bool, heard ...Coverage) {
		t.Helper()
		if got := StandsFor(failed, heard, proven); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	old := Coverage{Holding: Holding{Bucket: "x", Whole: true}}
	f("no bucket", Holding{}, true, false, old)
	f("one of no views for another", old.Holding, false, true, old)
	f("one of no views for a share of a view", Holding{Bucket: "x", View: View{Number: 1}}, false, false, old)
	f("another bucket", Holding{Bucket: "y"}, false, false, old)
	f("a share of no view", Holding{Bucket: "x"}, false, true, old)
	f("one of no views, where views are covered", old.Holding, true, true)
	f("shares for one that is whole", old.Holding, false, false, covers(0, "a/b"))
}
