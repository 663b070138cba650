package rewrite

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/hearth-metrics/hearth/block"
)

// TestAsThanos: floats, labels that all series have, and rules that make no two series one, which is where Thanos is
// right: the same series and samples. Thanos's verify has nothing to say of our block.
//
// Not compared, since Thanos does something else, by its source: a matcher of a label that a series lacks never
// matches, and chunks are encoded anew as floats.
func TestAsThanos(t *testing.T) {
	thanos := os.Getenv("HEARTH_THANOS")
	if thanos == "" {
		t.Skip("HEARTH_THANOS names no binary of Thanos")
	}
	run := func(dir string, args ...string) {
		t.Helper()
		args = append([]string{"tools", "bucket"}, args...)
		args = append(args, fmt.Sprintf("--objstore.config={type: FILESYSTEM, config: {directory: %q}}", dir))
		if out, err := exec.Command(thanos, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	for round, c := range []struct{ deletes, rules string }{
		{`[{matchers: '{i="3"}'}]`, ""},
		{`[{matchers: '{i=~"3|4", __name__!="m1"}', intervals: [{mint: 100, maxt: 900}, {mint: 3000, maxt: 3500}]}]`, ""},
		{`[{matchers: '{i!~"1.*"}', intervals: [{mint: 1000, maxt: 1000}]}, {matchers: '{id="12"}'}]`, ""},
		{`[{matchers: '{new="m2"}', intervals: [{mint: -5, maxt: 2000}]}]`,
			`[{source_labels: [__name__], target_label: new}]`},
		{"", `[{source_labels: [i], regex: 1, action: drop}, {source_labels: [kind, id], target_label: id, separator: _}]`},
	} {
		r := rand.New(rand.NewPCG(9, uint64(round)))
		m := randomBlock(t, r, 30, 0)
		deletions, err := ParseDeletions("x", []byte(c.deletes))
		if err != nil {
			t.Fatal(err)
		}
		cfg := &Config{Deletions: deletions, Relabels: rulesOf(t, c.rules)}
		ours, _, err := Block(t.Context(), m.bkt, m.meta, cfg, small(t))
		if err != nil {
			t.Fatal(err)
		}
		before := names(t, m.bkt)
		args := []string{"rewrite", "--no-dry-run", "--prom-blocks", "--id=" + m.meta.ULID.String(),
			"--tmp.dir=" + t.TempDir() + "/x"}
		if c.deletes != "" {
			args = append(args, "--rewrite.to-delete-config="+c.deletes)
		}
		if c.rules != "" {
			args = append(args, "--rewrite.to-relabel-config="+c.rules)
		}
		run(m.dir, args...)
		compared := false
		for _, name := range names(t, m.bkt) {
			if id, ok := block.ParseID(name); ok && !slices.Contains(before, name) && name == block.Object(id, block.MetaName) {
				want, _ := read(t, m.dir, id)
				got, _ := read(t, m.dir, ours.ULID)
				compare(t, got, want)
				compared = true
			}
		}
		if !compared {
			t.Errorf("round %d: Thanos made no block", round)
		}
		run(m.dir, "verify", "--id="+ours.ULID.String(), "-i", "index_known_issues")
	}
}
