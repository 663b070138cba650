package block

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"
)

// TestObjectStores does with real object stores what Hearth asks of them. HEARTH_OBJSTORES names configurations, as
// paths with a colon between them; without it only a directory is tried. What is written is removed again.
func TestObjectStores(t *testing.T) {
	t.Setenv("HEARTH_TEST_DIRECTORY", t.TempDir())
	configs := map[string]string{"directory": "type: FILESYSTEM\nprefix: a/b\nconfig: {directory: $(HEARTH_TEST_DIRECTORY)}"}
	for _, path := range filepath.SplitList(os.Getenv("HEARTH_OBJSTORES")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		configs[filepath.Base(path)] = string(text)
	}
	for name, text := range configs {
		t.Run(name, func(t *testing.T) {
			bkt, err := OpenBucket(slog.New(slog.DiscardHandler), nil, name, []byte(text), "test")
			if err != nil {
				t.Fatal(err)
			}
			defer bkt.Close()
			folder := fmt.Sprintf("hearth-test-%d", time.Now().UnixNano())
			t.Run("acceptance", func(t *testing.T) { // objstore's own test
				objstore.AcceptanceTest(t, objstore.NewPrefixedBucket(bkt, folder+"-acceptance"))
			})
			t.Run("blocks", func(t *testing.T) { tryBlocks(t, objstore.NewPrefixedBucket(bkt, folder)) })
		})
	}
}

// tryBlocks ships a block, and lists more blocks than a page of a listing has.
func tryBlocks(t *testing.T, bkt objstore.Bucket) {
	const blocks = 1203
	dir, meta := localBlock(t, 3)
	ids := []ulid.ULID{meta.ULID}
	if err := Upload(t.Context(), bkt, dir, meta); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for n := range blocks {
		m := metaOnly(mimirID(n), "a")
		ids = append(ids, m.ULID)
		var b bytes.Buffer
		if err := m.Write(&b); err != nil {
			t.Fatal(err)
		}
		g.Go(func() error { return bkt.Upload(t.Context(), Object(m.ULID, MetaName), &b) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := MarkDeletion(t.Context(), bkt, ids[1], "", time.Now()); err != nil {
		t.Fatal(err)
	}
	writer := NewFetcher(bkt, FetcherOptions{})
	pass, err := writer.WriteIndex(t.Context(), bkt)
	if err != nil || len(pass.View.Metas) != blocks+1 || len(pass.View.Deletions) != 1 {
		t.Fatalf("%d blocks, %d marks, %v", len(pass.View.Metas), len(pass.View.Deletions), err)
	}
	v, err := NewFetcher(bkt, FetcherOptions{MaxIndexAge: time.Hour}).Fetch(t.Context())
	if err != nil || len(v.Metas) != blocks+1 || v.Hash != pass.View.Hash || len(v.Deletions) != 1 {
		t.Fatalf("by the index: %d blocks, %d marks, %v, %v", len(v.Metas), len(v.Deletions), err, v.IndexFault)
	}
	if _, err := Download(t.Context(), bkt, meta.ULID, filepath.Join(t.TempDir(), meta.ULID.String())); err != nil {
		t.Fatal(err)
	}
	r, err := bkt.GetRange(t.Context(), Object(meta.ULID, IndexName), 1<<40, 10) // past the end
	if err == nil {
		var b bytes.Buffer
		if n, rerr := b.ReadFrom(r); n > 0 || rerr != nil && !PastEnd(rerr) {
			t.Errorf("past the end: %d bytes, %v", n, rerr)
		}
		r.Close()
	} else if !PastEnd(err) {
		t.Errorf("past the end: %v", err)
	}
	for _, id := range ids {
		g.Go(func() error { return Delete(t.Context(), bkt, id) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var left []string
	err = bkt.Iter(t.Context(), "", func(name string) error {
		if !strings.HasPrefix(name, "debug/") {
			left = append(left, name)
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil || len(left) != 2 { // the index
		t.Errorf("left: %v, %v", left, err)
	}
	for _, name := range append(left, debugMetas+"/"+meta.ULID.String()+".json") {
		if err := bkt.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}
