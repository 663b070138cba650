package compact

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// bare puts a block without content into a bucket: retention and deletion read none.
func bare(t testing.TB, bkt objstore.Bucket, m *block.Meta, number byte) ulid.ULID {
	t.Helper()
	id := ulid.MustNew(uint64(m.MaxTime), strings.NewReader("0123456789"))
	id[15] = number
	m.ULID, m.Version, m.Compaction.Sources = id, 1, []ulid.ULID{id}
	m.Thanos.Files = []block.File{{RelPath: block.IndexName, SizeBytes: 5}}
	if m.Thanos.UploadTime.IsZero() {
		m.Thanos.UploadTime = time.UnixMilli(m.MaxTime)
	}
	var b strings.Builder
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		if err := bkt.Upload(t.Context(), block.Object(id, name), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	put(block.IndexName, "index")
	put(block.MetaName, b.String())
	return id
}

func metaOf(tenant string, resolution int64, from, to time.Time, source string) *block.Meta {
	m := &block.Meta{}
	m.MinTime, m.MaxTime = from.UnixMilli(), to.UnixMilli()
	m.Thanos.Labels = map[string]string{"tenant_id": tenant}
	if tenant == "" {
		m.Thanos.Labels = map[string]string{"x": "y"}
	}
	m.Thanos.Downsample.Resolution, m.Thanos.Source = resolution, source
	return m
}

// openWithoutJobs opens a compactor that marks and deletes, and has no jobs.
func openWithoutJobs(t *testing.T, bkt objstore.Bucket) *Compactor {
	t.Helper()
	o := testOptions(t, "one")
	o.Jobs.Off = true
	c := newCompactor(t, bkt, o)
	if err := c.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDeletion: marked blocks go after the delay and not before, while no other loop works; a compactor's own output
// leaves a record, which goes after twice the delay.
func TestDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := objstore.NewInMemBucket()
		now := time.Now()
		shipped := bare(t, bkt, metaOf("a", 0, now.Add(-4*time.Hour), now.Add(-2*time.Hour), block.SourceReceive), 1)
		output := bare(t, bkt, metaOf("a", 0, now.Add(-4*time.Hour), now.Add(-2*time.Hour), block.SourceCompactor), 2)
		kept := bare(t, bkt, metaOf("b", 0, now.Add(-4*time.Hour), now.Add(-2*time.Hour), block.SourceReceive), 3)
		for _, id := range []ulid.ULID{shipped, output} {
			if err := block.MarkDeletion(t.Context(), bkt, id, "x", now); err != nil {
				t.Fatal(err)
			}
		}
		c := openWithoutJobs(t, bkt)
		defer c.Close()
		there := func(id ulid.ULID) bool { return len(mustObjects(t, bkt, id)) > 0 }
		time.Sleep(47 * time.Hour)
		synctest.Wait()
		if !there(shipped) || !there(output) {
			t.Fatal("deleted too early")
		}
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		if there(shipped) || there(output) || !there(kept) {
			t.Fatalf("after the delay: %v %v %v", there(shipped), there(output), there(kept))
		}
		_, hasOutput := bkt.Objects()[doneName(output)]
		if _, hasShipped := bkt.Objects()[doneName(shipped)]; !hasOutput || hasShipped {
			t.Fatal("records of what was deleted are wrong")
		}
		time.Sleep(95 * time.Hour)
		synctest.Wait()
		if _, ok := bkt.Objects()[doneName(output)]; !ok {
			t.Fatal("the record is gone too early")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if _, ok := bkt.Objects()[doneName(output)]; ok {
			t.Fatal("the record stays")
		}
		if n := testutil.ToFloat64(c.metrics.deleted); n != 2 {
			t.Errorf("%v blocks counted", n)
		}
	})
}

func mustObjects(t testing.TB, bkt objstore.BucketReader, id ulid.ULID) []string {
	t.Helper()
	names, err := block.ObjectsOf(t.Context(), bkt, id)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestPartialUploads: an upload that was broken off goes 48 h after its newest object came, one with a meta.json that
// cannot be read never.
func TestPartialUploads(t *testing.T) {
	for _, timeless := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			mem := objstore.NewInMemBucket()
			var bkt objstore.Bucket = mem
			if timeless {
				bkt = noTimes{bkt}
			}
			put := func(id ulid.ULID, name string) {
				_ = mem.Upload(t.Context(), block.Object(id, name), strings.NewReader("text"))
			}
			left := ulid.MustNew(ulid.Timestamp(time.Now().Add(-100*time.Hour)), strings.NewReader("0123456789"))
			faulty := left
			faulty[15]++
			put(left, "chunks/000001")
			put(faulty, block.IndexName)
			put(faulty, block.MetaName)
			o := testOptions(t, "one")
			o.Jobs.Off = true
			c := newCompactor(t, bkt, o)
			_ = c.Open(t.Context(), nil)
			defer c.Close()
			time.Sleep(24 * time.Hour)
			put(left, block.IndexName) // it goes on
			time.Sleep(40 * time.Hour)
			synctest.Wait()
			if len(mustObjects(t, mem, left)) != 2 {
				t.Fatal("deleted while it may go on")
			}
			time.Sleep(20 * time.Hour)
			synctest.Wait()
			if names := mustObjects(t, mem, left); len(names) != 0 {
				t.Fatalf("timeless %v: what was broken off stays: %v", timeless, names)
			}
			if len(mustObjects(t, mem, faulty)) != 2 {
				t.Fatal("a block with a faulty meta.json was deleted")
			}
		})
	}
}

// noTimes is a bucket whose provider says no times.
type noTimes struct{ objstore.Bucket }

func (b noTimes) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	a, err := b.Bucket.Attributes(ctx, name)
	a.LastModified = time.Time{}
	return a, err
}

// skewed is a bucket whose clock is off.
type skewed struct {
	objstore.Bucket
	off time.Duration
}

func (b *skewed) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	a, err := b.Bucket.Attributes(ctx, name)
	a.LastModified = a.LastModified.Add(b.off)
	return a, err
}

// TestRests: with a wrong clock, or beside another compactor, nothing is marked or deleted, and the page, a metric and
// the log say so.
func TestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objstore.NewInMemBucket()
		bkt := &skewed{mem, 6 * time.Minute}
		now := time.Now()
		marked := bare(t, bkt, metaOf("a", 0, now.Add(-400*time.Hour), now.Add(-300*time.Hour), block.SourceReceive), 1)
		if err := block.MarkDeletion(t.Context(), bkt, marked, "x", now.Add(-100*time.Hour)); err != nil {
			t.Fatal(err)
		}
		o := testOptions(t, "one")
		c := newCompactor(t, bkt, o)
		_ = c.Open(t.Context(), nil)
		defer c.Close()
		rests := func(want string) {
			t.Helper()
			synctest.Wait()
			s := c.Status()
			resting := testutil.ToFloat64(c.metrics.resting) == 1
			if (want != "") != resting || !strings.Contains(s.Rests, want) || want == "" && s.Rests != "" {
				t.Fatalf("rests %v: %q, want %q", resting, s.Rests, want)
			}
			if there := len(mustObjects(t, mem, marked)) > 0; there != (want != "") {
				t.Fatalf("the marked block is there: %v", there)
			}
		}
		time.Sleep(time.Hour)
		rests("the clock of this machine says")
		bkt.off = -6 * time.Minute
		time.Sleep(time.Hour)
		rests("the clock of this machine says")
		bkt.off = 4 * time.Minute
		time.Sleep(time.Hour)
		rests("")

		marked = bare(t, bkt, metaOf("a", 0, now.Add(-400*time.Hour), now.Add(-200*time.Hour), block.SourceReceive), 2)
		foreign := metaOf("b", 0, now.Add(-400*time.Hour), now.Add(-200*time.Hour), block.SourceCompactor)
		foreign.Thanos.UploadTime = time.Now().Add(time.Second)
		bare(t, bkt, foreign, 3)
		time.Sleep(10 * time.Minute) // the look that finds it
		if err := block.MarkDeletion(t.Context(), bkt, marked, "x", now.Add(-100*time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Hour)
		rests("another compactor works in this bucket")
		time.Sleep(5 * time.Hour)
		rests("")
	})
}

// TestForeignOfBefore: blocks of a compactor that this one took over from are no reason to rest, and those that came
// while this one was away are.
func TestForeignOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := objstore.NewInMemBucket()
		now := time.Now()
		bare(t, bkt, metaOf("a", 0, now.Add(-400*time.Hour), now.Add(-2*time.Minute), block.SourceCompactor), 1)
		o := testOptions(t, "one")
		o.Jobs.Off = true
		once(t, newCompactor(t, bkt, o))
		time.Sleep(time.Hour)
		once(t, newCompactor(t, bkt, o)) // it knows now when it last worked
		time.Sleep(time.Hour)
		bare(t, bkt, metaOf("b", 0, now.Add(-400*time.Hour), time.Now().Add(-time.Minute), block.SourceCompactor), 2)
		err := newCompactor(t, bkt, o).Once(t.Context())
		if err == nil || !strings.Contains(err.Error(), "another compactor") {
			t.Errorf("beside another compactor: %v", err)
		}
	})
}

func TestCheckLayout(t *testing.T) {
	f := func(want bool, names ...string) {
		t.Helper()
		bkt := objstore.NewInMemBucket()
		for _, name := range names {
			_ = bkt.Upload(t.Context(), name, strings.NewReader("x"))
		}
		err := CheckLayout(t.Context(), bkt)
		if (err == nil) != want || err != nil && errs.KindOf(err) != errs.Conflict {
			t.Errorf("%v: %v", names, err)
		}
	}
	const id = "01M8N4V7PD31VZPX8J83FEP8J4"
	f(true)
	f(true, id+"/meta.json", "debug/metas/"+id+".json", "hearth/bucket.json", "notes/readme.txt")
	f(false, "tenant-1/bucket-index.json.gz")
	f(false, "tenant-1/"+id+"/meta.json")
	f(false, id+"/meta.json", "anonymous/markers/"+id+"-deletion-mark.json")
}

// TestReplacedIsMarked: blocks that are replaced and were not marked are marked, unless what replaces them lacks an
// object.
func TestReplacedIsMarked(t *testing.T) {
	bkt := putAll(t, replicas("a", 3))
	o := testOptions(t, "one")
	once(t, newCompactor(t, bkt, o))
	v := viewOf(t, bkt)
	n := len(v.Deletions)
	if n == 0 {
		t.Fatal("nothing was compacted")
	}
	for id := range v.Deletions {
		_ = block.Unmark(t.Context(), bkt, id, block.DeletionMarkName)
	}
	damaged := visible(v)[0]
	_ = bkt.Delete(t.Context(), block.Object(damaged.ULID, block.IndexName))
	c := newCompactor(t, bkt, o)
	if err := c.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "is replaced, and stays") {
		t.Errorf("with a damaged output: %v", err)
	}
	if got := len(viewOf(t, bkt).Deletions); got != n-3 {
		t.Errorf("%d of %d are marked", got, n)
	}
	if got := testutil.ToFloat64(c.metrics.collected); int(got) != n-3 {
		t.Errorf("%v are counted", got)
	}
}

// TestNames: names of Thanos's metrics that dashboards and alerts read are there from the start.
func TestNames(t *testing.T) {
	reg, o := prometheus.NewRegistry(), DefaultOptions()
	o.Now = time.Now
	newMetrics(reg, o)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, f := range all {
		there[f.GetName()] = true
	}
	for _, name := range strings.Fields(`halted retries_total iterations_total block_cleanup_loops_total
		aborted_partial_uploads_deletion_attempts_total blocks_cleaned_total block_cleanup_failures_total
		blocks_marked_total garbage_collected_blocks_total garbage_collection_total garbage_collection_failures_total
		garbage_collection_duration_seconds group_compactions_total group_compaction_runs_started_total
		group_compaction_runs_completed_total group_compactions_failures_total group_vertical_compactions_total
		downsample_total downsample_failures_total todo_compactions todo_compaction_blocks todo_downsample_blocks
		todo_deletion_blocks`) {
		if !there["thanos_compact_"+name] {
			t.Errorf("thanos_compact_%s is missing", name)
		}
	}
	for _, name := range []string{"thanos_delete_delay_seconds", "thanos_consistency_delay_seconds"} {
		if !there[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestOptions(t *testing.T) {
	f := func(want string, change func(*Options)) {
		t.Helper()
		o := testOptions(t, "one")
		change(&o)
		err := o.Validate()
		if fmt.Sprint(err) == "<nil>" != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	day := 24 * time.Hour
	f("", func(*Options) {})
	f("raw samples are kept for 39h", func(o *Options) { o.Retention.Default.Raw = 39 * time.Hour })
	f("samples of 5m are kept for", func(o *Options) { o.Retention.Default.FiveMinutes = 9 * day })
	f("", func(o *Options) {
		o.Retention.Default = Periods{39 * time.Hour, 9 * day, day}
		o.Jobs.Downsample = false
	})
	f("", func(o *Options) { o.Retention.Default = Periods{15 * day, 30 * day, 90 * day} })
	f("penalty needs a replica label", func(o *Options) { o.Jobs.Penalty = true })
	f("largest compaction level 5", func(o *Options) { o.Jobs.MaxLevel = 5 })
	f("interval", func(o *Options) { o.Interval = 0 })
	f("memory", func(o *Options) { o.Jobs.Memory = 1 })
}
