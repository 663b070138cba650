package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func openDirectory(t *testing.T, dir string) objstore.Bucket {
	t.Helper()
	text := fmt.Sprintf("type: FILESYSTEM\nprefix: a/b/\nconfig: {directory: %q}", dir)
	bkt, err := OpenBucket(slog.New(slog.DiscardHandler), nil, "f", []byte(text), "test")
	if err != nil {
		t.Fatal(err)
	}
	return bkt
}

// slowly gives one byte for each Read.
func slowly(b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) }

// TestDirectoryIsNeverHalf: a reader that looks all the time finds no object, the old one or the new one, never a part
// of one, and a listing shows nothing else.
func TestDirectoryIsNeverHalf(t *testing.T) {
	dir := t.TempDir()
	writer, reader := openDirectory(t, dir), openDirectory(t, dir)
	const writes = 150
	name := Object(testID(1), MetaName)
	var done atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer done.Store(true)
		for n := range writes {
			text := fmt.Appendf(nil, `{"n": %d, "text": %q}`, n, strings.Repeat("x", 10*n))
			if err := writer.Upload(t.Context(), name, slowly(text)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	last, reads := -1, 0
	for ; !done.Load(); reads++ {
		b, err := readSmall(t.Context(), reader, name, 1<<20)
		var got struct{ N int }
		switch {
		case errs.KindOf(err) == errs.NotFound && last < 0:
			continue
		case err != nil:
			t.Fatal(err)
		case json.Unmarshal(b, &got) != nil || got.N < last:
			t.Fatalf("after write %d: %.40q, %d bytes", last, b, len(b))
		}
		last = got.N
		for _, listed := range allNames(t, reader) {
			if listed != name {
				t.Fatalf("%s is listed", listed)
			}
		}
	}
	wg.Wait()
	if reads < writes {
		t.Errorf("only %d reads beside %d writes", reads, writes)
	}
}

func allNames(t *testing.T, bkt objstore.Bucket) (all []string) {
	t.Helper()
	var again []string
	err := bkt.Iter(t.Context(), "", func(name string) error { all = append(all, name); return nil },
		objstore.WithRecursiveIter())
	if err := errors.Join(err, bkt.IterWithAttributes(t.Context(), "", func(a objstore.IterObjectAttributes) error {
		again = append(again, a.Name)
		return nil
	}, objstore.WithRecursiveIter())); err != nil || !slices.Equal(all, again) {
		t.Fatalf("%q, %q, %v", all, again, err)
	}
	return all
}

// TestDirectoryFails: an upload that fails leaves what was there, and no file of its own.
func TestDirectoryFails(t *testing.T) {
	dir := t.TempDir()
	bkt := openDirectory(t, dir)
	if err := bkt.Upload(t.Context(), "x/y", strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	for what, upload := range map[string]func() error{
		"a body that breaks off": func() error {
			return bkt.Upload(t.Context(), "x/y", io.MultiReader(strings.NewReader("ne"), iotest.ErrReader(broken)))
		},
		"a caller that goes away": func() error {
			return bkt.Upload(ctx, "x/y", io.MultiReader(strings.NewReader("new"), readerFunc(func([]byte) (int, error) {
				cancel()
				return 0, io.EOF
			})))
		},
		"a name that is a directory": func() error { return bkt.Upload(t.Context(), "x", strings.NewReader("new")) },
	} {
		if err := upload(); err == nil {
			t.Errorf("%s is no error", what)
		}
		if b, err := readSmall(t.Context(), bkt, "x/y", 10); err != nil || string(b) != "old" {
			t.Errorf("%s: %q, %v", what, b, err)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "a", "b", unfinished)); len(left) != 0 {
			t.Errorf("%s left %v", what, left)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestDirectoryLeftovers: what a crash left is not listed, and is removed when it is old; what another process is
// writing stays.
func TestDirectoryLeftovers(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "a", "b", unfinished)
	if err := os.MkdirAll(at, 0o777); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 2 * leftover, "young": leftover / 2} {
		path := filepath.Join(at, name)
		if err := errors.Join(os.WriteFile(path, []byte("{"), 0o666), os.Chtimes(path, now, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	bkt := openDirectory(t, dir)
	if names := allNames(t, bkt); len(names) != 0 {
		t.Errorf("%q are listed", names)
	}
	if err := bkt.Upload(t.Context(), "x", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(at)
	if err != nil || len(left) != 1 || left[0].Name() != "young" {
		t.Errorf("%v, %v", left, err)
	}
}

// TestDirectoryDeletes: a writer and a deleter in one directory, which is empty again and again, do not take each
// other's objects.
func TestDirectoryDeletes(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range 3 {
		bkt := openDirectory(t, dir)
		wg.Go(func() {
			name := fmt.Sprint("marks/deep/", w)
			for range 200 {
				if err := bkt.Upload(t.Context(), name, strings.NewReader("x")); err != nil {
					t.Error(err)
					return
				}
				if ok, err := bkt.Exists(t.Context(), name); !ok || err != nil {
					t.Errorf("an object that was written is gone: %v", err)
					return
				}
				if err := bkt.Delete(t.Context(), name); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	bkt := openDirectory(t, dir)
	if err := bkt.Delete(t.Context(), "marks/none"); err != nil {
		t.Error(err)
	}
	if names := allNames(t, bkt); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
	if _, err := os.Stat(filepath.Join(dir, "a", "b", "marks")); !os.IsNotExist(err) {
		t.Errorf("an empty directory is left: %v", err)
	}
}
