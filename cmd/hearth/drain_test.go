package main

import (
	"strings"
	"testing"
)

// A drain that leaves fewer members than copies says what the next failure does.
func TestConsequence(t *testing.T) {
	f := func(stay, rf int, want string) {
		t.Helper()
		if got := consequence(stay, rf); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%d stay for %d copies: %q, want %q", stay, rf, got, want)
		}
	}
	f(3, 3, "")
	f(9, 3, "")
	f(1, 3, "") // refused: no quorum
	f(2, 3,
		"2 receivers stay for 3 copies of each series, so there are 2 copies: writes fail (503) as soon as one of them is away")
	f(4, 5, "4 copies: writes fail when more than 1 of them are away")
	f(1, 1, "")
}
