package lint

import (
	"bufio"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// What a page of code may ask of its reader. Longer lines wrap in a review beside another one, longer functions do not
// fit a screen, and more parameters or imports are more than a reader keeps in mind.
const (
	longestLine     = 120 // characters
	longestFunction = 100 // lines
	mostParameters  = 6
	mostImports     = 8 // of the house, by one package
)

// TestLineLength: generated files are as their generator writes them. In tests the text of strings does not count: an
// expected text is easier to read, and to search for, as a whole.
func TestLineLength(t *testing.T) {
	fset, files := sources(t)
	lines := 0
	for _, f := range files {
		if generated(f.ast) {
			continue
		}
		text := map[int]bool{} // lines within a string
		if f.test {
			text = linesOfText(fset, f.ast)
		}
		in, err := os.Open(filepath.Join("..", "..", f.path))
		if err != nil {
			t.Fatal(err)
		}
		scan := bufio.NewScanner(in)
		scan.Buffer(nil, 1<<20)
		for n := 1; scan.Scan(); n++ {
			lines++
			line := scan.Bytes()
			if f.test {
				line = quoted.ReplaceAll(line, nil)
			}
			if long := utf8.RuneCount(line); long > longestLine && !text[n] {
				t.Errorf("%s:%d: %d characters, at most %d", f.path, n, long, longestLine)
			}
		}
		if err := scan.Err(); err != nil {
			t.Errorf("%s: %v", f.path, err)
		}
		in.Close()
	}
	if lines < 10000 {
		t.Errorf("%d lines: this test does not read them", lines)
	}
}

// linesOfText are the lines of strings that have several.
func linesOfText(fset *token.FileSet, f *ast.File) map[int]bool {
	lines := map[int]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.BasicLit); ok {
			from, to := fset.Position(s.Pos()).Line, fset.Position(s.End()).Line
			for line := from; from < to && line <= to; line++ {
				lines[line] = true
			}
		}
		return true
	})
	return lines
}

var quoted = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`?")

// retired are the words and phrases that CONTRIBUTING.md's glossary takes out of use, with what is written instead.
var retired = []struct{ pattern, instead string }{
	{`so many`, "that many, or the number"},
	{`but for`, "except"},
	{`(is|are|was|were|be|been) told`, "name who tells whom"},
	{`(is|are|was) had`, "exists"},
	{`what became of`, "the outcome of"},
	{`rooms?`, "budget, or disk space"},
	{`crew`, "workers"},
	{`wedge[ds]?`, "stuck"},
	{`vnodes?`, "token"},
	{`time ?span`, "time range"},
}

func retiredPattern() *regexp.Regexp {
	var all []string
	for _, w := range retired {
		all = append(all, w.pattern)
	}
	return regexp.MustCompile(`(?i)\b(` + strings.Join(all, "|") + `)\b`)
}

// TestWords reads the comments of all code, tests too.
func TestWords(t *testing.T) {
	fset, files := sources(t)
	words := retiredPattern()
	for _, sentence := range []string{"so many", "it is told", "Rooms"} {
		if !words.MatchString(sentence) {
			t.Fatalf("%q is not found", sentence)
		}
	}
	for _, f := range files {
		if generated(f.ast) {
			continue
		}
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if found := words.FindString(c.Text); found != "" {
					t.Errorf("%s: %q: write %s", fset.Position(c.Pos()), found, insteadOf(found))
				}
			}
		}
	}
}

func insteadOf(found string) string {
	for _, w := range retired {
		if regexp.MustCompile(`(?i)^` + w.pattern + `$`).MatchString(found) {
			return w.instead
		}
	}
	return "another word"
}

func TestFunctions(t *testing.T) {
	fset, files := sources(t)
	functions := 0
	for _, f := range files {
		if f.test || generated(f.ast) {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			functions++
			at, end := fset.Position(fn.Pos()), fset.Position(fn.End())
			if lines := end.Line - at.Line + 1; lines > longestFunction {
				t.Errorf("%s: %s has %d lines, at most %d", at, fn.Name.Name, lines, longestFunction)
			}
			if n := fn.Type.Params.NumFields(); n > mostParameters && !dictated[f.dir+" "+fn.Name.Name] {
				t.Errorf("%s: %s has %d parameters, at most %d", at, fn.Name.Name, n, mostParameters)
			}
		}
	}
	if functions < 1000 {
		t.Errorf("%d functions: this test does not find them", functions)
	}
}

// dictated are methods whose parameters an interface of a library names.
var dictated = map[string]bool{
	"internal/wire/otlp Append": true, // storage.Appender of Prometheus
	"query NewRangeQuery":       true, // promql.QueryEngine
	"rule Append":               true, // storage.AppenderV2
	"rule/remotewrite Append":   true, // storage.AppenderV2
}

// adapters are packages that bring several parts of the house into one protocol, or hide or erase samples beside what
// they are for (docs/design/040-series-deletion.md), with how many more they import.
var adapters = map[string]int{"internal/rpc": 1, "query": 1, "compact": 1, "receive": 1, "store": 1}

// TestOwnImports: packages that need more of the house than this do more than one thing. Generated packages count as
// one.
func TestOwnImports(t *testing.T) {
	_, files := sources(t)
	imports := map[string][]string{}
	for _, f := range files {
		if f.test || strings.HasPrefix(f.dir, "cmd/") || generated(f.ast) {
			continue
		}
		for _, path := range f.imports() {
			to, own := strings.CutPrefix(path, module+"/")
			if strings.HasPrefix(to, "internal/pb/") {
				to = "internal/pb"
			}
			if own && !slices.Contains(imports[f.dir], to) {
				imports[f.dir] = append(imports[f.dir], to)
			}
		}
	}
	if len(imports) < 20 {
		t.Errorf("%d packages with imports: this test does not find them", len(imports))
	}
	for dir, all := range imports {
		if len(all) > mostImports+adapters[dir] {
			slices.Sort(all)
			t.Errorf("%s imports %d packages of the house, at most %d: %s", dir, len(all), mostImports, strings.Join(all, ", "))
		}
	}
}
