package downsample

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
)

// recordedFrom and recordedTo are the range of the block that Thanos downsampled, long enough for both resolutions.
const (
	recordedFrom = int64(20_000 * days)
	recordedTo   = recordedFrom + 12*days
)

// recordedInput is what Thanos downsampled to testdata/thanos.txt: stretches of samples each minute, and of samples
// each 40 minutes.
func recordedInput() map[string][]sample {
	rnd := rand.New(rand.NewPCG(13, 13))
	out := map[string][]sample{}
	for _, name := range []string{"gauge", "counter", "decimals"} {
		v := 1000.0
		for _, t := range recordedTimes(rnd) {
			s := sample{T: t, V: v}
			switch n := rnd.IntN(40); {
			case name == "counter" && n == 0:
				v = 0
			case name == "counter":
				v += float64(rnd.IntN(60))
			case name == "decimals":
				v = rnd.NormFloat64() * 1e3
			case n == 0:
				s.V = stale
			case n == 1:
				s.V = math.NaN()
			default:
				v += float64(rnd.IntN(9) - 4)
			}
			out[name] = append(out[name], s)
		}
	}
	h := fresh(rnd)
	for _, t := range recordedTimes(rnd) {
		observe(h, rnd)
		out["histogram"] = append(out["histogram"], sample{T: t, FH: h.Copy()})
	}
	return out
}

func recordedTimes(rnd *rand.Rand) (out []int64) {
	t := recordedFrom + 7*second
	for range 2 {
		for range 90 {
			t += minutes
			out = append(out, t+rnd.Int64N(100))
		}
		for range 40 {
			t += 40 * minutes
			out = append(out, t)
		}
		t += 2 * days
	}
	return out
}

// recordLines are the windows of chunks, a line each.
func recordLines(t *testing.T, name string, resolution int64, in []merge.Chunk) (out []string) {
	for _, w := range windows(t, in) {
		if w.h != nil {
			b := fnv.New32()
			for it := w.h.AllBucketIterator(); it.Next(); {
				if at := it.At(); at.Count != 0 {
					fmt.Fprintf(b, " %g:%g", at.Upper, at.Count)
				}
			}
			out = append(out, fmt.Sprintf("%s %d %d %g %g %g %x", name, resolution, w.t, w.count, w.h.Count, w.h.Sum, b.Sum32()))
			continue
		}
		out = append(out, fmt.Sprintf("%s %d %d %g %x %x %x", name, resolution, w.t, w.count,
			math.Float64bits(w.sum), math.Float64bits(w.min), math.Float64bits(w.max)))
	}
	return out
}

// TestAsThanos: windows are bit by bit those that Thanos's downsampler made of the same samples, except those that
// end a chunk of one of both: their timestamps, and at 1h windows that Thanos divided.
func TestAsThanos(t *testing.T) {
	want := recordedLines(t)
	for name, in := range recordedInput() {
		five, hour := downsampled(t, in)
		for resolution, chunks := range map[int64][]merge.Chunk{FiveMinutes: five, Hour: hour} {
			got := recordLines(t, name, resolution, chunks)
			other := 0
			for _, line := range got {
				if _, ok := slices.BinarySearch(want, line); !ok {
					other++
				}
			}
			// A chunk of Thanos's ends at one window of ours at most, and ours at one of its.
			if len(got) < 40 || other > 2*len(chunks) {
				t.Errorf("%s: %d of %d windows of %d ms are others than Thanos's", name, other, len(got), resolution)
			}
		}
	}
}

const recordedFile = "testdata/thanos.txt"

func recordedLines(t *testing.T) (out []string) {
	f, err := os.Open(recordedFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Buffer(nil, 1<<20); lines.Scan(); {
		out = append(out, lines.Text())
	}
	slices.Sort(out)
	return out
}

// TestRecordThanos lets Thanos downsample the samples of TestAsThanos and a block of ours, and lets us downsample its
// blocks. It writes testdata/thanos.txt if HEARTH_REWRITE is set.
func TestRecordThanos(t *testing.T) {
	thanos := os.Getenv("HEARTH_THANOS")
	if thanos == "" {
		t.Skip("HEARTH_THANOS names no binary of Thanos")
	}
	bucket, chunks := t.TempDir(), map[string][]merge.Chunk{}
	for name, samples := range recordedInput() {
		chunks[name] = chunksOf(samples)
	}
	m := writeRaw(t, bucket, chunks, recordedFrom, recordedTo)
	theirs := runThanos(t, thanos, bucket)
	var lines []string
	for resolution, m := range theirs {
		for name, chunks := range contents(t, bucket, m) {
			if len(chunks) == 0 {
				t.Fatal(name)
			}
			lines = append(lines, recordLines(t, name, resolution, chunks)...)
			for _, c := range read(t, chunks) {
				if e := c.Aggr[series.Counter]; name == "histogram" && e.Data[2]&0xc0 != byte(chunkenc.NotCounterReset) {
					t.Errorf("%s of %d ms: the header is %x, not that there was no reset", name, resolution, e.Data[2])
				}
			}
		}
	}
	slices.Sort(lines)
	if os.Getenv("HEARTH_REWRITE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recordedFile, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(lines, recordedLines(t)) {
		t.Errorf("%s is not what Thanos makes", recordedFile)
	}

	// Our block of 5m, downsampled by Thanos, and Thanos's by us.
	ours := t.TempDir()
	if err := os.CopyFS(ours, os.DirFS(bucket)); err != nil {
		t.Fatal(err)
	}
	for _, m := range theirs {
		if err := os.RemoveAll(filepath.Join(ours, m.ULID.String())); err != nil {
			t.Fatal(err)
		}
	}
	five, hour := compacted(t, ours, m)
	own := contents(t, ours, hour)
	for _, m := range []string{hour.ULID.String(), newMeta(4, 0, 0).ULID.String()} {
		if err := os.RemoveAll(filepath.Join(ours, m)); err != nil {
			t.Fatal(err)
		}
	}
	rewriteSources(t, ours, five, m.ULID)
	again := contents(t, ours, runThanos(t, thanos, ours)[Hour])
	fromTheirs := contents(t, bucket, theirs[FiveMinutes])
	for name, want := range own {
		if d := differing(recordLines(t, name, Hour, again[name]), recordLines(t, name, Hour, want)); d > 2*len(want) {
			t.Errorf("%s: %d windows of 1h are others when Thanos makes them of ours", name, d)
		}
		hour, err := run(Hour, fromTheirs[name])
		if err != nil {
			t.Fatal(err)
		}
		if d := differing(recordLines(t, name, Hour, hour), recordLines(t, name, Hour, want)); d > 0 {
			t.Errorf("%s: %d windows of 1h are others when we make them of Thanos's", name, d)
		}
		if name == "counter" || name == "histogram" {
			checkCounters(t, recordedInput()[name], fromTheirs[name], again[name])
		}
	}
}

func differing(got, want []string) (n int) {
	for _, line := range got {
		if !slices.Contains(want, line) {
			n++
		}
	}
	return n
}

// rewriteSources makes a block one that was made of source.
func rewriteSources(t *testing.T, bucket string, m *block.Meta, source ulid.ULID) {
	t.Helper()
	m.Compaction.Sources = []ulid.ULID{source}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bucket, m.ULID.String(), block.MetaName), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runThanos downsamples all blocks of a bucket, and returns the new ones by resolution.
func runThanos(t *testing.T, binary, bucket string) map[int64]*block.Meta {
	t.Helper()
	before := metas(t, bucket)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "tools", "bucket", "downsample",
		"--data-dir="+t.TempDir(), "--http-address=127.0.0.1:0",
		"--objstore.config=type: FILESYSTEM\nconfig: {directory: "+bucket+"}")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
	}()
	for ctx.Err() == nil {
		out := map[int64]*block.Meta{}
		for id, m := range metas(t, bucket) {
			if before[id] == nil {
				out[m.Thanos.Downsample.Resolution] = m
			}
		}
		if out[Hour] != nil {
			return out
		}
		time.Sleep(50 * time.Millisecond)
	}
	b, _ := os.ReadFile(log.Name())
	t.Fatalf("Thanos made no block of 1h: %s", b)
	return nil
}

func metas(t *testing.T, bucket string) map[string]*block.Meta {
	t.Helper()
	out := map[string]*block.Meta{}
	dirs, err := os.ReadDir(bucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		id, err := ulid.Parse(d.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(bucket, d.Name(), block.MetaName))
		if err != nil {
			continue
		}
		if m, err := block.ReadMeta(bytes.NewReader(b), id); err == nil {
			out[d.Name()] = m
		}
	}
	return out
}
