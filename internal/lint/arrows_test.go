package lint

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows are the imports between the folders that have a layer, without the tests' and without what every folder may
// need: the kinds of error and the tenant's name.
func arrows(files []file) map[string][]string {
	all := map[string][]string{}
	for _, f := range files {
		from, ok := folderOf(f.dir)
		if f.test || !ok || layer[from] > 4 || generated(f.ast) {
			continue
		}
		for _, path := range f.imports() {
			dir, own := strings.CutPrefix(path, module+"/")
			if to, ok := folderOf(dir); own && ok && to != from && !everywhere[to] && !slices.Contains(all[from], to) {
				all[from] = append(all[from], to)
			}
		}
	}
	for from := range all {
		slices.Sort(all[from])
	}
	return all
}

// everywhere are folders to which an arrow says nothing.
var everywhere = map[string]bool{"internal/errs": true, "internal/tenant": true}

// TestArrows: the table "Who imports whom" of ARCHITECTURE.md is true.
func TestArrows(t *testing.T) {
	_, files := sources(t)
	all := arrows(files)
	var want []string
	for _, from := range slices.Sorted(maps.Keys(all)) {
		want = append(want, fmt.Sprintf("| `%s` | `%s` |", from, strings.Join(all[from], "`, `")))
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Who imports whom\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var got []string
	for _, line := range strings.Split(section, "\n") {
		if strings.HasPrefix(line, "| `") {
			got = append(got, line)
		}
	}
	if !found || !slices.Equal(got, want) {
		t.Errorf("docs/ARCHITECTURE.md, \"Who imports whom\", is not what the code says. Write:\n%s",
			strings.Join(want, "\n"))
	}
}
