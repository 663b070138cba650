package tsdb

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// crashInCut is the directory of a process that was killed in a cut of out-of-order samples: after the series were
// scanned, while writers went on, before the first block was done. It holds 6 samples of each of 3 series.
func crashInCut(t *testing.T) Options {
	o := testOptions(t)
	d := openDB(t, o)
	now := time.Now().UnixMilli()
	at := func(offsets ...int64) {
		b := wire.NewBatch(team)
		floats := b.Add(labels.FromStrings("__name__", "floats"))
		for _, off := range offsets {
			floats.Samples = append(floats.Samples, wire.Sample{T: now + off, V: float64(off)})
		}
		for _, name := range []string{"ints", "histograms"} {
			s := b.Add(labels.FromStrings("__name__", name))
			for _, off := range offsets {
				h := wire.Histogram{T: now + off, H: tsdbutil.GenerateTestHistogram(3)}
				if name == "histograms" {
					h.H, h.FH = nil, tsdbutil.GenerateTestFloatHistogram(3)
				}
				s.Histograms = append(s.Histograms, h)
			}
		}
		mustAppend(t, d, b)
	}
	at(0)
	at(-5)
	at(-7)
	at(-6)
	if _, err := promtsdb.NewOOOCompactionHead(t.Context(), d.lookup(team).in.db.Head()); err != nil {
		t.Fatal(err)
	}
	at(-20)
	at(-30)
	crashed := testOptions(t)
	if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	return crashed
}

func checkCrashInCut(t *testing.T, o Options) {
	t.Helper()
	d := openDB(t, o)
	for range 2 { // from the head, then from blocks
		got := read(t, d, team)
		if len(got) != 3 {
			t.Fatalf("%d series, want 3", len(got))
		}
		for name, ps := range got {
			if len(ps) != 6 {
				t.Errorf("%s: %d samples, want 6: %v", name, len(ps), ps)
			}
		}
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCrashInOutOfOrderCut(t *testing.T) { checkCrashInCut(t, crashInCut(t)) }

// TestCrashInFixMarkers dies after each step.
func TestCrashInFixMarkers(t *testing.T) {
	o := crashInCut(t)
	wbl := filepath.Join(o.Dir, string(team), wlog.WblDirName)
	log := slog.New(slog.DiscardHandler)
	f := func(step string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(step, err)
		}
		crashed := testOptions(t)
		if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
			t.Fatal(err)
		}
		checkCrashInCut(t, crashed)
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
	f("done", func() error { return fixMarkers(log, filepath.Dir(wbl), compression.None) })
	if wrong, err := wrongMarkers(filepath.Dir(wbl)); len(wrong) > 0 || err != nil {
		t.Fatalf("wrong markers %v, %v", wrong, err)
	}
}

// TestCrashThenRestart starts twice after a crash with mapped chunks in memory: what replaces them is not to be taken for
// them.
func TestCrashThenRestart(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	now := float64(time.Now().UnixMilli())
	ls := labels.FromStrings("a", "b")
	put(t, d, team, ls, now, 1)
	for i := 0.0; i < 60; i++ { // the first 20 are mapped by a cut, and 32 after them as a chunk is full
		if i == 20 {
			if _, err := promtsdb.NewOOOCompactionHead(t.Context(), d.lookup(team).in.db.Head()); err != nil {
				t.Fatal(err)
			}
		}
		put(t, d, team, ls, now-1-i, 1)
	}
	crashed := testOptions(t)
	if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		d := openDB(t, crashed)
		if got := read(t, d, team)[`{a="b"}`]; len(got) != 61 {
			t.Fatalf("start %d: %d samples, want 61", i, len(got))
		}
		for j := 0.0; j < 100; j++ { // others are mapped
			put(t, d, team, labels.FromStrings("other", "series"), now-1000*float64(i)-j, 1)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRightMarkers sees that a WBL is left as it is after a stop, also with cuts that were done.
func TestRightMarkers(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	dir := filepath.Join(o.Dir, string(team))
	now := float64(time.Now().UnixMilli())
	ls := labels.FromStrings("a", "b")
	put(t, d, team, ls, now, 1)
	for i := 0.0; i < 100; i++ { // chunks fill up and are mapped
		put(t, d, team, ls, now-1-i, 1)
		if i == 50 {
			if err := d.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if named, err := namedByMarkers(filepath.Join(dir, wlog.WblDirName)); len(named) != 1 || err != nil {
		t.Fatalf("the markers name %v, %v: the test shows nothing", named, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if wrong, err := wrongMarkers(dir); len(wrong) > 0 || err != nil {
		t.Fatalf("wrong markers %v, %v", wrong, err)
	}
	if wrong, err := wrongMarkers(t.TempDir()); len(wrong) > 0 || err != nil {
		t.Fatalf("wrong markers %v, %v without any log", wrong, err)
	}
}
