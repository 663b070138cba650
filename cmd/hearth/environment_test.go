package main

import (
	"slices"
	"testing"

	"github.com/alecthomas/kingpin/v2"
)

func TestListed(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		if got := listed(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	f("")
	f("a", "a")
	f("a:1, b:2,", "a:1", "b:2")
	f("a\nb,c\n", "a", "b,c")
	f(`a="x,y",b="z"`, `a="x,y"`, `b="z"`)
}

// TestEnvironment: lists reach flags that repeat, of the command that runs, unless the command line sets them.
func TestEnvironment(t *testing.T) {
	var list []string
	var text string
	build := func() *kingpin.Application {
		list, text = nil, ""
		app := kingpin.New("hearth", "").DefaultEnvars()
		app.Command("all", "").Default()
		c := app.Command("query", "")
		c.Flag("endpoint", "").StringsVar(&list)
		c.Flag("some.text", "").StringVar(&text)
		return app
	}
	t.Setenv("HEARTH_ENDPOINT", "a:1,b:2")
	t.Setenv("HEARTH_SOME_TEXT", "x,y")
	f := func(args, wantList []string, wantText string) {
		t.Helper()
		app := build()
		if _, err := app.Parse(withEnvironment(app, args)); err != nil || !slices.Equal(list, wantList) || text != wantText {
			t.Errorf("%q: %q, %q, error %v", args, list, text, err)
		}
	}
	f([]string{"query"}, []string{"a:1", "b:2"}, "x,y")
	f([]string{"query", "--endpoint=c:3"}, []string{"c:3"}, "x,y")
	f(nil, nil, "")
}

func TestUnknownVariables(t *testing.T) {
	app, _ := commands()
	got := unknownVariables(variables(app), []string{"HOME=/", "HEARTH_HTTP_ADDRESS=:1", "HEARTH_HTTP_ADRESS=:1",
		"HEARTH_SERVICE_HOST=10.0.0.1", "HEARTH_PORT=tcp://10.0.0.1:1", "HEARTH_QUERY_SERVICE_PORT_HTTP=1",
		"HEARTH_PORT_10902_TCP_ADDR=10.0.0.1", "HEARTH_TSDB_PATH=x"})
	if !slices.Equal(got, []string{"HEARTH_HTTP_ADRESS"}) {
		t.Errorf("got %q", got)
	}
}
