package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/pages"
)

// operatorPages are the pages that somebody who runs Hearth follows, by path.
func operatorPages(t *testing.T) map[string]pages.Page {
	t.Helper()
	all, err := pages.Read("..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]pages.Page{}
	for _, p := range all {
		if p.ForOperators() {
			found[filepath.ToSlash(p.Path)] = p
		}
	}
	return found
}

// blockOf is the one block of a kind on a page.
func blockOf(t *testing.T, p pages.Page, kind string) string {
	t.Helper()
	text := ""
	for _, b := range p.Blocks() {
		if b.Kind == kind && text != "" {
			t.Fatalf("%s has several blocks of kind %q", p.Path, kind)
		}
		if b.Kind == kind {
			text = b.Text
		}
	}
	if text == "" {
		t.Fatalf("%s has no block of kind %q", p.Path, kind)
	}
	return text
}

// replaced is text with each of the pairs' first parts, which must be there, replaced by its second.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// found is an error unless the query has a result.
func found(a api, query string) error {
	ans, err := a.query(query, time.Now())
	if err != nil {
		return err
	}
	var data struct{ Result []json.RawMessage }
	if err := json.Unmarshal(ans.Data, &data); err != nil {
		return err
	}
	if len(data.Result) == 0 {
		return errors.New("nothing is found")
	}
	return nil
}

// scrapes are of a Prometheus itself and of Hearth.
const scrapes = `scrape_configs:
- job_name: prometheus
  static_configs: [{targets: ['%s']}]
- job_name: hearth
  static_configs: [{targets: ['%s']}]
`

// TestDocumentedQueries follows ha-pairs.md with two real Prometheus servers, and asks everything that the pages tell
// people to ask: of a Prometheus that scrapes itself and Hearth, each query finds something.
func TestDocumentedQueries(t *testing.T) {
	t.Parallel()
	all := operatorPages(t)
	recipe := all["docs/operate/ha-pairs.md"]
	limits := filepath.Join(t.TempDir(), "limits.yml")
	writeFile(t, limits,
		replaced(t, blockOf(t, recipe, "yaml limits"), "ha_pairs: true", "ha_pairs: true, active_series: 100_000"))
	_, base := startAll(t, t.TempDir(), "--runtime-config.file="+limits, "--gossip.address="+addr(freePorts(t, 1)[0]))
	var first api
	for replica := range 2 {
		_, prom := startPrometheus(t, func(self string) string {
			return replaced(t, blockOf(t, recipe, "yaml prometheus"), "http://hearth:10902", base, "global:\n",
				"global:\n  scrape_interval: 1s\n", "prometheus-0",
				fmt.Sprint("prometheus-", replica)) + fmt.Sprintf(scrapes, self, strings.TrimPrefix(base, "http://"))
		})
		if replica == 0 {
			first = api{base: prom}
		}
	}
	queries := 0
	for _, p := range all {
		for _, q := range p.Queries() {
			queries++
			eventually(t, 90*time.Second, func() error {
				if err := found(first, q.Text); err != nil {
					return fmt.Errorf("%s:%d: %s: %w", q.Page, q.Line, q.Text, err)
				}
				return nil
			})
		}
	}
	if queries < 8 {
		t.Errorf("%d queries: this test does not find them", queries)
	}
	acme := api{base: base, header: tenantHeader("acme")}
	eventually(t, 30*time.Second, func() error { return found(acme, `up{cluster="eu-1",job="prometheus"}`) })
	nothing := strings.TrimSpace(blockOf(t, recipe, "promql nothing"))
	if err := found(acme, nothing); err == nil {
		t.Errorf("%s: %s finds something", recipe.Path, nothing)
	}
	namesExist(t, all, base)
}

// libraryMetric is the name of a metric that Hearth's libraries have. Names that begin with hearth_ are looked for in
// the code, by internal/lint, since some are there only when something is wrong.
var libraryMetric = regexp.MustCompile(`\b(prometheus_tsdb|memberlist|go|process|thanos_objstore|grpc)_[a-z_]*[a-z]\b`)

// namesExist finds metrics of libraries on the pages that a process does not have.
func namesExist(t *testing.T, all map[string]pages.Page, base string) {
	t.Helper()
	text, err := get(base+"/metrics", http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, p := range all {
		for _, c := range append(p.Code(), p.Queries()...) {
			for _, at := range libraryMetric.FindAllStringIndex(c.Text, -1) {
				name := c.Text[at[0]:at[1]]
				if strings.HasPrefix(c.Text[at[1]:], "_*") || strings.HasPrefix(c.Text[at[1]:], "*") {
					continue // a family of them
				}
				names++
				if !strings.Contains(string(text), "\n# TYPE "+name+" ") {
					t.Errorf("%s:%d: no metric is called %s", c.Page, c.Line, name)
				}
			}
		}
	}
	if names < 5 {
		t.Errorf("%d metrics: this test does not find them", names)
	}
}
