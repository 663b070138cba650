package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/block/change"
)

// TestToolSeries: a dry run counts what would be deleted and writes nothing; a request is written, listed and undone.
func TestToolSeries(t *testing.T) {
	dir, local := t.TempDir(), t.TempDir()
	putFile(t, dir, "hearth/bucket.json",
		`{"uuid":"u","cluster_label":"c","tenant_label":"tenant_id","replica_label":"r"}`)
	localBlock(t, local, 1_700_000_000_000, 1, "")
	runTool(t, 0, dir, "bucket", "upload-blocks", "--path="+local, "--label=tenant_id=acme")
	before := len(tree(t, dir))
	type plan struct {
		Result string
		Series *int64
		change.SeriesPlan
	}
	run := func(status int, args ...string) (p plan) {
		t.Helper()
		out, _ := runTool(t, status, dir, append([]string{"series", "delete", "acme", "--output=json", "--tmp.dir=" +
			t.TempDir()}, args...)...)
		if status != 0 {
			return p
		}
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return p
	}
	if p := run(0, `--match=up{i=~"[1-3]"}`); p.Result != "planned" || len(p.Blocks) != 1 || p.Series == nil || *p.Series != 3 {
		t.Errorf("%+v", p)
	}
	if p := run(0, `--match={i="1"}`, "--end=2020-01-01T00:00:00Z"); len(p.Blocks) != 0 || *p.Series != 0 {
		t.Errorf("%+v", p)
	}
	for _, bad := range [][]string{{"--match={}"}, {"--match=sum(up)"}, {"--match=up", "--start=1d"}, {"--match=up", "--delay=9999d"}} {
		run(1, append(bad, "--no-dry-run")...)
	}
	runTool(t, 2, dir, "series", "delete", "acme")
	if n := len(tree(t, dir)); n != before {
		t.Fatalf("something was written: %d objects, %d before", n, before)
	}
	p := run(0, `--match={i="1"}`, "--start=-9999d", "--no-dry-run")
	id := p.Request.ID.String()
	if p.Result != "asked" || p.Series != nil {
		t.Errorf("%+v", p)
	}
	if out, _ := runTool(t, 0, dir, "series", "list"); !strings.HasPrefix(out, id+` waiting "acme" "{i=\"1\"}" from `) {
		t.Error(out)
	}
	if out, _ := runTool(t, 0, dir, "tenant", "list"); out != "" {
		t.Errorf("it is taken for the deletion of a tenant: %s", out)
	}
	runTool(t, 1, dir, "series", "undelete", id, "--end", "--no-dry-run")
	if out, _ := runTool(t, 0, dir, "series", "undelete", id); !strings.HasPrefix(out, "planned: ") {
		t.Error(out)
	}
	if out, _ := runTool(t, 0, dir, "series", "undelete", id, "--no-dry-run"); !strings.HasPrefix(out, "undone: ") {
		t.Error(out)
	}
	runTool(t, 1, dir, "series", "undelete", id, "--no-dry-run")
	runTool(t, 2, dir, "series", "undelete", "x")
	if out, _ := runTool(t, 0, dir, "series", "list", "--tenant=other"); out != "" {
		t.Error(out)
	}
}
