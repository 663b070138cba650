package compact

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// replicas are the blocks of a tenant of a ring with replication factor 3, n ranges of two hours. Some lack samples
// that the others have.
func replicas(tenant string, n int) (all []made) {
	for i := range n {
		for r, replica := range []string{"r1", "r2", "r3"} {
			gap := int64(0)
			if i%3 == 1 && r == i%2 {
				gap = hour
			}
			all = append(all, made{tenant, replica, oldest + int64(i)*2*hour, 2 * hour, gap})
		}
	}
	return all
}

// long are blocks of eight hours of a tenant, which become a block of two days and its downsampled one.
func long(tenant string, n int) (all []made) {
	for i := range n {
		all = append(all, made{tenant, "r1", oldest + int64(i)*8*hour, 8 * hour, 0})
	}
	return all
}

func putAll(t testing.TB, blocks []made) *objstore.InMemBucket {
	t.Helper()
	bkt := objstore.NewInMemBucket()
	for _, m := range blocks {
		m.put(t, bkt)
	}
	return bkt
}

// TestCompacts: three replicas of two tenants become one stream each of larger blocks, which has every sample once.
func TestCompacts(t *testing.T) {
	blocks := slices.Concat(replicas("a", 6), long("bb", 8), replicas("", 2))
	bkt := putAll(t, blocks)
	want := wanted(blocks)
	c := newCompactor(t, bkt, testOptions(t, "one"))
	once(t, c)
	got, twice := samplesOf(t, bkt)
	sameSamples(t, got, want)
	if twice != 0 {
		t.Errorf("%d samples are there twice", twice)
	}
	v := viewOf(t, bkt)
	counts := map[int64]int{}
	for _, m := range visible(v) {
		counts[m.Thanos.Downsample.Resolution]++
		if m.Thanos.Source != block.SourceCompactor || m.Thanos.Labels["receive_replica"] != "" {
			t.Logf("block %s of %s: %v", m.ULID, m.Thanos.Source, m.Thanos.Labels)
		}
	}
	t.Log("visible blocks by resolution:", counts, "of", len(v.Metas), "marked", len(v.Deletions))
	if want := map[int64]int{0: 3 + 3 + 2, 300_000: 1}; !maps.Equal(counts, want) {
		t.Errorf("visible blocks by resolution: %v, want %v", counts, want)
	}
	if s := c.Status(); len(s.Failed) > 0 || len(s.Running) > 0 || s.Rests != "" {
		t.Errorf("%+v", s)
	}
}

// TestRunJobs: a process that only downsamples makes the very blocks that a compactor makes of blocks that are merged
// no further. It merges, marks and deletes nothing, leaves no heartbeat, and says what failed before.
func TestRunJobs(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	made{tenant: "a", replica: "r1", begin: oldest, length: 14 * 24 * hour}.put(t, bkt)
	merged := clone(bkt)
	once(t, newCompactor(t, merged, testOptions(t, "compactor")))
	for i := range int64(3) { // to be merged by a compactor, and too short to be downsampled
		made{tenant: "b", replica: "r1", begin: oldest + i*2*hour, length: 2 * hour}.put(t, bkt)
	}
	options := func() Options {
		o := testOptions(t, "tool")
		o.Jobs.MaxLevel = 0
		return o
	}
	before := content(t, bkt)
	if err := newCompactor(t, bkt, options()).RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := content(t, merged)
	if len(want) <= len(before)/2 {
		t.Fatalf("the compactor made nothing: %d objects", len(want))
	}
	maps.Copy(want, before)
	sameContent(t, content(t, bkt), want)
	for name := range bkt.Objects() {
		if strings.HasPrefix(name, folder+"clock/") {
			t.Errorf("%s stays", name)
		}
	}
	if err := newCompactor(t, bkt, options()).RunJobs(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	sameContent(t, content(t, bkt), want)

	made{tenant: "c", replica: "r1", begin: oldest, length: 14 * 24 * hour}.put(t, bkt)
	failing := &failing{Bucket: bkt, fails: func(name string) bool { return strings.Contains(name, "/chunks/") }}
	if err := newCompactor(t, failing, options()).RunJobs(t.Context()); errs.KindOf(err) == errs.OK {
		t.Error("a job failed, and nobody says so")
	}
}

// failing is a bucket that takes no object whose name fails.
type failing struct {
	objstore.Bucket
	fails func(name string) bool
}

// Upload implements objstore.Bucket.
func (f *failing) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if f.fails(name) {
		return errors.New("injected")
	}
	return f.Bucket.Upload(ctx, name, r, o...)
}

// TestRunJobsTellsAllFaults: the error has what failed in a round, also where the next round may not act.
func TestRunJobsTellsAllFaults(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	made{tenant: "a", replica: "r1", begin: oldest, length: 14 * 24 * hour}.put(t, bkt)
	made{tenant: "b", replica: "r1", begin: oldest, length: 14 * 24 * hour}.put(t, bkt)
	o := testOptions(t, "tool")
	now := time.Now()
	o.Now = func() time.Time { return now }
	chunks := 0
	c := newCompactor(t, &failing{Bucket: bkt, fails: func(name string) bool {
		if strings.Contains(name, "/chunks/") {
			chunks++
		}
		if strings.HasSuffix(name, "/"+block.MetaName) { // one job is done: from now on the clocks differ
			now = now.Add(time.Hour)
		}
		return strings.Contains(name, "/chunks/") && chunks == 1
	}}, o)
	err := c.Once(t.Context())
	if err == nil || !strings.Contains(err.Error(), "injected") || !strings.Contains(err.Error(), "clock") {
		t.Errorf("%v", err)
	}
}
