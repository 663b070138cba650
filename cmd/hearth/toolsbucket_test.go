package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
)

// toolID is the id of the block with a number in the buckets that tools are tested on.
func toolID(n int) ulid.ULID {
	var id ulid.ULID
	if err := id.SetTime(uint64(time.Date(2026, 1, 1, 0, n, 0, 0, time.UTC).UnixMilli())); err != nil {
		panic(err)
	}
	id[15] = byte(n)
	return id
}

// toolBucket writes a bucket as Thanos's tools and ours are tried on: blocks in three resolutions with all kinds of
// labels, marks, valid and broken meta.json files, partial uploads, and objects of others. They have no series.
func toolBucket(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	labels := []map[string]string{
		{"tenant_id": "a", "replica": "0"}, {"tenant_id": "a", "replica": "1"}, {"cluster": "größe \"x\"", "z": "<b>&"}, {}, {"sério": "1,5"},
	}
	const hour = int64(time.Hour / time.Millisecond)
	for i := range 24 {
		m := block.Meta{BlockMeta: tsdb.BlockMeta{ULID: toolID(i), Version: 1}}
		from := time.Date(2025, 12, 20-i, 2*(i%5), 0, 0, 0, time.UTC).UnixMilli()
		m.MinTime, m.MaxTime = from, from+2*hour*int64(1+i%3*i)
		m.Stats = tsdb.BlockStats{NumSeries: uint64(i * 997), NumSamples: uint64(i) * 123456789, NumChunks: uint64(i * 12345)}
		m.Compaction.Level, m.Compaction.Sources, m.Compaction.Failed = 1+i%4, []ulid.ULID{m.ULID}, i == 7
		m.Thanos.Labels, m.Thanos.Source = labels[i%len(labels)], []string{"receive", "compactor", "sidecar"}[i%3]
		m.Thanos.Downsample.Resolution = []int64{0, 0, 300000, 3600000}[i%4]
		m.Thanos.Files = []block.File{{RelPath: "chunks/000001", SizeBytes: int64(1000 + i)},
			{RelPath: "index", SizeBytes: int64(10 * i)}, {RelPath: "meta.json"}}
		m.Thanos.SegmentFiles = []string{"000001"}
		m.Thanos.UploadTime = time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC)
		var text bytes.Buffer
		if err := m.Write(&text); err != nil {
			t.Fatal(err)
		}
		putFile(t, dir, block.Object(m.ULID, block.MetaName), text.String())
		putFile(t, dir, block.Object(m.ULID, "chunks/000001"), strings.Repeat("c", 1000+i))
		putFile(t, dir, block.Object(m.ULID, "index"), strings.Repeat("i", 10*i))
	}
	mark := func(n int, name, field, more string) {
		putFile(t, dir, block.Object(toolID(n), name), fmt.Sprintf(`{"id":%q,"version":1,"details":"d",%q:%d%s}`, toolID(n), field,
			time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).Unix(), more))
	}
	mark(3, block.DeletionMarkName, "deletion_time", "")
	mark(4, block.DeletionMarkName, "deletion_time", "")
	mark(5, block.NoCompactMarkName, "no_compact_time", `,"reason":"manual"`)
	mark(6, block.NoDownsampleMarkName, "no_downsample_time", `,"reason":"manual"`)
	putFile(t, dir, block.Object(toolID(30), block.MetaName), "{")                                    // broken
	putFile(t, dir, block.Object(toolID(31), "index"), "x")                                           // broken off
	putFile(t, dir, block.Object(toolID(31), "chunks/000001"), "x")                                   //
	putFile(t, dir, "debug/metas/"+toolID(1).String()+".json", "{}")                                  // copies for people
	putFile(t, dir, "hearth/bucket.json", `{"uuid":"6b2f7b1c-6f3d-4f4e-9d4e-0d4f5d0e8a11"}`)          // Hearth's own
	putFile(t, dir, "notes.txt", "of somebody else")                                                  //
	putFile(t, dir, "backup/"+toolID(2).String()+"/meta.json", "{}")                                  //
	putFile(t, dir, strings.ToLower(toolID(9).String())+"/meta.json", "another spelling is no block") //
	return dir
}

func putFile(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func bucketFlag(dir string) string {
	return fmt.Sprintf("--objstore.config={type: FILESYSTEM, config: {directory: %q}}", dir)
}

// runTool runs a tool on the bucket in dir and checks the exit status.
func runTool(t *testing.T, status int, dir string, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	args = append(append([]string{"tools"}, args...), bucketFlag(dir))
	if got := executeOf(allCommands(), args, &out, &errOut); got != status {
		t.Fatalf("%q: status %d, want %d: %s%s", args, got, status, &out, &errOut)
	}
	return out.String(), errOut.String()
}

// recording returns what Thanos says or does, as a file in testdata/thanos-tools has it. With HEARTH_THANOS that must
// be what by finds out of that binary; HEARTH_REWRITE writes the file.
func recording(t *testing.T, file string, by func(binary string) string) string {
	t.Helper()
	const dir = "testdata/thanos-tools"
	path := filepath.Join(dir, file)
	if binary := os.Getenv("HEARTH_THANOS"); binary != "" {
		text := by(binary)
		if os.Getenv("HEARTH_REWRITE") != "" {
			putFile(t, dir, file, text)
		}
		if raw, err := os.ReadFile(path); err != nil || string(raw) != text {
			t.Errorf("%s is not what %s says: %v", path, binary, err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// recorded returns what Thanos says to args on the bucket in dir, and its exit status.
func recorded(t *testing.T, name, dir string, args ...string) (string, int) {
	t.Helper()
	raw := recording(t, name+".txt", func(binary string) string {
		cmd := exec.Command(binary, append(append([]string{"tools"}, args...), bucketFlag(dir))...)
		cmd.Env = append(os.Environ(), "TZ=UTC")
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return fmt.Sprintf("exit %d\n%s", cmd.ProcessState.ExitCode(), sortedLines(string(out)))
	})
	head, rest, _ := strings.Cut(raw, "\n")
	status := 0
	if _, err := fmt.Sscanf(head, "exit %d", &status); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return rest, status
}

func sortedLines(s string) string {
	lines := strings.SplitAfter(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// inUTC makes the local time zone UTC until the end of the test.
func inUTC(t *testing.T) {
	was := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = was })
}

// TestToolLsAsThanos: every format and filter of ls, and every column of inspect, as Thanos writes it. Thanos lists in
// no order, and sorts not stably: lines are compared sorted, and ours must be in order.
func TestToolLsAsThanos(t *testing.T) {
	inUTC(t)
	dir := toolBucket(t)
	f := func(name string, args ...string) {
		t.Helper()
		want, status := recorded(t, name, dir, args...)
		got, _ := runTool(t, status, dir, args...)
		if sorted := sortedLines(got); sorted != want {
			t.Errorf("%q:\n%s\nwant\n%s", args, sorted, want)
		}
		if again, _ := runTool(t, status, dir, args...); again != got {
			t.Errorf("%q: another order the second time", args)
		}
	}
	ls := []string{"bucket", "ls"}
	f("ls", ls...)
	f("ls-wide", append(ls, "-o", "wide")...)
	f("ls-json", append(ls, "--output=json")...)
	f("ls-template", append(ls, "-o", "{{.ULID}} {{.MinTime}} {{.Thanos.Labels}} {{.Thanos.Source}} {{.Compaction.Level}} {{len .Thanos.Files}}")...)
	f("ls-template-fault", append(ls, "-o", "{{.Nothing}}")...)
	f("ls-exclude-delete", append(ls, "--exclude-delete")...)
	f("ls-min-time", append(ls, "--min-time=2025-12-10T00:00:00Z")...)
	f("ls-max-time", append(ls, "--max-time=2025-12-10T00:00:00Z")...)
	f("ls-selector", append(ls, "--selector.relabel-config=[{action: keep, source_labels: [tenant_id, replica], regex: a;1}]")...)
	for _, output := range []string{"table", "csv", "tsv"} {
		f("inspect-"+output, "bucket", "inspect", "--output="+output)
	}
	f("inspect-selector", "bucket", "inspect", "-l", `tenant_id="a"`, "-l", `replica="0"`)
	runTool(t, 2, dir, "bucket", "ls", "-o", "{{")
	runTool(t, 2, dir, "bucket", "inspect", "--sort-by=NOTHING")
	if os.Getenv("HEARTH_THANOS") != "" { // the order, byte for byte
		for _, column := range []string{"ULID", "FROM", "UNTIL", "RANGE", "UNTIL-DOWN", "#SERIES", "#SAMPLES", "#CHUNKS", "COMP-LEVEL", "COMP-FAILED", "LABELS", "RESOLUTION", "SOURCE"} {
			args := []string{"tools", "bucket", "inspect", "--output=csv", "--sort-by=" + column, bucketFlag(dir)}
			cmd := exec.Command(os.Getenv("HEARTH_THANOS"), args...)
			cmd.Env = append(os.Environ(), "TZ=UTC")
			want, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := runTool(t, 0, dir, args[1:5]...); got != string(want) {
				t.Errorf("sorted by %s:\n%s\nwant\n%s", column, got, want)
			}
		}
	}
}

// TestToolLs: what Thanos's ls does not have.
func TestToolLs(t *testing.T) {
	dir := toolBucket(t)
	out, log := runTool(t, 0, dir, "bucket", "ls")
	ids := strings.Fields(out)
	if len(ids) != 24 || ids[0] != toolID(23).String() || ids[23] != toolID(0).String() {
		t.Errorf("not in the order of time: %s", out)
	}
	if !strings.Contains(log, "objects=24") || !strings.Contains(log, toolID(30).String()) {
		t.Errorf("the log: %s", log)
	}
	out, _ = runTool(t, 0, dir, "bucket", "inspect", "--output=json", "-l", "tenant_id=a", "-l", `replica=0`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var first struct {
		ID     string
		Bytes  int64
		Labels map[string]string
	}
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || len(lines) != 5 || first.ID != toolID(20).String() ||
		first.Bytes != 1220 || first.Labels["tenant_id"] != "a" {
		t.Errorf("%v: %s", err, out)
	}
	// With an index, blocks whose meta.json it has are not read: one that was replaced behind its back shows that.
	runTool(t, 0, dir, "bucket", "index")
	putFile(t, dir, block.Object(toolID(1), block.MetaName), "{")
	if out, _ := runTool(t, 0, dir, "bucket", "ls"); len(strings.Fields(out)) != 24 {
		t.Errorf("the index was not used: %s", out)
	}
	// Blocks of a tenant are below its name in Mimir's layout.
	if err := os.Rename(filepath.Join(dir, toolID(2).String()), filepath.Join(dir, "backup", toolID(3).String())); err != nil {
		t.Fatal(err)
	}
	if _, log := runTool(t, 0, dir, "bucket", "ls", "--tenant=backup"); !strings.Contains(log, toolID(2).String()) {
		t.Errorf("%s", log)
	}
	runTool(t, 2, dir, "bucket", "ls", "--tenant=..")
	// A table shows what would move the cursor of a terminal.
	putFile(t, dir, block.Object(toolID(40), block.MetaName), fmt.Sprintf(
		`{"ulid": %q, "minTime": 1, "maxTime": 2, "version": 1, "thanos": {"labels": {"a": "\u001b[2J\nb"}, "source": "\u0007"}}`, toolID(40)))
	for _, args := range [][]string{{"bucket", "inspect"}, {"bucket", "ls", "-o", "wide"}} {
		if out, _ := runTool(t, 0, dir, args...); strings.ContainsAny(out, "\x1b\a") || !strings.Contains(out, `\a`) {
			t.Errorf("%q: %q", args, out)
		}
	}
}

// tree is what a directory has: the text of each file by its path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		all[filepath.ToSlash(rel)] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
