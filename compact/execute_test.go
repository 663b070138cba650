package compact

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	hearthseries "github.com/hearth-metrics/hearth/internal/series"
)

// TestPenalty: blocks of HA pairs become one whose samples are those that a query makes of both.
func TestPenalty(t *testing.T) {
	bkt, rnd := objstore.NewInMemBucket(), rand.New(rand.NewPCG(1, 2))
	type key struct{ begin, replica, series int64 }
	samples := map[key][]sample{}
	for begin := oldest; begin < oldest+8*hour; begin += 2 * hour {
		for replica := range int64(2) {
			external := map[string]string{"tenant_id": "a", "replica": string(rune('a' + replica))}
			makeBlock(t, bkt, external, [2]int64{begin, begin + 2*hour}, func(i int) (out []chunks.Sample) {
				k := key{begin, replica, int64(i)}
				away := begin + rnd.Int64N(2*hour)
				for ts := begin + 7_000*(replica+1); ts < begin+2*hour; ts += 30_000 {
					if ts < away || ts > away+600_000 {
						samples[k] = append(samples[k], sample{ts, float64(rnd.IntN(1000))})
						out = append(out, samples[k][len(samples[k])-1])
					}
				}
				return out
			})
		}
	}
	want := map[string][]sample{}
	for begin := oldest; begin < oldest+8*hour; begin += 2 * hour {
		for i := range int64(series) {
			var replicas [][]hearthseries.Chunk
			for replica := range int64(2) {
				replicas = append(replicas, chunksOf(t, samples[key{begin, replica, i}]))
			}
			name := "a:__name__;m;i;" + string(rune('0'+i)) + ";"
			it := hearthseries.NewDedupIterator(replicas, &hearthseries.Reading{MaxTime: begin + 2*hour})
			for it.Next() != chunkenc.ValNone {
				ts, v := it.At()
				want[name] = append(want[name], sample{ts, v})
			}
		}
	}
	o := testOptions(t, "one")
	o.Jobs.Penalty, o.Jobs.ReplicaLabels = true, []string{"replica"}
	once(t, newCompactor(t, bkt, o))
	got, twice := samplesOf(t, bkt)
	sameSamples(t, got, want)
	if twice != 0 {
		t.Errorf("%d samples are there twice", twice)
	}
	for _, m := range visible(viewOf(t, bkt)) {
		if _, there := m.Thanos.Labels["replica"]; there {
			t.Errorf("block %s has the label of a replica: %v", m.ULID, m.Thanos.Labels)
		}
	}
}

// chunksOf are chunks of 120 samples.
func chunksOf(t *testing.T, samples []sample) (out []hearthseries.Chunk) {
	for part := range slices.Chunk(samples, 120) {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range part {
			app.Append(0, s.t, s.v)
		}
		out = append(out, hearthseries.Chunk{MinTime: part[0].t, MaxTime: part[len(part)-1].t,
			Raw: hearthseries.Encoded{Encoding: chunkenc.EncXOR, Data: c.Bytes()}})
	}
	return out
}

// watched is a bucket that looks at the local disk whenever a segment is sent.
type watched struct {
	objstore.Bucket
	dir      string
	segments int // that were sent
	most     int // files of chunks that were on the disk at once
}

func (b *watched) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if strings.Contains(name, "/"+block.ChunksName+"/") {
		files, err := filepath.Glob(filepath.Join(b.dir, "*", "*", "*", block.ChunksName, "*"))
		if err != nil {
			return err
		}
		b.segments++
		b.most = max(b.most, len(files))
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

// TestSegments: segments leave the disk as soon as they are finished, and the block has all of them.
func TestSegments(t *testing.T) {
	blocks := replicas("a", 6)
	w := &watched{Bucket: putAll(t, blocks)}
	o := testOptions(t, "one")
	o.Jobs.Hash, w.dir = true, o.Dir
	c := newCompactor(t, w, o)
	c.segmentSize = 128
	once(t, c)
	got, twice := samplesOf(t, w)
	if sameSamples(t, got, wanted(blocks)); twice != 0 {
		t.Errorf("%d samples are there twice", twice)
	}
	if w.segments < 12 || w.most != 1 {
		t.Errorf("%d segments were sent, %d were on the disk at once", w.segments, w.most)
	}
	for _, m := range visible(viewOf(t, w)) {
		m, err := block.FetchMeta(t.Context(), w, m.ULID) // the index of the bucket has less
		if err != nil {
			t.Fatal(err)
		}
		if n := len(m.Thanos.SegmentFiles); m.Thanos.Source == block.SourceCompactor && n < 2 {
			t.Errorf("block %s has %d segments", m.ULID, n)
		}
		for _, f := range m.Thanos.Files {
			if m.Thanos.Source == block.SourceCompactor && f.Hash == nil && strings.HasPrefix(f.RelPath, block.ChunksName) {
				t.Errorf("%s of block %s has no checksum", f.RelPath, m.ULID)
			}
		}
	}
}

// TestDiskFull: a job that finds the disk full says so, leaves nothing there, and is done later. It needs the right to
// mount a small file system.
func TestDiskFull(t *testing.T) {
	blocks := replicas("a", 3)
	bkt := putAll(t, blocks)
	o, now := testOptions(t, "one"), time.Now()
	o.Now = func() time.Time { return now }
	if err := syscall.Mount("tmpfs", o.Dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("no small file system: %v", err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			if err := syscall.Unmount(o.Dir, 0); err != nil {
				t.Error(err)
			}
		}
	}
	defer unmount()
	c := newCompactor(t, bkt, o)
	if err := c.Once(t.Context()); errs.KindOf(err) != errs.Exhausted || !strings.Contains(err.Error(), "--data-dir is full") {
		t.Errorf("kind %s: %v", errs.KindOf(err), err)
	}
	failed := c.Status().Failed
	if len(failed) == 0 || failed[0].Next == 0 {
		t.Errorf("jobs that failed: %+v", failed)
	}
	for _, f := range failed {
		if _, there := bkt.Objects()[quarantineName(f.ID)]; there {
			t.Errorf("a full disk is not for others to know: %+v", f)
		}
	}
	if left, err := os.ReadDir(c.jobsDir()); err != nil || len(left) > 0 {
		t.Errorf("left on the disk: %v, %v", left, err)
	}
	unmount() // the directory below is large enough
	now = now.Add(2 * time.Minute)
	if err := os.MkdirAll(c.jobsDir(), 0o777); err != nil {
		t.Fatal(err)
	}
	once(t, c)
	got, _ := samplesOf(t, bkt)
	sameSamples(t, got, wanted(blocks))
	if s := c.Status(); len(s.Failed) > 0 {
		t.Errorf("%+v", s.Failed)
	}
	if n := len(visible(viewOf(t, bkt))); n != 3 {
		t.Errorf("%d blocks are visible", n)
	}
}

// TestNothingToDownsample: a block of stale markers only has no windows. That is kept, and it is not tried again.
func TestNothingToDownsample(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	m := makeBlock(t, bkt, map[string]string{"tenant_id": "a"}, [2]int64{oldest, oldest + 48*hour},
		func(int) []chunks.Sample {
			return []chunks.Sample{sample{oldest + hour, math.Float64frombits(value.StaleNaN)}}
		})
	for range 2 {
		c := newCompactor(t, bkt, testOptions(t, "one"))
		once(t, c)
		if s := c.Status(); len(s.Planned)+len(s.Failed) > 0 {
			t.Errorf("%+v", s)
		}
	}
	v := viewOf(t, bkt)
	if len(v.Metas) != 1 || len(v.Deletions) != 0 || v.Metas[m.ULID] == nil {
		t.Errorf("blocks %v, marked %v", v.Metas, v.Deletions)
	}
	done := 0
	for name := range bkt.Objects() {
		if strings.HasPrefix(name, doneFolder) {
			done++
		}
	}
	if done != 1 {
		t.Errorf("%d records that a job was done", done)
	}
}
