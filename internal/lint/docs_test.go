package lint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	promparser "github.com/prometheus/prometheus/promql/parser"

	"github.com/hearth-metrics/hearth/internal/pages"
)

// documentation is every page.
func documentation(t *testing.T) []pages.Page {
	t.Helper()
	all, err := pages.Read("../..")
	if err != nil || len(all) < 20 {
		t.Fatalf("%d pages, %v", len(all), err)
	}
	return all
}

// TestLinks finds links to files and headings that do not exist.
func TestLinks(t *testing.T) {
	anchors := map[string]map[string]bool{}
	all, links := documentation(t), 0
	for _, p := range all {
		anchors[filepath.ToSlash(p.Path)] = p.Anchors()
	}
	for _, p := range all {
		for _, l := range p.Links() {
			if strings.Contains(l.Target, "://") {
				continue
			}
			links++
			path, anchor, hasAnchor := strings.Cut(l.Target, "#")
			to := filepath.ToSlash(p.Path)
			if path != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(p.Path), path))
			}
			if _, err := os.Stat(filepath.Join("../..", to)); err != nil {
				t.Errorf("%s:%d: no file is called %s", l.Page, l.Line, to)
			} else if hasAnchor && !anchors[to][anchor] {
				t.Errorf("%s:%d: %s has no heading #%s", l.Page, l.Line, to, anchor)
			}
		}
	}
	if links < 50 {
		t.Errorf("%d links: this test does not find them", links)
	}
}

// TestBlockKinds: a block of a kind that no test knows is a block that no test tries.
func TestBlockKinds(t *testing.T) {
	known := map[string]bool{"sh": true, "promql": true, "promql nothing": true,
		"yaml prometheus": true, "yaml limits": true, "yaml users": true, "yaml web": true,
		"yaml objstore": true, "yaml index-cache": true, "yaml caching-bucket": true, "yaml flags": true, "yaml collector": true, "yaml tracing": true,
		"yaml requests": true, "yaml deletions": true, "yaml alertmanagers": true, "json hashrings": true, "text": true}
	parser, blocks := promparser.NewParser(promparser.Options{}), 0
	for _, p := range documentation(t) {
		if !p.ForOperators() {
			continue
		}
		for _, b := range p.Blocks() {
			blocks++
			if !known[b.Kind] {
				t.Errorf("%s:%d: a block of kind %q: CONTRIBUTING.md has the kinds", b.Page, b.Line, b.Kind)
			}
			if b.Kind == "promql nothing" {
				if _, err := parser.ParseExpr(b.Text); err != nil {
					t.Errorf("%s:%d: %v", b.Page, b.Line, err)
				}
			}
		}
		for _, q := range p.Queries() { // test/docs_test.go runs them
			if _, err := parser.ParseExpr(q.Text); err != nil {
				t.Errorf("%s:%d: %v", q.Page, q.Line, err)
			}
		}
	}
	if blocks < 10 {
		t.Errorf("%d blocks: this test does not find them", blocks)
	}
}
