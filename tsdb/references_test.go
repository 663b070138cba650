package tsdb

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestChunksOfLostSeries: a crash that tore the WAL may leave chunks on disk of series whose names it lost. Series that
// are made later must not get their samples, although the TSDB gives them the same references.
func TestChunksOfLostSeries(t *testing.T) {
	for _, c := range []struct{ late, torn bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("late %t, torn %t", c.late, c.torn), func(t *testing.T) {
			o := testOptions(t)
			d := openDB(t, o)
			start := time.Now().Add(-50 * time.Minute).UnixMilli()
			write := func(label string, from int64) {
				if c.late {
					b := wire.NewBatch(team)
					for i := range tornSeries {
						b.Add(labels.FromStrings(label, fmt.Sprint(i))).Samples = []wire.Sample{{T: from + 2_990_000, V: 1}}
					}
					mustAppend(t, d, b)
				}
				for at := from; at < from+2_900_000; at += 10_000 {
					b := wire.NewBatch(team)
					for i := range tornSeries {
						b.Add(labels.FromStrings(label, fmt.Sprint(i))).Samples = []wire.Sample{{T: at, V: 1}}
					}
					mustAppend(t, d, b)
				}
			}
			write("old", start)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			dir := d.TenantDir(team)
			snapshots, err := filepath.Glob(filepath.Join(dir, "chunk_snapshot.*"))
			if err != nil || len(snapshots) == 0 {
				t.Fatal(snapshots, err)
			}
			for _, s := range snapshots {
				if err := os.RemoveAll(s); err != nil {
					t.Fatal(err)
				}
			}
			_, last, err := wlog.Segments(filepath.Join(dir, "wal"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range last + 1 {
				if err := os.Truncate(wlog.SegmentName(filepath.Join(dir, "wal"), i), 0); err != nil {
					t.Fatal(err)
				}
			}
			if c.torn {
				appendFile(t, wlog.SegmentName(filepath.Join(dir, "wal"), last), "torn, torn, torn, torn, torn")
			}
			d = openDB(t, o)
			write("new", start+3_000)
			check := func() {
				t.Helper()
				for name, ps := range read(t, d, team) {
					for _, p := range ps {
						if (p.t-start)%10_000 != 3_000 {
							t.Fatalf("%s has a sample of a series that was lost, at %d", name, p.t-start)
						}
					}
				}
			}
			check()
			crashed := filepath.Join(t.TempDir(), "crashed")
			if err := os.CopyFS(crashed, os.DirFS(o.Dir)); err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = openDB(t, o)
			check()
			o.Dir = crashed
			d = openDB(t, o)
			check()
		})
	}
}

// TestReservedBehindSnapshot stops and starts a tenant whose log has lost the names of series: a start from a snapshot
// does not read what the log says before it, and references stay reserved all the same.
func TestReservedBehindSnapshot(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	start := time.Now().Add(-100 * time.Minute).UnixMilli()
	write := func(label string, from int64, n int) {
		for i := range n {
			b := wire.NewBatch(team)
			for j := range tornSeries {
				b.Add(labels.FromStrings(label, fmt.Sprint(j))).Samples = []wire.Sample{{T: from + int64(i)*10_000, V: 1}}
			}
			mustAppend(t, d, b)
		}
	}
	restart := func() {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = openDB(t, o)
	}
	wal := filepath.Join(d.TenantDir(team), "wal")
	write("kept", start, 1)
	restart()
	_, kept, err := wlog.Segments(wal)
	if err != nil {
		t.Fatal(err)
	}
	write("lost", start, 290)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	snapshots, err := filepath.Glob(filepath.Join(d.TenantDir(team), "chunk_snapshot.*"))
	if err != nil || len(snapshots) == 0 {
		t.Fatal(snapshots, err)
	}
	for _, s := range snapshots {
		if err := os.RemoveAll(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(wlog.SegmentName(wal, kept), 0); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	restart() // from a snapshot without the lost series
	write("new", start+3_003_000, 290)
	for range 2 {
		got := read(t, d, team)
		if len(got) != 2*tornSeries {
			t.Fatalf("%d series, want %d", len(got), 2*tornSeries)
		}
		for i := range tornSeries {
			name := labels.FromStrings("new", fmt.Sprint(i)).String()
			if ps := got[name]; len(ps) != 290 || ps[0].t != start+3_003_000 {
				t.Fatalf("%s has %d samples from %d on, want 290 from %d on", name, len(ps), ps[0].t-start, 3_003_000)
			}
		}
		restart()
	}
}
