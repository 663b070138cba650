package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/block"
)

// TestToolVerify: a whole bucket is clean, and each kind of fault is found, named and counted.
func TestToolVerify(t *testing.T) {
	dir, local := t.TempDir(), t.TempDir()
	one := localBlock(t, local, 1_700_000_000_000, 1, "")
	two := localBlock(t, local, 1_700_100_000_000, 1, "")
	runTool(t, 0, dir, "bucket", "upload-blocks", "--path="+local, "--label=a=b")
	verify := []string{"bucket", "verify", "-i", "index_known_issues", "-i", "overlapped_blocks", "-i", "duplicated_compaction"}
	for _, deep := range [][]string{nil, {"--deep"}} {
		if out, _ := runTool(t, 0, dir, append(verify, deep...)...); out != "" {
			t.Errorf("a whole bucket: %s", out)
		}
	}
	if binary := os.Getenv("HEARTH_THANOS"); binary != "" {
		if out, err := exec.Command(binary, "tools", "bucket", "verify", bucketFlag(dir)).CombinedOutput(); err != nil {
			t.Errorf("Thanos: %v: %s", err, out)
		}
	}
	path := filepath.Join(dir, two.String(), "chunks", "000001")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 4
	putFile(t, dir, block.Object(two, "chunks/000001"), string(raw))
	out, _ := runTool(t, 1, dir, append(verify, "--output=json")...)
	if strings.Count(out, "\n") != 1 || !strings.Contains(out, `{"block":"`+two.String()+`","issue":"index_known_issues","text":`) {
		t.Error(out)
	}
	if out, _ := runTool(t, 0, dir, append(verify, "--id="+one.String())...); out != "" {
		t.Error(out)
	}
	// A late block of the same stream, a copy of another one, and a broken meta.json. All blocks are looked at.
	late := localBlock(t, local, 1_700_000_100_000, 1, "")
	runTool(t, 0, dir, "bucket", "upload-blocks", "--path="+local, "--label=a=b")
	putFile(t, dir, block.Object(toolID(3), block.MetaName), "{")
	out, log := runTool(t, 1, dir, verify...)
	for _, want := range []string{late.String() + " overlapped_blocks: ", two.String() + " index_known_issues: ", toolID(3).String() + " index_known_issues: "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if !strings.Contains(log, "findings=3") {
		t.Error(log)
	}
	// What is marked for deletion is left out.
	runTool(t, 0, dir, "bucket", "mark", "--marker=deletion-mark.json", "--details=d", "--id="+late.String(), "--id="+two.String(), "--id="+toolID(3).String())
	if out, _ := runTool(t, 1, dir, verify...); strings.Count(out, "\n") != 1 {
		t.Error(out)
	}
	runTool(t, 2, dir, "bucket", "verify", "-i", "nothing")
}

// TestToolRepair: blocks that --id names are repaired, in a dry run first, marked and never deleted. What cannot be
// repaired stays, and says why.
func TestToolRepair(t *testing.T) {
	dir, local := t.TempDir(), t.TempDir()
	one := localBlock(t, local, 1_700_000_000_000, 1, "")
	late := localBlock(t, local, 1_700_000_300_000, 1, "")
	broken := localBlock(t, local, 1_700_100_000_000, 1, "")
	runTool(t, 0, dir, "bucket", "upload-blocks", "--path="+local, "--label=a=b")
	chunk := filepath.Join(dir, broken.String(), "chunks", "000001")
	raw, err := os.ReadFile(chunk)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 4
	putFile(t, dir, block.Object(broken, "chunks/000001"), string(raw))
	repair := []string{"bucket", "verify", "--repair", "--tmp.dir=" + t.TempDir(), "--id=" + one.String(),
		"--id=" + late.String()}
	runTool(t, 2, dir, "bucket", "verify", "--repair")
	before := objects(t, dir)
	out, _ := runTool(t, 0, dir, repair...)
	if !strings.Contains(out, "planned rewrite "+one.String()) || !strings.Contains(out, "overlaps") ||
		objects(t, dir) != before {
		t.Errorf("a dry run: %s", out)
	}
	plan := filepath.Join(t.TempDir(), "plan.json")
	runTool(t, 0, dir, append(repair, "--plan-out="+plan)...)
	out, _ = runTool(t, 0, dir, "bucket", "verify", "--repair", "--plan-in="+plan)
	if !strings.Contains(out, "done rewrite") {
		t.Error(out)
	}
	all := tree(t, dir)
	for _, id := range []string{one.String(), late.String()} {
		if !strings.Contains(all[id+"/"+block.DeletionMarkName], "repaired as") || all[id+"/index"] == "" {
			t.Errorf("block %s is not marked, or deleted", id)
		}
	}
	if out, _ := runTool(t, 1, dir, "bucket", "verify", "--deep"); strings.Count(out, "\n") != 1 {
		t.Errorf("after the repair: %s", out)
	}
	before = objects(t, dir)
	_, log := runTool(t, 1, dir, "bucket", "verify", "--repair", "--no-dry-run", "--id="+broken.String(),
		"--id="+one.String())
	if !strings.Contains(log, "cannot be repaired") || !strings.Contains(log, "marked for deletion") ||
		objects(t, dir) != before {
		t.Errorf("what cannot be repaired: %s", log)
	}
}
