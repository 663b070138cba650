package repair

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// What the repair does for tenants is tested in tsdb; here it works for a TSDB of the library.

// TestOldRepair sees that the left-over of a repair that was done is not taken for more.
func TestOldRepair(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"00000003.repair", "00000003", "00000004"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := undoRepair(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "00000003")); err != nil || string(b) != "00000003" {
		t.Fatalf("%q, %v", b, err)
	}
}

// openPlain opens a TSDB of the library that takes samples out of order.
func openPlain(t *testing.T, dir string) *promtsdb.DB {
	t.Helper()
	o := promtsdb.DefaultOptions()
	o.OutOfOrderTimeWindow = time.Hour.Milliseconds()
	db, err := promtsdb.Open(dir, slog.New(slog.DiscardHandler), nil, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.DisableCompactions()
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// put appends a float, an integer histogram and a float histogram, to a series each.
func put(t *testing.T, db *promtsdb.DB, at int64) {
	t.Helper()
	app := db.AppenderV2(context.Background())
	one := func(name string, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
		_, err := app.Append(0, labels.FromStrings("__name__", name), 0, at, v, h, fh, storage.AOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	one("floats", float64(at), nil, nil)
	one("ints", 0, tsdbutil.GenerateTestHistogram(3), nil)
	one("histograms", 0, nil, tsdbutil.GenerateTestFloatHistogram(3))
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// count is how many samples each series of db has.
func count(t *testing.T, db *promtsdb.DB) map[string]int {
	t.Helper()
	q, err := db.Querier(0, 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	out := map[string]int{}
	set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchNotEqual, "__name__", ""))
	for set.Next() {
		s := set.At()
		it := s.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			out[s.Labels().Get("__name__")]++
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// crashInCut is the directory of a process that was killed in a cut of out-of-order samples: after the series were
// scanned, while writers went on, before the first block was done. It holds 6 samples of each of 3 series.
func crashInCut(t *testing.T) (dir string) {
	t.Helper()
	live := t.TempDir()
	db := openPlain(t, live)
	now := time.Now().UnixMilli()
	for _, offset := range []int64{0, -5, -7, -6} {
		put(t, db, now+offset)
	}
	if _, err := promtsdb.NewOOOCompactionHead(t.Context(), db.Head()); err != nil {
		t.Fatal(err)
	}
	put(t, db, now-20)
	put(t, db, now-30)
	return copyDir(t, live)
}

// checkCrashInCut repairs dir, opens it and finds all samples, in the head and then in blocks.
func checkCrashInCut(t *testing.T, step, dir string) {
	t.Helper()
	if lost, err := Logs(slog.New(slog.DiscardHandler), dir, compression.None, time.Now()); lost != 0 || err != nil {
		t.Fatalf("%s: lost %d, %v", step, lost, err)
	}
	db := openPlain(t, dir)
	for range 2 {
		got := count(t, db)
		if len(got) != 3 || got["floats"] != 6 || got["ints"] != 6 || got["histograms"] != 6 {
			t.Errorf("%s: %v, want 6 samples of each of 3 series", step, got)
		}
		if err := db.CompactOOOHead(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCrashInCorrectMarkers dies after each step.
func TestCrashInCorrectMarkers(t *testing.T) {
	dir := crashInCut(t)
	checkCrashInCut(t, "nothing done", copyDir(t, dir))
	wbl := filepath.Join(dir, wlog.WblDirName)
	f := func(step string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(step, err)
		}
		checkCrashInCut(t, step, copyDir(t, dir))
	}
	f("partial copy", func() error {
		return errors.Join(os.MkdirAll(wbl+".fixed.tmp", 0o777), os.WriteFile(wbl+".fixed.tmp/00000000", []byte("x"), 0o666))
	})
	f("copied", func() error {
		if err := os.RemoveAll(wbl + ".fixed.tmp"); err != nil {
			return err
		}
		return copyWithoutMarkers(wbl, wbl+".fixed.tmp", chunkSet{0: {}}, compression.None)
	})
	f("whole", func() error { return os.Rename(wbl+".fixed.tmp", wbl+".fixed") })
	f("removed", func() error { return os.RemoveAll(wbl) })
	f("done", func() error { return correctMarkers(slog.New(slog.DiscardHandler), dir, compression.None) })
	if wrong, err := wrongMarkers(dir); len(wrong) > 0 || err != nil {
		t.Fatalf("wrong markers %v, %v", wrong, err)
	}
}

// TestLibraryBelievesMarkers pins what the TSDB does by itself: it drops samples. When this test fails the library is
// mended, and correctMarkers can go.
func TestLibraryBelievesMarkers(t *testing.T) {
	if got := count(t, openPlain(t, crashInCut(t))); got["floats"] == 6 {
		t.Error("the library kept all samples: correctMarkers is not needed")
	}
}

// TestNoWrongMarkers: after a stop the markers are right, also with a cut that was done.
func TestNoWrongMarkers(t *testing.T) {
	dir := t.TempDir()
	db := openPlain(t, dir)
	now := time.Now().UnixMilli()
	for i := range int64(101) { // chunks fill up and are mapped
		put(t, db, now-i)
		if i == 51 {
			if err := db.CompactOOOHead(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if named, err := namedByMarkers(filepath.Join(dir, wlog.WblDirName)); len(named) == 0 || err != nil {
		t.Fatalf("the markers name %v, %v: the test shows nothing", named, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if wrong, err := wrongMarkers(dir); len(wrong) > 0 || err != nil {
		t.Fatalf("wrong markers %v, %v", wrong, err)
	}
	if wrong, err := wrongMarkers(t.TempDir()); len(wrong) > 0 || err != nil {
		t.Fatalf("wrong markers %v, %v without any log", wrong, err)
	}
}
