package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// replicaFlags name the bucket that a tool copies into. No port is fixed.
func replicaFlags(dir string) []string {
	return []string{strings.Replace(bucketFlag(dir), "objstore.", "objstore-to.", 1), "--http-address=127.0.0.1:0", "--single-run"}
}

// TestReplicateAsThanos: with each filter the target has the objects that Thanos copies, and the marks of the blocks.
// An object that was cut short in the target stays so with Thanos, and is repaired by us.
func TestReplicateAsThanos(t *testing.T) {
	torn := block.Object(toolID(9), "index")
	for name, args := range map[string][]string{
		"all":        nil,
		"resolution": {"--resolution=5m", "--resolution=1h"},
		"levels":     {"--compaction-min=2", "--compaction-max=3"},
		"level":      {"--compaction=4", "--compaction=1", "--compaction-min=7"},
		"matcher":    {"--matcher=tenant_id=a,replica!=\"0\""},
		"braces":     {"--matcher={replica=~\"0|1\"}", "--resolution=0s"},
		"id":         {"--id=" + toolID(2).String(), "--id=" + toolID(3).String(), "--id=" + toolID(4).String(), "--resolution=1h"},
		"times":      {"--min-time=2025-12-10T00:00:00Z", "--max-time=2025-12-15T00:00:00Z"},
		"unmarked":   {"--ignore-marked-for-deletion"},
	} {
		args := append([]string{"bucket", "replicate"}, args...)
		want := recording(t, "replicate-"+name+".objects.txt", func(binary string) string {
			from, to := toolBucket(t), t.TempDir()
			putFile(t, to, torn, "x")
			cmd := exec.Command(binary, append(append(append([]string{"tools"}, args...), bucketFlag(from)), replicaFlags(to)...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%q: %v: %s", args, err, out)
			}
			if tree(t, to)[torn] != "x" {
				t.Error("Thanos repairs objects that were cut short: say so in the table of differences")
			}
			return objects(t, to)
		})
		from, to := toolBucket(t), t.TempDir()
		putFile(t, to, torn, "x")
		runTool(t, 0, from, append(args, replicaFlags(to)...)...)
		before, got := tree(t, from), tree(t, to)
		for object, text := range before {
			i, ok := block.ParseID(object)
			if ok && block.IsMark(filepath.Base(object)) && got[block.Object(i, block.MetaName)] != "" {
				want += object + " " + numbers.ReplaceAllString(text, `_time":0`) + "\n"
			}
		}
		if d := difference(objects(t, to), want); d != "" {
			t.Errorf("%q:\n%s", args, d)
		}
		for object, text := range got {
			if i, ok := block.ParseID(object); ok && got[block.Object(i, block.MetaName)] != "" && text != before[object] {
				t.Errorf("%q: %s is not that of the source", args, object)
			}
		}
		out, _ := runTool(t, 0, from, append(append(args, "--output=json"), replicaFlags(to)...)...)
		var report struct {
			Source, Target, Whole, Objects int
			Equal                          bool
		}
		err := json.Unmarshal([]byte(out), &report)
		if err != nil || !report.Equal || report.Objects != 0 || report.Source != report.Whole || report.Source == 0 {
			t.Errorf("%q, again: %v: %s", args, err, out)
		}
		if !maps.Equal(got, tree(t, to)) {
			t.Errorf("%q: the second run changed something", args)
		}
	}
}

// TestToolReplicate: exit status, output, and what is refused.
func TestToolReplicate(t *testing.T) {
	from, to := toolBucket(t), t.TempDir()
	args := append([]string{"bucket", "replicate"}, replicaFlags(to)...)
	runTool(t, 0, from, args...)
	out, _ := runTool(t, 0, from, args...)
	if !strings.Contains(out, "19 blocks in the source, 19 of them in the target: 19 were whole, 0 are copied, 0 are repaired; equal: true") {
		t.Error(out)
	}
	for name, text := range tree(t, to) {
		if strings.HasPrefix(name, toolID(1).String()) {
			name = strings.Replace(name, toolID(1).String(), toolID(40).String(), 1)
			putFile(t, to, name, strings.ReplaceAll(text, toolID(1).String(), toolID(40).String()))
		}
	}
	putFile(t, to, block.Object(toolID(2), block.NoCompactMarkName),
		fmt.Sprintf(`{"id":%q,"version":1,"no_compact_time":1,"reason":"manual"}`, toolID(2)))
	putFile(t, from, block.Object(toolID(5), "index"), "torn")
	putFile(t, to, block.Object(toolID(5), "index"), "torn")
	out, log := runTool(t, 1, from, args...)
	for _, want := range []string{"failed " + toolID(5).String(), "only in the target " + toolID(40).String() + "\n",
		"only in the target " + toolID(2).String() + "/no-compact-mark.json\n", "equal: false"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s: %s", want, out)
		}
	}
	if !strings.Contains(log, "source and target are not equal") {
		t.Error(log)
	}
	for _, wrong := range [][]string{{"--compaction-min=3", "--compaction-max=2"}, {"--matcher=a"}, {"--resolution=7m"}, {"--id=x"},
		{"--concurrency=0"}} {
		runTool(t, 2, from, append(append([]string{"bucket", "replicate"}, wrong...), replicaFlags(to)...)...)
	}
	runTool(t, 2, from, "bucket", "replicate", "--single-run")
	other := t.TempDir()
	putFile(t, other, "hearth/bucket.json", `{"uuid":"u","cluster_label":"c","tenant_label":"t","replica_label":"r"}`)
	if _, log := runTool(t, 1, from, append([]string{"bucket", "replicate"}, replicaFlags(other)...)...); !strings.Contains(log, "of two clusters") {
		t.Error(log)
	}
	mimir := t.TempDir()
	for name, text := range tree(t, from) {
		putFile(t, mimir, "team-a/"+name, text)
	}
	putFile(t, mimir, "team-a/bucket-index.json.gz", "not read")
	before := tree(t, mimir)
	if _, log := runTool(t, 1, from, append([]string{"bucket", "replicate"}, replicaFlags(mimir)...)...); !strings.Contains(log, "the layout of Mimir") {
		t.Error(log)
	}
	if !maps.Equal(before, tree(t, mimir)) {
		t.Error("a bucket in Mimir's layout was changed")
	}
}

// TestReplicateLoop: without --single-run the tool goes on, and its port says what it did.
func TestReplicateLoop(t *testing.T) {
	from, to := toolBucket(t), t.TempDir()
	p := startRole(t, append([]string{"tools", "bucket", "replicate", "--log.level=error", bucketFlag(from)}, replicaFlags(to)[:2]...))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		code, body := raw(t, p.listeners[0].Addr(), "GET", "/metrics", "")
		if code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		if strings.Contains(body, `thanos_replicate_replication_runs_total{result="success"} 1`) {
			for _, want := range []string{"thanos_replicate_blocks_replicated_total 19\n", `replicate="from"`, `replicate="to"`} {
				if !strings.Contains(body, want) {
					t.Errorf("%s is missing", want)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no pass")
		}
	}
}
