package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/hearth-metrics/hearth/block"
)

// longBlock puts a block of eleven days into the bucket in dir.
func longBlock(t *testing.T, dir string, external map[string]string) ulid.ULID {
	t.Helper()
	from := time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	var all []promstorage.Series
	for i := range 3 {
		var samples []chunks.Sample
		for n := range 11 * 24 * 60 {
			samples = append(samples, chunks.GenerateSamples(n, 1)[0])
		}
		name := labels.FromStrings("__name__", "up", "i", fmt.Sprint(i))
		all = append(all, promstorage.NewListSeries(name, shifted(samples, from)))
	}
	path, err := tsdb.CreateBlock(all, t.TempDir(), 30*24*3_600_000, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := ulid.MustParse(filepath.Base(path))
	raw, err := os.ReadFile(filepath.Join(path, block.MetaName))
	if err != nil {
		t.Fatal(err)
	}
	m, err := block.ReadMeta(bytes.NewReader(raw), id)
	if err != nil {
		t.Fatal(err)
	}
	m.Thanos.Labels, m.Thanos.Source = external, block.SourceCompactor
	bkt, err := filesystem.NewBucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := block.Upload(t.Context(), bkt, path, *m); err != nil {
		t.Fatal(err)
	}
	return id
}

// at is a sample at another time: a minute for each millisecond, from a time on.
type at struct {
	chunks.Sample
	from int64
}

// T implements chunks.Sample.
func (s at) T() int64 { return s.from + s.Sample.T()*60_000 }

// Copy implements chunks.Sample.
func (s at) Copy() chunks.Sample { return s }

func shifted(samples []chunks.Sample, from int64) []chunks.Sample {
	out := make([]chunks.Sample, len(samples))
	for i, s := range samples {
		out[i] = at{s, from}
	}
	return out
}

// downsampled says what a bucket has for each block of 5m and 1h: its times, labels, sources and numbers of series.
func downsampled(t *testing.T, dir string) (lines []string) {
	t.Helper()
	for name, text := range tree(t, dir) {
		id, ok := block.ParseID(name)
		if !ok || !strings.HasSuffix(name, "/"+block.MetaName) {
			continue
		}
		m, err := block.ReadMeta(strings.NewReader(text), id)
		if err != nil {
			t.Fatal(err)
		}
		if m.Thanos.Downsample.Resolution > 0 {
			lines = append(lines, fmt.Sprint(m.Thanos.Downsample.Resolution, m.MinTime, m.MaxTime, m.Thanos.Labels,
				m.Compaction.Sources, m.Stats.NumSeries))
		}
	}
	slices.Sort(lines)
	return lines
}

// TestToolDownsample: the tool makes the blocks that Thanos's makes, of what nobody downsampled, and a second run
// changes nothing. Marks keep it from a block.
func TestToolDownsample(t *testing.T) {
	dir := t.TempDir()
	a := longBlock(t, dir, map[string]string{"tenant_id": "a"})
	b := longBlock(t, dir, map[string]string{"cluster": "ü", "z": "1"})
	marked := longBlock(t, dir, map[string]string{"tenant_id": "c"})
	runTool(t, 0, dir, "bucket", "mark", "--id="+marked.String(), "--marker="+block.NoDownsampleMarkName,
		"--details=no")
	theirs := t.TempDir()
	if err := os.CopyFS(theirs, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	args := []string{"bucket", "downsample", "--data-dir=" + t.TempDir(), "--downsample.concurrency=2"}
	_, log := runTool(t, 0, dir, append(args, "--wait-interval=5m", "--http-address=:1")...)
	if !strings.Contains(log, "wait-interval") {
		t.Errorf("nothing is said of flags without effect: %s", log)
	}
	got := downsampled(t, dir)
	text := strings.Join(got, " ")
	if len(got) != 4 || !strings.Contains(text, a.String()) || !strings.Contains(text, b.String()) {
		t.Fatalf("%q", got)
	}
	runTool(t, 0, dir, "bucket", "verify", "--deep", "--issues=index_known_issues")
	before := objects(t, dir)
	runTool(t, 0, dir, args...)
	if objects(t, dir) != before {
		t.Error("a second run changed something")
	}
	thanos := os.Getenv("HEARTH_THANOS")
	if thanos == "" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, thanos, "tools", "bucket", "downsample", "--data-dir="+t.TempDir(),
		"--http-address=127.0.0.1:0", bucketFlag(theirs))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil && len(downsampled(t, theirs)) < 6 {
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	_ = cmd.Wait()
	want := downsampled(t, theirs)
	// Thanos's tool does not look at the marks.
	ofMarked := func(line string) bool { return strings.Contains(line, marked.String()) }
	if without := slices.DeleteFunc(slices.Clone(want), ofMarked); !slices.Equal(got, without) {
		t.Errorf("%q, and Thanos makes %q", got, want)
	}
	runTool(t, 0, theirs, args...)
	if got := downsampled(t, theirs); !slices.Equal(got, want) {
		t.Errorf("blocks of Thanos were made anew: %q", got)
	}
}
