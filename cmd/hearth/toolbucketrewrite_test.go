package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// blocksAndMarks are the blocks in a bucket that is a directory, and whether each is marked for deletion.
func blocksAndMarks(t *testing.T, dir string) map[ulid.ULID]bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[ulid.ULID]bool{}
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if _, err := os.Stat(filepath.Join(dir, e.Name(), block.MetaName)); !ok || err != nil {
			continue
		}
		_, err := os.Stat(filepath.Join(dir, e.Name(), block.DeletionMarkName))
		all[id] = err == nil
	}
	return all
}

// TestToolRewrite: it says what it would do, does it once, by a plan or at once, marks what its flags name, and refuses
// what is not as it was.
func TestToolRewrite(t *testing.T) {
	dir, local, tmp := t.TempDir(), t.TempDir(), t.TempDir()
	id := localBlock(t, local, 1_700_000_000_000, 1, "")
	runTool(t, 0, dir, "bucket", "upload-blocks", "--path="+local, "--label=a=b")
	base := []string{"bucket", "rewrite", "--id=" + id.String(), "--tmp.dir=" + tmp}
	deletes := append(base, `--rewrite.to-delete-config=[{matchers: '{i=~"1|2"}'}, {matchers: '{i="3", no=""}', intervals: [{mint: 1700000000000, maxt: 1700000100000}]}]`)
	says := "10 series, of which 2 are deleted, 1 cut, 0 dropped, 0 relabelled, 0 united with others"

	out, log := runTool(t, 0, dir, deletes...)
	if !strings.HasPrefix(out, "planned rewrite "+id.String()) || !strings.Contains(out, says) || len(blocksAndMarks(t, dir)) != 1 {
		t.Errorf("%s%s", out, log)
	}
	found, err := filepath.Glob(filepath.Join(tmp, "*", changeLogName))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if raw, err := os.ReadFile(found[0]); err != nil || strings.Count(string(raw), "Deleted {") != 3 ||
		!strings.Contains(string(raw), `Deleted {__name__="up", i="3"} [{1700000000000 1700000100000}]`) {
		t.Errorf("%v: %s", err, raw)
	}

	plan := filepath.Join(t.TempDir(), "plan.json")
	runTool(t, 0, dir, append(deletes, "--delete-blocks", "--plan-out="+plan)...)
	other := []string{"bucket", "rewrite", "--tmp.dir=" + tmp, "--plan-in=" + plan, `--rewrite.to-delete-config=[{matchers: '{i="1"}'}]`}
	if out, _ := runTool(t, 1, dir, other...); !strings.Contains(out, "the plan was made with another configuration") {
		t.Error(out)
	}
	if len(blocksAndMarks(t, dir)) != 1 {
		t.Error("a refused plan made a block")
	}
	runTool(t, 0, dir, append(deletes, "--plan-in="+plan)...)
	after := blocksAndMarks(t, dir)
	if len(after) != 2 || !after[id] {
		t.Fatalf("%v", after)
	}
	runTool(t, 0, dir, "bucket", "verify", "--deep")
	if audits, _ := filepath.Glob(filepath.Join(dir, "hearth", "audit", "*", "*.json")); len(audits) != 2 {
		t.Errorf("%d audit objects", len(audits))
	}
	if out, log := runTool(t, 0, dir, append(deletes, "--no-dry-run")...); out != "" || !strings.Contains(log, "it is marked for deletion") {
		t.Errorf("%s%s", out, log)
	}

	var made ulid.ULID
	for one, marked := range after {
		if !marked {
			made = one
		}
	}
	again := []string{"bucket", "rewrite", "--id=" + made.String(), "--tmp.dir=" + tmp, "--no-dry-run"}
	nothing := append(again, `--rewrite.to-delete-config=[{matchers: '{i="1"}'}]`)
	if out, _ := runTool(t, 0, dir, nothing...); !strings.HasPrefix(out, "already rewrite ") || len(blocksAndMarks(t, dir)) != 2 {
		t.Error(out)
	}
	collide := append(again, `--rewrite.to-relabel-config=[{action: labeldrop, regex: i}]`)
	if out, _ := runTool(t, 1, dir, append(collide, "--rewrite.refuse-collisions")...); !strings.Contains(out, "7 series get labels that another series has") {
		t.Error(out)
	}
	if out, log := runTool(t, 0, dir, collide...); len(blocksAndMarks(t, dir)) != 3 || !strings.Contains(log, "7 united with others") {
		t.Errorf("%s%s", out, log)
	}
	if _, log := runTool(t, 0, dir, nothing...); !strings.Contains(log, "replaces it") {
		t.Error(log)
	}

	// Nothing is left: the block is marked.
	late := localBlock(t, local, 1_700_900_000_000, 1, "")
	runTool(t, 0, dir, "bucket", "upload-blocks", "--path="+local, "--label=a=b")
	all := []string{"bucket", "rewrite", "--id=" + late.String(), "--tmp.dir=" + tmp, "--no-dry-run", `--rewrite.to-delete-config=[{matchers: '{i!="x"}'}]`}
	runTool(t, 0, dir, all...)
	if after := blocksAndMarks(t, dir); len(after) != 4 || !after[late] {
		t.Errorf("%v", after)
	}

	runTool(t, 2, dir, base...)
	runTool(t, 2, dir, append(base, `--rewrite.to-delete-config=[{matcher: '{i="1"}'}]`)...)
	runTool(t, 2, dir, append(base, `--rewrite.to-delete-config=[{matchers: '{}'}]`)...)
	runTool(t, 2, dir, "bucket", "rewrite", `--rewrite.to-delete-config=[{matchers: '{i="1"}'}]`)
}

// TestToolRewriteDownsampled: a downsampled block is left alone while the block is there that it was made of. With both
// rewritten there would be two of them.
func TestToolRewriteDownsampled(t *testing.T) {
	dir := t.TempDir()
	raw := longBlock(t, dir, map[string]string{"tenant_id": "a"})
	runTool(t, 0, dir, "bucket", "downsample", "--data-dir="+t.TempDir())
	five := ""
	for name, text := range tree(t, dir) {
		id, ok := block.ParseID(name)
		if ok && strings.HasSuffix(name, "/"+block.MetaName) && strings.Contains(text, "300000") {
			five = id.String()
		}
	}
	rewrite := []string{"bucket", "rewrite", "--id=" + five, "--tmp.dir=" + t.TempDir(),
		`--rewrite.to-delete-config=[{matchers: '{i="1"}'}]`}
	if out, log := runTool(t, 0, dir, rewrite...); out != "" || !strings.Contains(log, raw.String()) {
		t.Errorf("%s%s", out, log)
	}
	runTool(t, 0, dir, "bucket", "mark", "--id="+raw.String(), "--marker="+block.DeletionMarkName, "--details=gone")
	if out, _ := runTool(t, 0, dir, rewrite...); !strings.Contains(out, "planned rewrite "+five) {
		t.Errorf("without the raw block: %s", out)
	}
}
