package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// numbers are what differs from run to run in a mark.
var numbers = regexp.MustCompile(`_time":\d{10}`)

// objects are what a bucket in a directory has, except Hearth's own: names, and what marks say, without the time.
func objects(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	all := tree(t, dir)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, "hearth/") {
			continue
		}
		text := ""
		if block.IsMark(filepath.Base(name)) {
			text = " " + numbers.ReplaceAllString(all[name], `_time":0`)
		}
		fmt.Fprintf(&out, "%s%s\n", name, text)
	}
	return out.String()
}

// age makes all objects of a bucket in a directory two months old.
func age(t *testing.T, dir string) {
	t.Helper()
	then := time.Now().Add(-60 * 24 * time.Hour)
	for name := range tree(t, dir) {
		if err := os.Chtimes(filepath.Join(dir, filepath.FromSlash(name)), then, then); err != nil {
			t.Fatal(err)
		}
	}
}

// TestToolChangesAsThanos: after each changing tool the bucket has the objects that Thanos leaves, and the marks say
// the same. A second run changes nothing.
func TestToolChangesAsThanos(t *testing.T) {
	f := func(name string, args ...string) {
		t.Helper()
		want := recording(t, name+".objects.txt", func(binary string) string {
			dir := toolBucket(t)
			age(t, dir)
			cmd := exec.Command(binary, append(append([]string{"tools"}, args...), bucketFlag(dir))...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%q: %v: %s", args, err, out)
			}
			return objects(t, dir)
		})
		dir := toolBucket(t)
		age(t, dir)
		runTool(t, 0, dir, args...)
		got := objects(t, dir)
		if strings.HasPrefix(name, "cleanup") { // Thanos removes what it cannot understand; we wait until it is marked
			faulty := block.Object(toolID(30), block.MetaName) + "\n"
			if !strings.Contains(got, faulty) {
				t.Errorf("%q: a block with a faulty meta.json is gone", args)
			}
			got = strings.Replace(got, faulty, "", 1)
		}
		if d := difference(got, want); d != "" {
			t.Errorf("%q:\n%s", args, d)
		}
		before := tree(t, dir)
		runTool(t, 0, dir, args...)
		after := tree(t, dir)
		maps.DeleteFunc(after, func(name, _ string) bool { return strings.HasPrefix(name, "hearth/audit/") })
		maps.DeleteFunc(before, func(name, _ string) bool { return strings.HasPrefix(name, "hearth/audit/") })
		if !maps.Equal(before, after) {
			t.Errorf("%q: the second run changed something", args)
		}
	}
	id := func(n int) string { return "--id=" + toolID(n).String() }
	for name, marker := range map[string]string{"mark-deletion": block.DeletionMarkName, "mark-no-compact": block.NoCompactMarkName,
		"mark-no-downsample": block.NoDownsampleMarkName} {
		f(name, "bucket", "mark", id(1), id(2), id(3), id(5), id(6), "--marker="+marker, "--details=because \"of\" <this>")
		f(name+"-remove", "bucket", "mark", id(3), id(5), id(6), "--marker="+marker, "--remove")
	}
	f("cleanup", "bucket", "cleanup")
	f("cleanup-later", "bucket", "cleanup", "--delete-delay=52w")
	f("retention-raw", "bucket", "retention", "--retention.resolution-raw=1d")
	f("retention-1h", "bucket", "retention", "--retention.resolution-1h=1d")
	f("retention-all", "bucket", "retention", "--retention.resolution-raw=1d", "--retention.resolution-5m=1d", "--retention.resolution-1h=1d",
		"--selector.relabel-config=[{action: drop, source_labels: [tenant_id], regex: a}]")
}

// difference are the lines that only got has, behind a +, and those that only want has, behind a -.
func difference(got, want string) (d string) {
	count := map[string]int{}
	for line := range strings.Lines(got) {
		count[line]++
	}
	for line := range strings.Lines(want) {
		count[line]--
	}
	for _, line := range slices.Sorted(maps.Keys(count)) {
		switch n := count[line]; {
		case n > 0:
			d += "+" + line
		case n < 0:
			d += "-" + line
		}
	}
	return d
}

// TestToolMark: what Thanos's mark does not look at.
func TestToolMark(t *testing.T) {
	dir := toolBucket(t)
	mark := []string{"bucket", "mark", "--marker=" + block.DeletionMarkName}
	before := tree(t, dir)
	runTool(t, 2, dir, mark...)                                                                 // no id
	runTool(t, 2, dir, append(mark, "--id="+toolID(1).String())...)                             // no details
	runTool(t, 2, dir, append(mark, "--id=x", "--details=d")...)                                // no id
	runTool(t, 0, dir, append(mark, "--id="+toolID(1).String(), "--details=d", "--dry-run")...) // only a plan
	if !maps.Equal(before, tree(t, dir)) {
		t.Error("something was changed")
	}
	_, log := runTool(t, 1, dir, append(mark, "--id="+toolID(50).String(), "--details=d")...)
	if !strings.Contains(log, "there is no such block") || !strings.Contains(log, "1 of 1 steps were refused") {
		t.Error(log)
	}
	_, log = runTool(t, 0, dir, append(mark, "--id="+toolID(3).String(), "--details=other")...)
	if !strings.Contains(log, "it has the mark already") || tree(t, dir)["hearth/marks/"+toolID(3).String()+"-deletion-mark.json"] == "" {
		t.Error(log)
	}
	out, _ := runTool(t, 0, dir, append(mark, "--id="+toolID(1).String(), "--details=d", "--output=json")...)
	var step struct{ Action, Block, Mark, Result string }
	if err := json.Unmarshal([]byte(out), &step); err != nil || step.Result != "done" || step.Block != toolID(1).String() {
		t.Errorf("%v: %s", err, out)
	}
	// The deletion has begun: without the mark what is left would stay for ever.
	if err := os.Remove(filepath.Join(dir, toolID(3).String(), block.MetaName)); err != nil {
		t.Fatal(err)
	}
	if _, log := runTool(t, 1, dir, append(mark, "--remove", "--id="+toolID(3).String())...); !strings.Contains(log, "the deletion has begun") {
		t.Error(log)
	}
	audits := 0
	for name, text := range tree(t, dir) {
		if strings.HasPrefix(name, "hearth/audit/"+time.Now().UTC().Format(time.DateOnly)+"/") && strings.Contains(text, `"tool":"mark"`) {
			audits++
		}
	}
	if audits != 4 {
		t.Errorf("%d audits", audits)
	}
}

// TestToolPlans: a plan in a file is done as it is, unless its blocks have changed.
func TestToolPlans(t *testing.T) {
	dir := toolBucket(t)
	age(t, dir)
	plan := filepath.Join(t.TempDir(), "plan.json")
	before := tree(t, dir)
	out, _ := runTool(t, 0, dir, "bucket", "cleanup", "--plan-out="+plan)
	if !maps.Equal(before, tree(t, dir)) || strings.Count(out, "planned delete ") != 3 {
		t.Errorf("changed by a plan, or another one: %s", out)
	}
	runTool(t, 1, dir, "bucket", "retention", "--plan-in="+plan)
	putFile(t, dir, block.Object(toolID(3), "tombstones"), "new")
	if err := os.Remove(filepath.Join(dir, toolID(4).String(), block.DeletionMarkName)); err != nil {
		t.Fatal(err)
	}
	out, _ = runTool(t, 1, dir, "bucket", "cleanup", "--plan-in="+plan)
	if strings.Count(out, "refused delete ") != 2 || strings.Count(out, "done delete "+toolID(31).String()) != 1 {
		t.Error(out)
	}
	all := tree(t, dir)
	if all[block.Object(toolID(3), "index")] == "" || all[block.Object(toolID(4), "index")] == "" || all[block.Object(toolID(31), "index")] != "" {
		t.Error("not what the plan says")
	}
	// With a selector a cleanup is only a plan, until it is asked for.
	selector := "--selector.relabel-config=[{action: keep, source_labels: [tenant_id], regex: ''}]"
	runTool(t, 0, dir, "bucket", "cleanup", selector)
	if tree(t, dir)[block.Object(toolID(3), "index")] == "" {
		t.Error("a cleanup of some blocks is not a plan by default")
	}
	runTool(t, 0, dir, "bucket", "cleanup", selector, "--no-dry-run")
	if tree(t, dir)[block.Object(toolID(3), "index")] != "" {
		t.Error("--no-dry-run has no effect")
	}
}

// TestRulesCheckAsThanos: the same verdict for each file.
func TestRulesCheckAsThanos(t *testing.T) {
	files, err := filepath.Glob("testdata/rules/*.yml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	raw := recording(t, "rules-check.txt", func(binary string) string {
		var text strings.Builder
		for _, file := range files {
			cmd := exec.Command(binary, "tools", "rules-check", "--rules="+file)
			_ = cmd.Run()
			fmt.Fprintf(&text, "%s %d\n", filepath.Base(file), cmd.ProcessState.ExitCode())
		}
		return text.String()
	})
	for line := range strings.Lines(raw) {
		var name string
		var status int
		if _, err := fmt.Sscan(line, &name, &status); err != nil {
			t.Fatal(err)
		}
		var out, errOut strings.Builder
		got := executeOf(allCommands(), []string{"tools", "rules-check", "--rules=testdata/rules/" + name, "--output=json"}, &out, &errOut)
		if got != status {
			t.Errorf("%s: %d, want %d: %s", name, got, status, errOut.String())
		}
		if faults := strings.Contains(out.String(), `"faults":[]`); faults != (status == 0) {
			t.Errorf("%s: %s", name, out.String())
		}
		if want := []string{"SUCCESS", "FAILED"}[status]; !strings.Contains(errOut.String(), "result="+want) {
			t.Errorf("%s: %s", name, errOut.String())
		}
	}
	var out strings.Builder
	if got := executeOf(allCommands(), []string{"tools", "rules-check", "--rules=testdata/nothing/*.yml"}, &out, &out); got != 1 {
		t.Errorf("no file: %d", got)
	}
}

// TestToolsLeaveMimirAlone: a tool that changes buckets writes nothing into one in Mimir's layout, opened whole or as
// the part of one tenant, and says what it is.
func TestToolsLeaveMimirAlone(t *testing.T) {
	local := t.TempDir()
	localBlock(t, local, 1_700_000_000_000, 1, "")
	dir, id := t.TempDir(), toolID(1).String()
	for name, text := range tree(t, toolBucket(t)) {
		putFile(t, dir, "team-a/"+name, text)
	}
	putFile(t, dir, "team-a/bucket-index.json.gz", "not read")
	age(t, dir)
	before := fmt.Sprint(tree(t, dir))
	for _, args := range [][]string{
		{"upload-blocks", "--path=" + local, "--label=a=\"b\""},
		{"mark", "--id=" + id, "--marker=" + block.DeletionMarkName, "--details=x"},
		{"mark", "--id=" + id, "--marker=" + block.DeletionMarkName, "--remove"},
		{"cleanup", "--delete-delay=0s"},
		{"retention", "--retention.resolution-raw=1d"},
		{"downsample", "--data-dir=" + t.TempDir()},
		{"index"},
	} {
		for _, at := range []string{dir, filepath.Join(dir, "team-a")} {
			_, log := runTool(t, 1, at, append([]string{"bucket"}, args...)...)
			if !strings.Contains(log, "the layout of Mimir and Cortex") {
				t.Errorf("%q: %s", args, log)
			}
		}
	}
	if after := fmt.Sprint(tree(t, dir)); after != before {
		t.Error("a tool wrote into the bucket")
	}
}
