package pages

import (
	"reflect"
	"testing"
)

const sample = "# A page, with `code`\n" +
	"See [there](other.md#part) and `--flag` or ``a`b``.\n" +
	"\n" +
	"1. A list\n" +
	"\n" +
	"   ```yaml limits\n" +
	"   defaults:\n" +
	"     active_series: 1\n" +
	"   ```\n" +
	"\n" +
	"| what | query |\n" +
	"|---|---|\n" +
	"| one | `up{a=~\"x|y\"}` |\n" +
	"| none | nothing |\n" +
	"\n" +
	"```promql\n" +
	"sum(up)\n" +
	"```\n" +
	"```promql nothing\n" +
	"absent(up)\n" +
	"```\n"

func TestParse(t *testing.T) {
	p := parse("docs/operate/x.md", sample)
	f := func(name string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	f("blocks", p.Blocks(), []Block{
		{p.Path, 6, "yaml limits", "defaults:\n  active_series: 1\n"},
		{p.Path, 16, "promql", "sum(up)\n"},
		{p.Path, 19, "promql nothing", "absent(up)\n"},
	})
	f("code", p.Code(),
		[]Code{{p.Path, 1, "code"}, {p.Path, 2, "--flag"}, {p.Path, 2, "a`b"}, {p.Path, 13, `up{a=~"x|y"}`}})
	f("queries", p.Queries(), []Code{{p.Path, 16, "sum(up)\n"}, {p.Path, 13, `up{a=~"x|y"}`}})
	f("rows", p.Rows("what"), [][]string{{"one", "`up{a=~\"x|y\"}`"}, {"none", "nothing"}})
	f("links", p.Links(), []Link{{p.Path, 2, "other.md#part"}})
	f("anchors", p.Anchors(), map[string]bool{"a-page-with-code": true})
	f("for operators",
		[]bool{p.ForOperators(), parse("README.md", "").ForOperators(), parse("docs/design/1.md", "").ForOperators()},
		[]bool{true, true, false})
}
