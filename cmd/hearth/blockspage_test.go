package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// blocksOf asks a process for its blocks until it has looked at the bucket.
func blocksOf(t *testing.T, p *process, view string) (label string, ids []string) {
	t.Helper()
	var answer struct {
		Data struct {
			Label  string
			Err    *string
			Blocks []struct{ ULID string }
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, body := raw(t, p.listeners[0].Addr(), "GET", "/api/v1/blocks?view="+view, "")
		answer.Data.Err, answer.Data.Blocks = nil, nil
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("%v: %.300s", err, body)
		}
		if answer.Data.Err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not listed: %s", *answer.Data.Err)
		}
	}
	for _, b := range answer.Data.Blocks {
		ids = append(ids, b.ULID)
	}
	return answer.Data.Label, ids
}

// TestBlocksOfCompactor: a compactor shows all blocks of its bucket, those that it works on, and takes marks.
func TestBlocksOfCompactor(t *testing.T) {
	dir := toolBucket(t)
	if err := os.RemoveAll(filepath.Join(dir, "backup")); err != nil { // blocks in it look like those of Mimir
		t.Fatal(err)
	}
	start := func(more ...string) *process {
		return startRole(t, append([]string{"compact", "--wait", "--http-address=127.0.0.1:0", "--log.level=error",
			"--data-dir=" + t.TempDir(), bucketFlag(dir), "--debug.max-compaction-level=1", "--downsampling.disable",
			"--bucket-web-label=tenant_id", "--min-time=2025-12-01T00:00:00Z", "--max-time=2025-12-02T00:00:00Z"}, more...))
	}
	mark := "/api/v1/blocks/mark?id=" + toolID(23).String() + "&action=NO_COMPACTION&detail=d"
	form := []string{"Content-Length: 0", "Content-Type: application/x-www-form-urlencoded"}
	marked := func() bool { // not by a walk of the bucket: compactors write to it
		_, err := os.Stat(filepath.Join(dir, block.Object(toolID(23), block.NoCompactMarkName)))
		return err == nil
	}

	p := start("--disable-admin-operations", "--web.disable-cors")
	label, all := blocksOf(t, p, "global")
	_, loaded := blocksOf(t, p, "loaded")
	if label != "tenant_id" || len(all) < 20 || len(loaded) == 0 || len(loaded) >= len(all) {
		t.Errorf("label %q, %d blocks, %d of them loaded", label, len(all), len(loaded))
	}
	if code, body := raw(t, p.listeners[0].Addr(), "GET", "/", ""); code != 200 || !strings.Contains(body, "ui/blocks.js") {
		t.Errorf("the page: %d %.200s", code, body)
	}
	if code, body := raw(t, p.listeners[0].Addr(), "POST", mark, "", form...); code != 403 || marked() {
		t.Errorf("a mark where none is taken: %d %s", code, body)
	}
	p = start()
	if code, body := raw(t, p.listeners[0].Addr(), "POST", mark, "", form...); code != 200 || !marked() {
		t.Errorf("a mark: %d %s", code, body)
	}
	p = start("--web.disable")
	for _, path := range []string{"/", "/api/v1/blocks"} {
		if code, body := raw(t, p.listeners[0].Addr(), "GET", path, ""); code != 404 {
			t.Errorf("%s with --web.disable: %d %.100s", path, code, body)
		}
	}
}
