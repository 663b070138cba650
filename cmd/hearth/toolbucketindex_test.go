package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestToolBucketIndex writes the index of a bucket in a directory, again when nothing has changed, and when a block and
// a mark of another tool have come.
func TestToolBucketIndex(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		putFile(t, dir, name, text)
	}
	const a, b, c = "01ARZ3NDEKTSV4RRFFQ69G5FA1", "01ARZ3NDEKTSV4RRFFQ69G5FA2", "01ARZ3NDEKTSV4RRFFQ69G5FA3"
	const meta = `{"ulid": %q, "minTime": 1, "maxTime": 2, "version": 1, "thanos": {"labels": {"a": "b"}}}`
	f := func(want ...string) {
		t.Helper()
		out, _ := runTool(t, 0, dir, "bucket", "index")
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("%q is not in:\n%s", text, out)
			}
		}
	}
	put(a+"/meta.json", fmt.Sprintf(meta, a))
	put(b+"/index", "x")
	f("Wrote view ", "1 blocks: 1 are new in the index, 0 are gone from it.", "Marks: 0 for deletion",
		"1 directories have no meta.json")
	f("Nothing has changed since view ", "1 blocks: 0 are new")
	put(b+"/meta.json", fmt.Sprintf(meta, b))
	put(b+"/deletion-mark.json", fmt.Sprintf(`{"id": %q, "version": 1, "deletion_time": 5}`, b))
	put(c+"/meta.json", "{")
	f("2 blocks: 1 are new in the index", "Marks: 1 for deletion, 0 against compaction", "Block "+c+" is left out: ")
	if err := os.RemoveAll(filepath.Join(dir, a)); err != nil {
		t.Fatal(err)
	}
	f("1 blocks: 0 are new in the index, 1 are gone from it.")
	out, _ := runTool(t, 0, dir, "bucket", "index", "--output=json")
	var pass struct{ View, Blocks, Partial, DeletionMarks int }
	if err := json.Unmarshal([]byte(out), &pass); err != nil || pass.View == 0 || pass.Blocks != 1 || pass.Partial != 1 ||
		pass.DeletionMarks != 1 {
		t.Errorf("%v: %s", err, out)
	}
	put("hearth/index/current", "{")
	f("Wrote view ", "The index of before could not be read")

	var stdout, stderr bytes.Buffer
	status := executeOf(allCommands(), []string{"tools", "bucket", "index"}, &stdout, &stderr)
	if status != 2 || !strings.Contains(stderr.String(), "--objstore.config or --objstore.config-file is needed") {
		t.Errorf("status %d: %s", status, &stderr)
	}
}
