package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/block"
)

// localBlock writes a block of ten series in dir, which says level and Thanos's part extra in its meta.json.
func localBlock(t *testing.T, dir string, from int64, level int, extra string) ulid.ULID {
	t.Helper()
	var all []promstorage.Series
	for i := range 10 {
		var samples []chunks.Sample
		for ts := from; ts < from+600_000; ts += 15_000 {
			samples = append(samples, chunks.GenerateSamples(int(ts), 1)[0])
		}
		all = append(all, promstorage.NewListSeries(labels.FromStrings("__name__", "up", "i", fmt.Sprint(i)), samples))
	}
	path, err := tsdb.CreateBlock(all, dir, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := ulid.MustParse(filepath.Base(path))
	raw, err := os.ReadFile(filepath.Join(path, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	m["compaction"].(map[string]any)["level"] = level
	if extra != "" {
		m["thanos"] = json.RawMessage(extra)
	}
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, block.MetaName), raw, 0o666); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestToolUpload: blocks are uploaded as Thanos uploads them: the same objects, and Hearth's index-header and a
// copy of meta.json for people; and the same meta.json, except the time, the header, and sizes that Thanos does not
// know.
func TestToolUpload(t *testing.T) {
	local := t.TempDir()
	first := localBlock(t, local, 1_700_000_000_000, 1, "")
	coarse := localBlock(t, local, 1_700_100_000_000, 1, `{"labels":{"old":"1","replica":"x"},"downsample":{"resolution":300000},"source":"compactor"}`)
	compacted := localBlock(t, local, 1_700_200_000_000, 2, "")
	f := func(dir string, status int, args ...string) (out, log string) {
		return runTool(t, status, dir, append([]string{"bucket", "upload-blocks", "--path=" + local, "--label=replica=\"0\"", "--label=z=\"\\\"\""}, args...)...)
	}
	bucket := t.TempDir()
	out, log := f(bucket, 0)
	if !strings.Contains(out, "done "+first.String()+"\n") || !strings.Contains(out, "skipped "+compacted.String()+": it was compacted") ||
		!strings.Contains(log, "uploaded=2") {
		t.Errorf("%s%s", out, log)
	}
	if out, _ := f(bucket, 0, "--output=json"); !strings.Contains(out, fmt.Sprintf(`{"block":%q,"result":"already"}`, first)) {
		t.Error(out)
	}
	out, _ = f(bucket, 0, "--shipper.upload-compacted")
	if !strings.Contains(out, "done "+compacted.String()) {
		t.Error(out)
	}
	metaOf := func(dir string, id ulid.ULID) *block.Meta {
		t.Helper()
		file, err := os.Open(filepath.Join(dir, id.String(), block.MetaName))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		m, err := block.ReadMeta(file, id)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := metaOf(bucket, coarse)
	if m.Thanos.Downsample.Resolution != 300000 || m.Thanos.Labels["old"] != "1" || m.Thanos.Labels["replica"] != "0" ||
		m.Thanos.Source != "bucket.upload" {
		t.Errorf("%+v", m.Thanos)
	}
	other := localBlock(t, local, 1_700_200_300_000, 3, "")
	if out, _ := f(bucket, 1, "--shipper.upload-compacted"); !strings.Contains(out, "refused "+other.String()+": it overlaps with block "+compacted.String()) {
		t.Error(out)
	}
	if err := os.RemoveAll(filepath.Join(local, other.String())); err != nil {
		t.Fatal(err)
	}
	runTool(t, 2, bucket, "bucket", "upload-blocks", "--path="+local)
	runTool(t, 2, bucket, "bucket", "upload-blocks", "--path="+local+"/nothing", "--label=a=b")
	if os.Getenv("HEARTH_THANOS") == "" {
		return
	}
	theirs := t.TempDir()
	if err := os.Remove(filepath.Join(local, "thanos.shipper.json")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Getenv("HEARTH_THANOS"), "tools", "bucket", "upload-blocks", "--path="+local, "--label=replica=\"0\"", "--label=z=\"\\\"\"",
		"--shipper.upload-compacted", bucketFlag(theirs))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ours, want := tree(t, bucket), tree(t, theirs)
	for name := range ours {
		if _, ok := want[name]; !ok && !strings.HasSuffix(name, "/index-header") && !strings.HasPrefix(name, "debug/") {
			t.Errorf("Thanos does not have %s", name)
		}
	}
	for name, text := range want {
		if strings.HasSuffix(name, ".json") {
			continue
		}
		if ours[name] != text {
			t.Errorf("%s differs", name)
		}
	}
	for _, id := range []ulid.ULID{first, coarse, compacted} {
		a, b := metaOf(bucket, id), metaOf(theirs, id)
		a.Thanos.UploadTime, a.Thanos.IndexStats, a.Thanos.Files = b.Thanos.UploadTime, b.Thanos.IndexStats, b.Thanos.Files
		var x, y bytes.Buffer
		if err := a.Write(&x); err != nil {
			t.Fatal(err)
		}
		if err := b.Write(&y); err != nil {
			t.Fatal(err)
		}
		if x.String() != y.String() {
			t.Errorf("%s\nwant\n%s", &x, &y)
		}
	}
}
