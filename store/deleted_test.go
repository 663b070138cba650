package store

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestDeletedTenant: a gateway serves a tenant until its deletion is due, and then at once none of its blocks, nor any
// that comes later. Other tenants, and blocks that say no tenant, stay, and an undo brings everything back.
func TestDeletedTenant(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	in := []sourcetest.Series{{Labels: labels.FromStrings("a", "b"), Samples: []sourcetest.Sample{{T: 10, V: 1}, {T: 20, V: 2}}}}
	id := upload(t, bkt, makeBlock(t, in), ring("acme", "r1"))
	upload(t, bkt, makeBlock(t, in), ring("other", "r1"))
	upload(t, bkt, makeBlock(t, in), map[string]string{"x": "y"})
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	g := opened(t, bkt, func(o *Options) { o.Now, o.BucketID = now, func() (string, bool) { return "", true } })
	want := func(what string, acme bool) {
		t.Helper()
		if err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, of := range []tenant.ID{"acme", "other", tenant.Default} {
			got := text(g.Select(t.Context(), ask(of, 0, 30)), 0, 30)
			if found := strings.Contains(got, `a="b"`); found != (of != "acme" || acme) {
				t.Errorf("%s: %s: %q", what, of, got)
			}
		}
		_, err := os.Stat(filepath.Join(g.opts.Dir, id.String(), block.IndexHeaderName))
		if (err == nil) != acme {
			t.Errorf("%s: its index-header: %v", what, err)
		}
	}
	want("before", true)
	first := deletion.New("acme", now(), time.Hour)
	if err := deletion.Put(t.Context(), bkt, first); err != nil {
		t.Fatal(err)
	}
	want("waiting", true)
	ahead.Store(int64(time.Hour))
	want("due", false)
	upload(t, bkt, makeBlock(t, in), ring("acme", "r2"))
	want("shipped again", false)
	ahead.Store(0)
	undo := deletion.NewChange(first.ID, now())
	if err := deletion.PutUndo(t.Context(), bkt, undo); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(2 * time.Hour))
	want("undone", true)
}
