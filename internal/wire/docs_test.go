package wire

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestDocumentedVectors: what docs/format gives as examples is what the code does.
func TestDocumentedVectors(t *testing.T) {
	f := func(file string, words ...string) {
		t.Helper()
		page, err := os.ReadFile("../../docs/format/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range words {
			if !strings.Contains(string(page), w) {
				t.Errorf("%s does not hold %s", file, w)
			}
		}
	}
	f("write-frame.md", hex.EncodeToString(AppendShard(nil, All(goldenBatch()))))
	for _, ls := range goldenLabels {
		full := AppendLabels(AppendTenant(nil, ls.tenant), labels.FromStrings(ls.labels...))
		_, hash := Identify(full)
		f("series-key.md", hex.EncodeToString(full), fmt.Sprintf("hash %016x", hash))
	}
}
