package compact

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// askSeries asks for the deletion of samples, as of two hours ago, due after delay.
func askSeries(t testing.TB, bkt objstore.Bucket, id tenant.ID, s deletion.Series,
	delay time.Duration) deletion.Request {
	t.Helper()
	q, err := deletion.NewSeries(id, s, time.Now().Add(-2*time.Hour), delay)
	if err == nil {
		err = deletion.Put(t.Context(), bkt, q)
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// ofSeries are the samples from mint to maxt, in ms, of series that a selector matches.
func ofSeries(selector string, mint, maxt int64) deletion.Series {
	return deletion.Series{Selectors: []string{selector}, MinTime: mint, MaxTime: maxt}
}

// lessErased takes samples of a series away, and the series if none is left.
func lessErased(all map[string][]sample, name string, mint, maxt int64) {
	var left []sample
	for _, s := range all[name] {
		if s.t < mint || s.t > maxt {
			left = append(left, s)
		}
	}
	if all[name] = left; len(left) == 0 {
		delete(all, name)
	}
}

// erasable is a bucket that was compacted, of which samples of some series of tenant bb are to be erased, and what it
// has afterwards.
func erasable(t testing.TB) (*objstore.InMemBucket, map[string][]sample) {
	blocks := append(replicas("a", 3), long("bb", 7)...)
	bkt := putAll(t, blocks)
	once(t, newCompactor(t, bkt, testOptions(t, "one")))
	want := wanted(blocks)
	from, to := oldest+5*hour, oldest+11*hour
	askSeries(t, bkt, "bb", ofSeries(`m{i="1"}`, from, to), time.Hour)
	lessErased(want, "bb:__name__;m;i;1;", from, to)
	askSeries(t, bkt, "bb", ofSeries(`{i="2"}`, 0, time.Now().UnixMilli()), time.Hour)
	lessErased(want, "bb:__name__;m;i;2;", 0, 1<<62)
	return bkt, want
}

// matching are the blocks that are not marked, at all resolutions, and may have samples of series 2 of tenant bb.
func matching(t testing.TB, bkt objstore.Bucket) (n int) {
	t.Helper()
	d := []rewrite.Deletion{{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", "2")},
		Intervals: []rewrite.Interval{{Mint: 0, Maxt: 1 << 62}}}}
	for _, m := range viewOf(t, bkt).Select(block.Unmarked) {
		if m.Thanos.Labels["tenant_id"] != "bb" {
			continue
		}
		one, err := rewrite.Matches(t.Context(), bkt, m, d, t.TempDir(), 1)
		if err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}

// TestErase: once requests are due, no block has the samples, nor the downsampled ones; all else stays. What comes
// later is erased, too. A request that is long done ends.
func TestErase(t *testing.T) {
	bkt, want := erasable(t)
	if matching(t, bkt) < 3 {
		t.Fatal("there are not enough blocks to erase from")
	}
	o, now := testOptions(t, "one"), time.Now()
	o.Now = func() time.Time { return now }
	c := newCompactor(t, bkt, o)
	once(t, c)
	got, twice := samplesOf(t, bkt)
	if sameSamples(t, got, want); twice > 0 || matching(t, bkt) != 0 {
		t.Fatalf("%d samples are there twice, %d blocks have erased ones", twice, matching(t, bkt))
	}
	after := content(t, bkt)
	once(t, newCompactor(t, bkt, o))
	sameContent(t, content(t, bkt), after)
	name := erasedName("bb")
	if strings.Contains(name, "bb") || len(bkt.Objects()[name]) == 0 {
		t.Error("there is no record")
	}
	_ = bkt.Upload(t.Context(), name, strings.NewReader("damaged"))
	once(t, newCompactor(t, bkt, o))
	sameContent(t, content(t, bkt), after)

	late := made{"bb", "r2", oldest + 8*hour, 8 * hour, 0}
	late.put(t, bkt)
	now = now.Add(time.Minute) // the block is older than that then
	once(t, c)
	if got, _ := samplesOf(t, bkt); matching(t, bkt) != 0 {
		t.Error("a block that came late was not erased from")
	} else {
		sameSamples(t, got, want)
	}
	if e := viewOf(t, bkt).Requests.SeriesRequests(); e[0].Renewal != nil || e[1].Renewal != nil {
		t.Error("ended too early")
	}
	now = now.Add(endAfter)
	if err := c.endErased(t.Context(), c.last.Load()); err != nil {
		t.Fatal(err)
	}
	for _, e := range viewOf(t, bkt).Requests.SeriesRequests() {
		if e.State(now.Add(time.Minute)) != deletion.Ended {
			t.Errorf("request %s is %s", e.ID, e.State(now))
		}
	}
}

// TestEraseWaits: nothing changes before a request is due, nor after an undo, nor for other tenants, ranges and series.
func TestEraseWaits(t *testing.T) {
	bkt := putAll(t, long("bb", 7))
	once(t, newCompactor(t, bkt, testOptions(t, "one")))
	before := content(t, bkt)
	askSeries(t, bkt, "bb", ofSeries(`{i="1"}`, 0, time.Now().UnixMilli()), 5*time.Hour)
	undone := askSeries(t, bkt, "bb", ofSeries(`{i="1"}`, 0, time.Now().UnixMilli()), time.Hour)
	if err := deletion.PutUndo(t.Context(), bkt, deletion.NewChange(undone.ID, time.UnixMilli(undone.Asked))); err != nil {
		t.Fatal(err)
	}
	askSeries(t, bkt, "cc", ofSeries(`{i="1"}`, 0, time.Now().UnixMilli()), time.Hour)
	askSeries(t, bkt, "bb", ofSeries(`{i="1"}`, 0, oldest-1), time.Hour)
	askSeries(t, bkt, "bb", ofSeries(`{i="7"}`, 0, time.Now().UnixMilli()), time.Hour)
	askSeries(t, bkt, tenant.Default, ofSeries(`{i="1"}`, 0, time.Now().UnixMilli()), time.Hour)
	once(t, newCompactor(t, bkt, testOptions(t, "one")))
	sameContent(t, content(t, bkt), before)
}

// TestEraseKilled ends the process before and after writes to the bucket, and at reads. Another process makes the same
// bucket of it, and at no point a sample is gone that is to stay.
func TestEraseKilled(t *testing.T) {
	start, want := erasable(t)
	undisturbed := &mortal{Bucket: clone(start), left: -1, reads: true}
	o := testOptions(t, "one")
	o.DeleteDelay = 0
	once(t, newCompactor(t, undisturbed, o))
	once(t, newCompactor(t, undisturbed, o))
	end := content(t, undisturbed.Bucket.(*objstore.InMemBucket))
	got, _ := samplesOf(t, undisturbed)
	sameSamples(t, got, want)
	for _, kind := range []string{"before", "after", "read"} {
		for _, k := range points(undisturbed.calls) {
			bkt := clone(start)
			ctx, cancel := context.WithCancel(t.Context())
			m := &mortal{Bucket: bkt, left: k, after: kind == "after", reads: kind == "read", die: cancel}
			_ = newCompactor(t, m, o).Once(ctx)
			cancel()
			if !m.dead {
				break
			}
			got, _ := samplesOf(t, bkt)
			for name, list := range want {
				have := map[int64]bool{}
				for _, s := range got[name] {
					have[s.t] = true
				}
				for _, s := range list {
					if !have[s.t] {
						t.Fatalf("%s call %d: %s lacks the sample at %d", kind, k, name, s.t)
					}
				}
			}
			again := newCompactor(t, bkt, o)
			once(t, again)
			once(t, again)
			sameContent(t, content(t, bkt), end)
			if t.Failed() {
				t.Fatalf("%s call %d of %d", kind, k, undisturbed.calls)
			}
		}
	}
}
