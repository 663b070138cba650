package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/deletion"
)

// TestToolTenant: a dry run says what would be deleted; a request is written, listed, undone, and made again; blocks of
// a tenant that is deleted are not uploaded.
func TestToolTenant(t *testing.T) {
	dir, local := t.TempDir(), t.TempDir()
	putFile(t, dir, "hearth/bucket.json",
		`{"uuid":"u","cluster_label":"c","tenant_label":"tenant_id","replica_label":"r"}`)
	localBlock(t, local, 1_700_000_000_000, 1, "")
	upload := []string{"bucket", "upload-blocks", "--path=" + local, "--label=tenant_id=acme"}
	runTool(t, 0, dir, upload...)
	before := tree(t, dir)
	same := func(what string) {
		t.Helper()
		if now := tree(t, dir); len(now) != len(before) {
			t.Errorf("%s: something was written: %d objects, %d before", what, len(now), len(before))
		}
	}
	out, _ := runTool(t, 0, dir, "tenant", "delete", "acme", "--reason=left", "--output=json")
	var p struct {
		Result string
		change.TenantPlan
	}
	err := json.Unmarshal([]byte(out), &p)
	if err != nil || p.Result != "planned" || len(p.Blocks) != 1 || p.Request.Reason != "left" ||
		p.Request.Due-p.Request.Asked != 24*time.Hour.Milliseconds() {
		t.Fatalf("%v: %s", err, out)
	}
	out, _ = runTool(t, 0, dir, "tenant", "delete", "acme")
	if !strings.Contains(out, `planned: delete tenant "acme"`) || !strings.Contains(out, "digest "+p.Digest) {
		t.Error(out)
	}
	runTool(t, 1, dir, "tenant", "undelete", "acme")
	runTool(t, 2, dir, "tenant", "delete", "--no-dry-run", "../x")
	runTool(t, 2, dir, "tenant", "delete", "--no-dry-run")
	for _, bad := range [][]string{{"acme", "--delay=9999d"}, {"default-tenant"}, {"acme", "--confirm=x"}} {
		runTool(t, 1, dir, append([]string{"tenant", "delete", "--no-dry-run"}, bad...)...)
	}
	same("nothing was asked for")
	out, _ = runTool(t, 0, dir, "tenant", "delete", "acme", "--no-dry-run", "--delay=1h", "--confirm="+p.Digest)
	if !strings.HasPrefix(out, "asked: ") {
		t.Error(out)
	}
	runTool(t, 1, dir, "tenant", "delete", "acme", "--no-dry-run")
	if out, _ := runTool(t, 0, dir, "tenant", "list"); !strings.Contains(out, ` waiting "acme" asked `) {
		t.Error(out)
	}
	runTool(t, 1, dir, "tenant", "undelete", "acme", "--anew", "--no-dry-run")
	if out, _ := runTool(t, 0, dir, "tenant", "undelete", "acme", "--no-dry-run"); !strings.HasPrefix(out, "undone: ") {
		t.Error(out)
	}
	out, _ = runTool(t, 0, dir, "tenant", "delete", "acme", "--no-dry-run", "--delay=0s")
	if !strings.HasPrefix(out, "asked: ") {
		t.Error(out)
	}
	out, _ = runTool(t, 0, dir, "tenant", "list", "--output=json")
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, `"state":"due"`) || !strings.Contains(out, `"blocks":1`) {
		t.Error(out)
	}
	localBlock(t, local, 1_700_100_000_000, 1, "")
	out, _ = runTool(t, 1, dir, upload...)
	if !strings.Contains(out, "refused ") || !strings.Contains(out, `tenant "acme" is deleted`) {
		t.Error(out)
	}
	runTool(t, 0, dir, "bucket", "upload-blocks", "--path="+local, "--label=tenant_id=other")
	out, _ = runTool(t, 0, dir, "tenant", "undelete", "acme", "--anew", "--no-dry-run", "--reason=back")
	if !strings.HasPrefix(out, "renewed: ") {
		t.Error(out)
	}
	audits, requests := 0, 0
	for name, text := range tree(t, dir) {
		if strings.HasPrefix(name, "hearth/audit/") && strings.Contains(text, `"tool":"tools tenant `) {
			audits++
		}
		if strings.HasPrefix(name, deletion.Folder) {
			requests++
		}
	}
	if audits != 4 || requests != 4 {
		t.Errorf("%d audits, %d objects of requests", audits, requests)
	}
}
