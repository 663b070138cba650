package store

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// adopt moves a block from the root of a bucket into the directory of a tenant.
func adopt(t *testing.T, bkt objstore.Bucket, id ulid.ULID, home string) {
	t.Helper()
	var names []string
	err := bkt.Iter(t.Context(), id.String()+"/", func(name string) error { names = append(names, name); return nil },
		objstore.WithRecursiveIter())
	for _, name := range names {
		if err != nil {
			break
		}
		r, rerr := bkt.Get(t.Context(), name)
		if rerr != nil {
			t.Fatal(rerr)
		}
		err = bkt.Upload(t.Context(), home+"/"+name, r)
		r.Close()
		if err == nil {
			err = bkt.Delete(t.Context(), name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func one(name string, at int64, v float64) sourcetest.Series {
	return sourcetest.Series{Labels: labels.FromStrings("__name__", "m", "of", name),
		Samples: []sourcetest.Sample{{T: at, V: v}}}
}

// TestMimirIsolation: blocks of a bucket in Mimir's layout are their directory's tenant's and nobody else's, shards of
// one compaction are all served, and external labels are not shown.
func TestMimirIsolation(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	sources := []ulid.ULID{ulid.MustNew(1, strings.NewReader("0123456789")), ulid.MustNew(2, strings.NewReader("0123456789"))}
	put := func(home string, in sourcetest.Series, external map[string]string, edit ...func(*block.Meta)) ulid.ULID {
		t.Helper()
		id := upload(t, bkt, makeBlock(t, []sourcetest.Series{in}), external, edit...)
		adopt(t, bkt, id, home)
		return id
	}
	// A merge of more sources has one shard of a time in which another shard is that of fewer ones.
	put("a", one("shard 1", 1000, 1), map[string]string{"__org_id__": "a", "__compactor_shard_id__": "1_of_2"},
		func(m *block.Meta) { m.Compaction.Sources, m.MinTime, m.MaxTime = sources, 0, 10_000 })
	put("a", one("shard 2", 1000, 2), map[string]string{"__org_id__": "a", "__compactor_shard_id__": "2_of_2"},
		func(m *block.Meta) { m.Compaction.Sources = sources[:1] })
	// Two copies, which ingesters shipped: one series.
	for range 2 {
		put("a", one("copies", 1000, 3), map[string]string{"__org_id__": "a", "__ingester_id__": "i"})
	}
	first := put("b", one("b", 1000, 4), map[string]string{"__org_id__": "a", "tenant_id": "a"})
	put("b", one("b too", 1000, 5), nil)
	before := len(bkt.Objects())
	g := opened(t, bkt, func(o *Options) { o.Mimir = true })
	f := func(id tenant.ID, warnings int, want ...string) {
		t.Helper()
		set := g.Select(t.Context(), &series.Request{Tenant: id, MinTime: 0, MaxTime: 10_000, Matchers: []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}})
		defer set.Close()
		var got []string
		for set.Next() {
			got = append(got, set.At().Labels.String())
		}
		if err := set.Err(); err != nil || len(set.Warnings()) != warnings {
			t.Errorf("%s: %v, %v", id, err, set.Warnings())
		}
		for i := range want {
			want[i] = fmt.Sprintf(`{__name__="m", of=%q}`, want[i])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	f("a", 0, "copies", "shard 1", "shard 2")
	f("b", 0, "b", "b too")
	f("c", 0)
	f(tenant.Default, 0)
	names, _, err := g.LabelValues(t.Context(), "of", &series.Request{Tenant: "b", MinTime: 0, MaxTime: math.MaxInt64})
	if err != nil || !slices.Equal(names, []string{"b", "b too"}) {
		t.Errorf("%q, %v", names, err)
	}
	for id, want := range map[tenant.ID]string{"a": `[{tenant_id="a"}]`, "b": `[{tenant_id="b"}]`} {
		if got := fmt.Sprint(g.External(id)); got != want {
			t.Errorf("external labels of %s: %s, want %s", id, got, want)
		}
	}

	// A fault in one tenant's directory is that tenant's.
	if err := bkt.Upload(t.Context(), "b/"+ulid.MustNew(ulid.Timestamp(time.Now().Add(-time.Hour)),
		strings.NewReader("0123456789")).String()+"/meta.json", strings.NewReader("{")); err != nil {
		t.Fatal(err)
	}
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	f("a", 0, "copies", "shard 1", "shard 2")
	f("b", 1, "b", "b too")

	// A block that goes is found to be gone, by a gateway that has not read it yet.
	g = opened(t, bkt, func(o *Options) { o.Mimir = true })
	for _, name := range []string{"meta.json", "index", "chunks/000001"} {
		if err := bkt.Delete(t.Context(), "b/"+first.String()+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	f("a", 0, "copies", "shard 1", "shard 2")
	f("b", 1, "b too")

	// A tenant that is marked for deletion is gone at once.
	if err := bkt.Upload(t.Context(), "b/markers/tenant-deletion-mark.json", strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	f("a", 0, "copies", "shard 1", "shard 2")
	f("b", 0)
	if got := len(bkt.Objects()); got != before-1 { // three were deleted, two put
		t.Errorf("%d objects, want %d: nothing may be written", got, before-1)
	}
}

// TestMimirAgrees: a tenant of a bucket in Mimir's layout reads what a bucket of its own would say.
func TestMimirAgrees(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
		bkt := objstore.NewInMemBucket()
		b := upload(t, bkt, makeBlock(t, in), map[string]string{"__org_id__": "x", "__compactor_shard_id__": "1_of_1"})
		adopt(t, bkt, b, string(id))
		return opened(t, bkt, func(o *Options) { o.Mimir = true })
	})
}
