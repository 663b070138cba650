package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Standard                bool
	Module                  *struct{ Path string }
}

// packages are all packages of the module, and the export data of all that they import.
func packages(t *testing.T) (own []listed, exports map[string]string) {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Standard,Module", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	exports = map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return own, exports
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if p.Module != nil && p.Module.Path == module {
			own = append(own, p)
		}
	}
}

// logMethods are those of a logger that take a message and then keys with values.
var logMethods = map[string]bool{"Debug": true, "Info": true, "Warn": true, "Error": true}

// TestLogAttributes: a key of a log line has one type in the whole program. What stores logs in JSON refuses a line where
// a key that was a text is a number.
func TestLogAttributes(t *testing.T) {
	own, exports := packages(t)
	fset := token.NewFileSet()
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	imports := importer.ForCompiler(fset, "gc", lookup)
	type use struct{ class, at string }
	seen := map[string]use{}
	lines := 0
	for _, p := range own {
		files, info := typed(t, fset, imports, p)
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || !isLog(info, call) {
					return true
				}
				lines++
				for i := 1; i+1 < len(call.Args); i += 2 {
					lit, ok := call.Args[i].(*ast.BasicLit)
					if !ok {
						continue
					}
					key, _ := strconv.Unquote(lit.Value)
					is := use{classOf(info.TypeOf(call.Args[i+1])), fset.Position(lit.Pos()).String()}
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
	if lines < 100 {
		t.Errorf("only %d lines of the log were looked at", lines)
	}
}

// typed parses and checks a package.
func typed(t *testing.T, fset *token.FileSet, imports types.Importer, p listed) ([]*ast.File, *types.Info) {
	t.Helper()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	if _, err := (&types.Config{Importer: imports}).Check(p.ImportPath, fset, files, info); err != nil {
		t.Fatal(err)
	}
	return files, info
}

// isLog reports whether call writes a line with a *slog.Logger.
func isLog(info *types.Info, call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !logMethods[sel.Sel.Name] || len(call.Args) == 0 {
		return false
	}
	recv := info.TypeOf(sel.X)
	return recv != nil && recv.String() == "*log/slog.Logger"
}

// classOf is what a value of type t is in JSON, as cmd/hearth's logger writes it.
func classOf(t types.Type) string {
	if named, ok := types.Unalias(t).(*types.Named); ok && named.Obj().Type().String() == "time.Duration" {
		return "text"
	}
	switch u := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case u.Info()&types.IsBoolean != 0:
			return "boolean"
		case u.Info()&types.IsNumeric != 0:
			return "number"
		}
	case *types.Slice:
		if b, ok := u.Elem().Underlying().(*types.Basic); ok && b.Kind() == types.String {
			return "list of texts"
		}
	}
	return "text"
}
