package tsdb

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/repair"
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

// TestCrashThenRestart starts twice after a crash with mapped chunks in memory: what replaces them is not to be taken
// for them.
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

// TestRightMarkers sees that the logs are left as they are after a stop, also with cuts that were done.
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
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	wbl := filepath.Join(dir, wlog.WblDirName)
	before := contents(t, wbl)
	if len(before) == 0 {
		t.Fatal("there is no WBL: the test shows nothing")
	}
	lost, err := repair.Logs(slog.New(slog.DiscardHandler), dir, o.WALCompression, time.Now())
	if after := contents(t, wbl); lost != 0 || err != nil || !maps.Equal(before, after) {
		t.Fatalf("lost %d, %v; the files were %d, and are %d", lost, err, len(before), len(after))
	}
}

// contents is what the files in dir have in them, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range tree(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(b)
	}
	return all
}
