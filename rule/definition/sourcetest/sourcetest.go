// Package sourcetest is the contract test of definition.Source.
package sourcetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// Place is where a Source finds groups. Each text is in a file or object of its own, and has one group, which is named
// like it.
type Place struct {
	// Source is open.
	Source definition.Source
	// Put writes a text under a name, or replaces it, Spoil replaces it by one that is wrong, and Delete removes it.
	Put           func(name, text string)
	Spoil, Delete func(name string)
	// Look makes the source look for changes now.
	Look func()
}

// Group is the text of a group whose rule has the expression expr.
func Group(name, expr string) string {
	return fmt.Sprintf("name: %s\nrules:\n- {record: r, expr: %q}\n", name, expr)
}

// Run tests the source of an empty place.
func Run(t *testing.T, p Place) {
	t.Helper()
	drain := func() {
		select {
		case <-p.Source.Changed():
		default:
		}
	}
	// after makes a change, and waits until the source has told it.
	after := func(what string, change func()) {
		t.Helper()
		p.Look()
		drain()
		change()
		deadline := time.After(20 * time.Second)
		for {
			p.Look()
			select {
			case <-p.Source.Changed():
				return
			case <-deadline:
				t.Fatalf("%s: Changed does not receive within 20s", what)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	expect := func(what, want string, faults ...string) {
		t.Helper()
		groups, err := p.Source.Groups(t.Context())
		var got []string
		for _, g := range groups {
			if _, bad := tenant.Parse(string(g.Tenant)); bad != nil || g.Namespace == "" {
				t.Errorf("%s: group %+v has no tenant or namespace", what, g)
			}
			got = append(got, g.Name+"="+g.Rules[0].Expr)
		}
		if text := strings.Join(got, " "); text != want || (err != nil) != (len(faults) > 0) {
			t.Errorf("%s: %q, %v; want %q, %q", what, text, err, want, faults)
		}
		for _, fault := range faults {
			if err != nil && !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: %v does not name %q", what, err, fault)
			}
		}
		for i := range groups { // the slice is the caller's
			groups[i] = definition.Group{}
		}
	}
	p.Look()
	expect("nothing", "")
	after("first", func() { p.Put("b", Group("b", "up")) })
	expect("first", "b=up")
	after("second", func() { p.Put("a", Group("a", "up")) })
	expect("second", "a=up b=up")
	after("replaced", func() { p.Put("b", Group("b", "down")) })
	expect("replaced", "a=up b=down")
	after("spoiled", func() { p.Spoil("a") })
	expect("spoiled", "a=up b=down", "a")
	after("another one, beside one that is wrong", func() { p.Put("c", Group("c", "up")) })
	expect("another one", "a=up b=down c=up", "a")
	after("never good", func() { p.Spoil("d") })
	expect("never good", "a=up b=down c=up", "a", "d")
	after("mended", func() { p.Put("a", Group("a", "mended")); p.Delete("d") })
	expect("mended", "a=mended b=down c=up")
	after("deleted", func() { p.Delete("b") })
	expect("deleted", "a=mended c=up")
	for range 3 {
		p.Look()
	}
	drain()
	for range 3 {
		p.Look()
	}
	select {
	case <-p.Source.Changed():
		t.Error("Changed receives without a change")
	default:
	}
}
