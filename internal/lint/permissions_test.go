package lint

import (
	"strings"
	"testing"
)

// TestPermissionsAreUsed finds entries of sideways and only that nothing needs: whoever reads the tables would think
// that the import is there. Remove such an entry.
func TestPermissionsAreUsed(t *testing.T) {
	_, files := sources(t)
	usedSideways, usedOnly := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		for _, path := range f.imports() {
			for lib, owner := range only {
				if within(path, lib) && strings.HasPrefix(f.dir, owner) {
					usedOnly[lib] = true
				}
			}
			to, own := strings.CutPrefix(path, module+"/")
			fromFolder, fromOK := folderOf(f.dir)
			toFolder, toOK := folderOf(to)
			if own && fromOK && toOK && layer[toFolder] >= layer[fromFolder] {
				usedSideways[fromFolder+" "+toFolder] = true
			}
		}
	}
	for pair := range sideways {
		if !usedSideways[pair] {
			t.Errorf("sideways allows %q, and nothing needs it", pair)
		}
	}
	for lib, owner := range only {
		if !usedOnly[lib] {
			t.Errorf("only keeps %s to %s, which does not import it", lib, owner)
		}
	}
}
