package run

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// parts adds named parts that write down what happens to them; the one called broken does not open, the one called
// dying fails once it is open.
func parts(g *Group, events *[]string, names ...string) {
	for _, name := range names {
		g.Add(name, func(_ context.Context, fail func(error)) error {
			if name == "broken" {
				return errors.New("no")
			}
			*events = append(*events, "+"+name)
			if name == "dying" {
				fail(errors.New("died"))
			}
			return nil
		}, func() error {
			*events = append(*events, "-"+name)
			if name == "clumsy" {
				return errors.New("spilled")
			}
			return nil
		})
	}
}

func TestGroup(t *testing.T) {
	f := func(names, wantEvents, wantErr string) {
		t.Helper()
		var g Group
		var events []string
		parts(&g, &events, strings.Fields(names)...)
		ctx, cancel := context.WithCancel(context.Background())
		if !strings.Contains(names, "dying") {
			cancel()
		}
		defer cancel()
		err := g.Run(ctx)
		if got := strings.Join(events, " "); got != wantEvents {
			t.Fatalf("%s: %s, want %s", names, got, wantEvents)
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != wantErr {
			t.Fatalf("%s: error %q, want %q", names, text, wantErr)
		}
	}
	f("a b c", "+a +b +c -c -b -a", "")
	f("a broken c", "+a -a", "open broken: no")
	f("a dying c", "+a +dying +c -c -dying -a", "dying: died")
	f("a clumsy c", "+a +clumsy +c -c -clumsy -a", "close clumsy: spilled")
	f("clumsy broken", "+clumsy -clumsy", "open broken: no\nclose clumsy: spilled")
}
