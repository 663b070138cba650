package block

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/bucketindex"
)

// manyBlocks is a bucket of n small blocks of 50 tenants with 3 replicas each. Their objects are made when they are
// read; other objects are in the bucket that it wraps.
type manyBlocks struct {
	objstore.Bucket
	ids []ulid.ULID
}

func newManyBlocks(n int) *manyBlocks {
	b := &manyBlocks{Bucket: objstore.NewInMemBucket()}
	for i := range n {
		var id ulid.ULID
		_ = id.SetTime(uint64(1_700_000_000_000 + i/150*7_200_000))
		binary.BigEndian.PutUint64(id[8:], uint64(i)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint16(id[6:], uint16(i))
		b.ids = append(b.ids, id)
	}
	return b
}

func (b *manyBlocks) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	for _, id := range b.ids {
		names := []string{id.String() + "/"}
		switch {
		case dir != "":
			names = nil
		case len(o) > 0:
			names = []string{Object(id, "chunks/000001"), Object(id, IndexName), Object(id, MetaName)}
		}
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
	}
	return b.Bucket.Iter(ctx, dir, f, o...)
}

// writeIndex writes the index of all blocks, and returns its size.
func (b *manyBlocks) writeIndex(t testing.TB) int64 {
	t.Helper()
	var ix bucketindex.Index
	for _, id := range b.ids {
		m := metaOnly(id, fmt.Sprintf("tenant-%d", id[15]%50))
		m.Thanos.Labels["receive_replica"] = fmt.Sprintf("r%d", id[14]%3)
		ix.Blocks = append(ix.Blocks, m.essential())
	}
	ix.Sort()
	content, err := bucketindex.Encode(ix)
	if err != nil {
		t.Fatal(err)
	}
	p := bucketindex.NewPointer(content, 1, time.Now())
	put1(t, b, p.Object(), string(content))
	put1(t, b, bucketindex.PointerName, string(p.Encode()))
	return p.Size
}

// heap is the memory in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestManyBlocks: 100,000 blocks cost at most 102 pages and 2 requests a sync, and 1 KiB each in memory.
func TestManyBlocks(t *testing.T) {
	const n = 99_998 // and two folders, hearth/ and debug/: 100 pages
	many := newManyBlocks(n)
	t.Logf("the index has %d bytes", many.writeIndex(t))
	bkt := &countingBucket{Bucket: many}
	put1(t, bkt.Bucket, "debug/metas/x.json", "{}")
	opts := FetcherOptions{MaxIndexAge: 12 * time.Hour, CacheDir: t.TempDir()}
	before := heap()
	f := NewFetcher(bkt, opts)
	for _, what := range []string{"first", "steady"} {
		bkt.costs()
		v := fetch(t, f)
		if c := bkt.costs(); c[0] > 2 || c[1] > 102 || c[2] != 0 || len(v.Metas) != n || v.Number == 0 {
			t.Errorf("%s: gets, pages, others %v, %d blocks, view %d", what, c, len(v.Metas), v.Number)
		}
		perBlock := float64(int64(heap())-int64(before)) / n
		t.Logf("%s: %.0f bytes for each block", what, perBlock)
		if perBlock > 1024 {
			t.Errorf("%s: %.0f bytes for each block", what, perBlock)
		}
		runtime.KeepAlive(v)
	}
	runtime.KeepAlive(f)
}

func BenchmarkFetch(b *testing.B) {
	bkt := newManyBlocks(100_000)
	opts := FetcherOptions{MaxIndexAge: 12 * time.Hour, CacheDir: b.TempDir()}
	bkt.writeIndex(b)
	run := func(name string, fetch func() *Fetcher) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, err := fetch().Fetch(b.Context()); err != nil || len(v.Metas) != 100_000 || v.Number == 0 {
					b.Fatal(len(v.Metas), v.Number, err)
				}
			}
		})
	}
	run("empty disk", func() *Fetcher { o := opts; o.CacheDir = b.TempDir(); return NewFetcher(bkt, o) })
	if _, err := NewFetcher(bkt, opts).Fetch(b.Context()); err != nil {
		b.Fatal(err)
	}
	run("warm disk", func() *Fetcher { return NewFetcher(bkt, opts) })
	f := NewFetcher(bkt, opts)
	run("steady", func() *Fetcher { return f })
}
