package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/hearth-metrics/hearth"

// layer of each folder, by longest path prefix. A folder that is not listed fails the test: give it a layer when it
// deserves a name.
var layer = map[string]int{
	"cmd/hearth": 4,

	"distributor": 3,
	"receive":     3,
	"store":       3,
	"sidecar":     3,
	"query":       3,
	"web":         3,
	"rule":        3,
	// listed, so that it cannot import query: it asks a querier by HTTP, or by an interface that cmd binds
	"query/frontend": 3,

	"tsdb":           2,
	"compact":        3,
	"block":          2,
	"ring":           2,
	"internal/rpc":   2,
	"tsdb/repair":    2,
	"tsdb/tenantdir": 2,
	"tsdb/seriesref": 2,
	"tsdb/capacity":  2,

	"block/bucketindex":   1,
	"block/deletion":      1,
	"internal/wire":       1,
	"internal/series":     1,
	"internal/tenant":     1,
	"internal/run":        1,
	"internal/httpx":      1,
	"internal/pb":         1,
	"internal/selfscrape": 1,
	"internal/gokit":      1,
	"internal/memory":     1,
	"internal/expr":       1,
	"internal/tracing":    1,
	"internal/promapi":    1,
	"internal/rulestate":  1,

	"internal/errs":       0,
	"internal/secret":     0,
	"internal/version":    0,
	"internal/filewatch":  0,
	"internal/conf":       0,
	"internal/atomicfile": 0,
	"internal/xor":        0,

	"internal/lint": 5,
	"test":          5,
	"bench":         5,

	"internal/pages": 0,
}

// sideways lists the imports allowed inside one layer.
var sideways = map[string]bool{
	"block/deletion internal/expr": true, // selectors of requests are bounded before they are parsed
	"tsdb tsdb/repair":             true, "tsdb tsdb/tenantdir": true, "tsdb/repair tsdb/tenantdir": true,
	"tsdb tsdb/seriesref": true, "tsdb tsdb/capacity": true,
	"internal/secret internal/errs": true, "internal/promapi internal/httpx": true,
	"internal/wire internal/tenant": true, "internal/series internal/tenant": true, "internal/httpx internal/tenant": true,
	"internal/httpx internal/tracing": true,
	"internal/httpx internal/memory":  true,
	"internal/memory internal/tenant": true, "internal/series internal/expr": true,
	"internal/rulestate internal/expr": true, "internal/rulestate internal/httpx": true,
	"internal/rulestate internal/promapi": true, "internal/rulestate internal/tenant": true,
	"block/deletion internal/tenant":    true,
	"internal/tenant internal/expr":     true,
	"internal/selfscrape internal/wire": true, "internal/selfscrape internal/tenant": true,
}

// only names libraries that one folder keeps to itself.
var only = map[string]string{
	"google.golang.org/grpc":               "internal/rpc",
	"github.com/grafana/dskit/kv":          "ring/gossip",
	"github.com/grafana/dskit/ring":        "ring/gossip",
	"github.com/alecthomas/kingpin/v2":     "cmd",
	"github.com/thanos-io/objstore/client": "block",

	"github.com/prometheus/prometheus/promql/parser": "internal/expr", // it recurses as deep as its input is nested
}

// except names parts of those libraries that one more folder may import.
var except = map[string]string{
	"google.golang.org/grpc/credentials": "internal/tracing", // the TLS of the exporter of spans
}

// outsiders ask Hearth as foreign programs do, by the protocol alone. As in tests, that needs the libraries themselves.
var outsiders = map[string]bool{"bench/gateway": true}

func folderOf(dir string) (string, bool) {
	for p := dir; p != "." && p != "/"; p = filepath.Dir(p) {
		if _, ok := layer[p]; ok {
			return p, true
		}
	}
	return "", false
}

func checkImport(from, to string) error {
	fromFolder, ok := folderOf(from)
	if !ok {
		return fmt.Errorf("%s has no layer: list it in internal/lint", from)
	}
	toFolder, ok := folderOf(to)
	if !ok {
		return fmt.Errorf("%s has no layer: list it in internal/lint", to)
	}
	switch {
	case fromFolder == toFolder:
		return nil
	case sideways[fromFolder+" "+toFolder]:
		return nil
	case layer[fromFolder] == 3 && layer[toFolder] == 3:
		return fmt.Errorf("%s imports %s: components meet only in cmd", from, to)
	case layer[toFolder] >= layer[fromFolder]:
		return fmt.Errorf("%s (L%d) imports %s (L%d): imports point down", from, layer[fromFolder], to, layer[toFolder])
	}
	return nil
}

func TestCheckImport(t *testing.T) {
	f := func(from, to string, want bool) {
		t.Helper()
		if err := checkImport(from, to); (err == nil) != want {
			t.Fatalf("%s -> %s: %v, want allowed=%v", from, to, err, want)
		}
	}
	f("receive", "tsdb", true)
	f("tsdb", "receive", false)
	f("receive", "store", false)
	f("query/frontend", "query", false)
	f("query/frontend", "query/endpoints", false)
	f("query", "query/frontend", false)
	f("query/endpoints", "query", true)
	f("query/frontend", "internal/promapi", true)
	f("ring/gossip", "ring", true)
	f("tsdb", "tsdb/repair", true)
	f("tsdb/repair", "tsdb", false)
	f("tsdb", "block/indexheader", false)
	f("block", "tsdb", false)
	f("cmd/hearth", "query", true)
	f("unheard/of", "tsdb", false)
	f("internal/errs", "internal/tenant", false)
}

type file struct {
	path, dir string
	test      bool
	ast       *ast.File
}

// tree is the code of the repository.
type tree struct {
	fset  *token.FileSet
	files []file
}

var parsed = sync.OnceValues(parse)

// sources is all Go code, parsed once. Nobody changes it.
func sources(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all.fset, all.files
}

// imports are the paths that f imports.
func (f file) imports() (paths []string) {
	for _, imp := range f.ast.Imports {
		path, _ := strconv.Unquote(imp.Path.Value)
		paths = append(paths, path)
	}
	return paths
}

// within reports whether path is root or below it.
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func parse() (tree, error) {
	root := filepath.Join("..", "..")
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() {
			skipped := map[string]bool{"testdata": true, "node_modules": true}
			if rel == "data" || rel == "bin" || skipped[d.Name()] || strings.HasPrefix(d.Name(), ".") && rel != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file{path: rel, dir: filepath.Dir(rel), test: strings.HasSuffix(p, "_test.go"), ast: f})
		return nil
	})
	if err == nil && len(files) < 20 {
		err = fmt.Errorf("found only %d Go files under %s: the walk is broken", len(files), root)
	}
	return tree{fset, files}, err
}

func TestLayers(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		for _, path := range f.imports() {
			for lib, owner := range only {
				kept := within(path, lib) && !strings.HasPrefix(f.dir, owner)
				if kept && except[path] != f.dir && !f.test && !outsiders[f.dir] && !generated(f.ast) {
					t.Errorf("%s imports %s: only %s does", f.path, path, owner)
				}
			}
			to, own := strings.CutPrefix(path, module+"/")
			if !own || f.test { // a test may use any package of the house
				continue
			}
			if err := checkImport(f.dir, to); err != nil {
				t.Errorf("%s: %v", f.path, err)
			}
		}
		if _, ok := folderOf(f.dir); !ok {
			t.Errorf("%s: folder %s has no layer: list it in internal/lint", f.path, f.dir)
		}
	}
}

func generated(f *ast.File) bool { return ast.IsGenerated(f) }

func TestComments(t *testing.T) {
	fset, files := sources(t)
	documented := map[string]bool{}
	seen := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		seen[f.dir] = true
		if f.ast.Doc != nil {
			documented[f.dir] = true
		}
		if generated(f.ast) {
			documented[f.dir] = true
			continue
		}
		for _, name := range undocumented(f.ast) {
			t.Errorf("%s: exported %s has no comment", fset.Position(f.ast.Pos()).Filename, name)
		}
	}
	for dir := range seen {
		if !documented[dir] {
			t.Errorf("%s: the package has no comment", dir)
		}
	}
}

// undocumented lists the exported top-level symbols and methods of exported types without a comment.
func undocumented(f *ast.File) []string {
	var names []string
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
				names = append(names, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				names = append(names, undocumentedSpec(d, s)...)
			}
		}
	}
	return names
}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func undocumentedSpec(d *ast.GenDecl, s ast.Spec) []string {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
			return []string{s.Name.Name}
		}
	case *ast.ValueSpec:
		if s.Doc != nil || s.Comment != nil || d.Doc != nil {
			return nil
		}
		var names []string
		for _, n := range s.Names {
			if n.IsExported() {
				names = append(names, n.Name)
			}
		}
		return names
	}
	return nil
}

// TestTree refuses what does not belong into the repository.
func TestTree(t *testing.T) {
	for _, bad := range []string{"pkg", "util", "common", "utils"} {
		if _, err := os.Stat(filepath.Join("..", "..", bad)); err == nil {
			t.Errorf("a folder %s/ says nothing: name what is in it", bad)
		}
	}
}

// TestPatterns: regular expressions that a request names are compiled by internal/expr only, which bounds them first.
// Constant ones may use the functions that panic.
func TestPatterns(t *testing.T) {
	fset, files := sources(t)
	compilers := map[string]bool{
		"labels.NewMatcher": true, "labels.NewFastRegexMatcher": true, "regexp.Compile": true, "regexp.CompilePOSIX": true,
		"syntax.Parse": true, "remote.FromLabelMatchers": true,
	}
	for _, f := range files {
		if f.test || f.dir == "internal/expr" || strings.HasPrefix(f.dir, "bench") || generated(f.ast) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && compilers[pkg.Name+"."+sel.Sel.Name] {
				t.Errorf("%s: %s.%s: use internal/expr for what comes from outside", fset.Position(sel.Pos()), pkg.Name,
					sel.Sel.Name)
			}
			return true
		})
	}
}
