package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	promparser "github.com/prometheus/prometheus/promql/parser"
)

var metricName = regexp.MustCompile(`\b(hearth|thanos_(alert|rule|shipper|sidecar)|prometheus_rule)_[a-z_]*[a-z]\b`)

// TestMetricsExist finds metrics in the alerts and in what operators read that no code has: renamed, or never there.
func TestMetricsExist(t *testing.T) {
	code := literals(t, "../..")
	exists := func(name string) bool {
		for _, suffix := range []string{"", "_count", "_sum", "_bucket"} {
			n, ok := strings.CutSuffix(name, suffix)
			if !ok {
				continue
			}
			for i := range len(n) + 1 { // many are put together from "hearth_part_" and the rest
				if i == len(n) && code[n] || i < len(n) && i > 0 && n[i-1] == '_' && code[n[:i]] && code[n[i:]] {
					return true
				}
			}
		}
		return false
	}
	if exists("hearth_no_such_metric") || !exists("hearth_tsdb_disk_full") ||
		!exists("hearth_distributor_requests_total") {
		t.Fatal("this test does not know what exists")
	}
	texts := []string{"../../deploy/alerts.yml"}
	for _, p := range documentation(t) {
		if p.ForOperators() {
			texts = append(texts, filepath.Join("../..", p.Path))
		}
	}
	for _, page := range texts {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, at := range metricName.FindAllStringIndex(line, -1) {
				name, more := line[at[0]:at[1]], line[at[1]:]
				if strings.HasPrefix(more, "_*") || strings.HasPrefix(more, "_(") {
					continue // a family of them
				}
				if !exists(name) {
					t.Errorf("%s:%d: no metric is called %s", page, i+1, name)
				}
			}
		}
	}
}

// TestAlerts checks that the rules are ones that Prometheus takes, and say what is wrong.
func TestAlerts(t *testing.T) {
	groups, faults := rulefmt.ParseFile("../../deploy/alerts.yml", false, model.UTF8Validation,
		promparser.NewParser(promparser.Options{}), slog.New(slog.DiscardHandler))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	rules := 0
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			rules++
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" {
				t.Errorf("%s has no summary", r.Alert)
			}
		}
	}
	if rules < 10 {
		t.Errorf("%d rules", rules)
	}
}

// literals are the string literals of all Go files below root but tests.
func literals(t *testing.T, root string) map[string]bool {
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if s, err := strconv.Unquote(l.Value); err == nil {
					found[s] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
