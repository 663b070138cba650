package series

import (
	"testing"

	"github.com/oklog/ulid/v2"
)

// TestContents: gateways know a set of blocks that they found once, up to MostContents changes ago.
func TestContents(t *testing.T) {
	set := func(ids ...byte) Digest {
		all := map[ulid.ULID]bool{}
		for _, id := range ids {
			all[ulid.ULID{id}] = true
		}
		return DigestOfSet(all)
	}
	f := func(want bool, c, of Contents) {
		t.Helper()
		if got := c.Know(of); got != want {
			t.Errorf("%q know %q: %t", c, of, got)
		}
	}
	var none Contents
	one := none.After(set(1))
	two := one.After(set(1, 2))
	f(false, none, none)
	f(false, one, none)
	f(false, none, one)
	f(true, two, one)
	f(false, one, two)
	f(true, two, one.After(set(1)))
	f(false, two.After(set()), one) // an empty bucket is like any other
	f(true, none.After(set(2, 1)), two)
	f(true, two, ContentsOf(one.String()))
	for _, text := range []string{"", "x", "00", one.String() + "00"} {
		if ContentsOf(text) != "" {
			t.Errorf("%q is taken for contents", text)
		}
	}
	many := two
	for i := range byte(MostContents - 1) {
		f(true, many, two)
		many = many.After(set(100, i))
	}
	f(true, many, two)
	many = many.After(set(7))
	f(false, many, two)
	if len(many) != MaxContentsBytes || !ValidContents([]byte(many)) || ValidContents([]byte(many[1:])) ||
		ValidContents([]byte(many+many)) {
		t.Errorf("%d bytes", len(many))
	}
	// The bytes are part of the protocol.
	if got, want := one.String(), "6c1cff0459c8bb10b5117b0b6dbba1d9"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
