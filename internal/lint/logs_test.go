package lint

import (
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// checker finds the types of the module's own declarations, without building anything: what other modules declare has
// no type here.
type checker struct {
	fset  *token.FileSet
	files map[string][]*ast.File // by folder, without tests
	done  map[string]*types.Package
	info  types.Info
}

// Import implements types.Importer.
func (c *checker) Import(path string) (*types.Package, error) {
	if p := c.done[path]; p != nil {
		return p, nil
	}
	dir, own := strings.CutPrefix(path, module+"/")
	if !own || c.files[dir] == nil {
		p := types.NewPackage(path, filepath.Base(path))
		p.MarkComplete()
		c.done[path] = p
		return p, nil
	}
	config := types.Config{Importer: c, Error: func(error) {}} // there are errors wherever another module is used
	p, _ := config.Check(path, c.fset, c.files[dir], &c.info)
	c.done[path] = p
	return p, nil
}

// logMethods are those of a logger that take a message and then keys with values.
var logMethods = map[string]bool{"Debug": true, "Info": true, "Warn": true, "Error": true}

// TestLogAttributes: a key of a log line has one type in the whole program. What stores logs in JSON refuses a line
// where a key that was a text is a number.
func TestLogAttributes(t *testing.T) {
	fset, all := sources(t)
	c := &checker{fset: fset, files: map[string][]*ast.File{}, done: map[string]*types.Package{},
		info: types.Info{Types: map[ast.Expr]types.TypeAndValue{}}}
	for _, f := range all {
		if !f.test {
			c.files[f.dir] = append(c.files[f.dir], f.ast)
		}
	}
	type use struct{ class, at string }
	seen := map[string]use{}
	lines := 0
	for dir, files := range c.files {
		if _, err := c.Import(module + "/" + dir); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || !isLog(call) {
					return true
				}
				lines++
				for i := 1; i+1 < len(call.Args); i += 2 {
					lit, ok := call.Args[i].(*ast.BasicLit)
					if !ok {
						continue
					}
					key, _ := strconv.Unquote(lit.Value)
					is := use{classOf(c.info.TypeOf(call.Args[i+1])), fset.Position(lit.Pos()).String()}
					if is.class == "" {
						continue
					}
					if was, twice := seen[key]; twice && was.class != is.class {
						t.Errorf("%s: %q is a %s here and a %s at %s", is.at, key, is.class, was.class, was.at)
					} else {
						seen[key] = is
					}
				}
				return true
			})
		}
	}
	if lines < 100 || len(seen) < 40 {
		t.Errorf("only %d lines of the log with %d keys were looked at", lines, len(seen))
	}
}

// isLog reports whether call writes a line of the log.
func isLog(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !logMethods[sel.Sel.Name] || len(call.Args) == 0 {
		return false
	}
	switch x := sel.X.(type) {
	case *ast.Ident:
		return x.Name == "log"
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "log")
	}
	return false
}

// classOf is what a value of type t is in JSON, as cmd/hearth's logger writes it, "" where that is not known:
// durations and errors of other modules are texts.
func classOf(t types.Type) string {
	if t == nil {
		return ""
	}
	switch u := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case u.Info()&types.IsBoolean != 0:
			return "boolean"
		case u.Info()&types.IsNumeric != 0:
			return "number"
		case u.Info()&types.IsString == 0: // not known
			return ""
		}
	case *types.Slice:
		if b, ok := u.Elem().Underlying().(*types.Basic); ok && b.Kind() == types.String {
			return "list of texts"
		}
	}
	return "text"
}
