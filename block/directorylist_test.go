package block

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestDirectoryListing: listings are those of the provider, also of what is no object: empty directories, links,
// a file in place of a directory, and nothing.
func TestDirectoryListing(t *testing.T) {
	root := t.TempDir()
	inside := filepath.Join(root, "some", "prefix")
	for _, name := range []string{"b/c/d", "b/c.x", "b/e/f/g", "a", "b.c", "0/1"} {
		path := filepath.Join(inside, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"empty", "b/empty/empty"} {
		if err := os.MkdirAll(filepath.Join(inside, filepath.FromSlash(name)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"link", "b/dangling"} {
		if err := os.Symlink(filepath.Join(inside, "b", name), filepath.Join(inside, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	bkt, err := OpenBucket(slog.New(slog.DiscardHandler), nil, "test",
		fmt.Appendf(nil, "type: FILESYSTEM\nprefix: some/prefix\nconfig: {directory: %s}", root), "test")
	if err != nil {
		t.Fatal(err)
	}
	library, err := filesystem.NewBucket(root)
	if err != nil {
		t.Fatal(err)
	}
	names := func(bkt objstore.BucketReader, dir string, options ...objstore.IterOption) (out []string) {
		err := bkt.Iter(t.Context(), dir, func(name string) error {
			out = append(out, name)
			return nil
		}, options...)
		if err != nil {
			t.Errorf("%q: %v", dir, err)
		}
		return out
	}
	want := objstore.NewPrefixedBucket(library, "some/prefix")
	for _, dir := range []string{"", "b", "b/", "b/c/", "b/e", "empty/", "nothing", "nothing/at/all", "a"} {
		for _, options := range [][]objstore.IterOption{nil, {objstore.WithRecursiveIter()}} {
			if a, b := names(bkt, dir, options...), names(want, dir, options...); !slices.Equal(a, b) {
				t.Errorf("%q, %d options: %q, want %q", dir, len(options), a, b)
			}
		}
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if bkt.Iter(stopped, "", func(string) error { return nil }) == nil {
		t.Error("no error after the context has ended")
	}
	if bkt.Iter(t.Context(), "", func(string) error { return errStop }) == nil {
		t.Error("no error of the caller's")
	}
}

// TestDirectoryBlocks: a full listing of a directory finds what one of any other bucket finds.
func TestDirectoryBlocks(t *testing.T) {
	root := t.TempDir()
	bkt, err := OpenBucket(slog.New(slog.DiscardHandler), nil, "test",
		fmt.Appendf(nil, "type: FILESYSTEM\nconfig: {directory: %s}", root), "test")
	if err != nil {
		t.Fatal(err)
	}
	other := objstore.NewInMemBucket()
	put := func(name, content string) {
		t.Helper()
		put1(t, bkt, "inside/"+name, content)
		put1(t, bkt, name, content)
		put1(t, other, name, content)
	}
	meta := func(n int) string {
		m := metaOnly(mimirID(n), "a")
		var b strings.Builder
		if err := m.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	put(Object(mimirID(1), MetaName), meta(1))
	put(Object(mimirID(1), "chunks/000001"), "x")
	put(Object(mimirID(1), NoCompactMarkName), fmt.Sprintf(`{"id":%q,"version":1,"reason":"manual"}`, mimirID(1)))
	put(Object(mimirID(2), "chunks/000001"), "the first object of an upload")
	put(Object(mimirID(3), IndexName), "the second one")
	put(Object(mimirID(4), DeletionMarkName), fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":5}`, mimirID(4)))
	put(mimirID(5).String(), "a file of this name")
	put("tenant/"+Object(mimirID(6), MetaName), meta(6))
	if err := os.MkdirAll(filepath.Join(root, mimirID(7).String(), "chunks"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := fetch(t, NewFetcher(other, FetcherOptions{}))
	for prefix, bkt := range map[string]objstore.Bucket{"": bkt, "inside": objstore.NewPrefixedBucket(bkt, "inside")} {
		got := fetch(t, NewFetcher(bkt, FetcherOptions{}))
		if len(got.Metas) != 1 || got.Metas[mimirID(1)] == nil || len(got.NoCompact) != 1 || len(got.Deletions) != 1 ||
			len(got.Partial) != 3 {
			t.Errorf("%q: %+v", prefix, got)
		}
		for id, err := range want.Partial {
			if errs.KindOf(got.Partial[id]) != errs.KindOf(err) {
				t.Errorf("%q: %s: %v, want %v", prefix, id, got.Partial[id], err)
			}
		}
	}
	if len(want.Partial) != 3 || len(want.Metas) != 1 {
		t.Errorf("%+v", want)
	}
}

// TestDirectoryVanishes: a directory that is removed while it is listed has no entries.
func TestDirectoryVanishes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "block")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := openFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if entries, err := entriesOf(f); err != nil || len(entries) != 0 {
		t.Error(entries, err)
	}
	if empty, err := isEmpty(path); err != nil || !empty {
		t.Error(empty, err)
	}
}
