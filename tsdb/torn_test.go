package tsdb

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

const tornSeries = 20

// afterTornLog leaves a tenant whose series have chunks on disk that are newer than anything in the WAL, as a crash of
// the machine does. It returns the times that were written, and those that the series may have lost.
func afterTornLog(t *testing.T, o *Options, restart bool) (times []int64) {
	t.Helper()
	d := openDB(t, *o)
	start := time.Now().Add(-50 * time.Minute).UnixMilli()
	for i := range int64(250) {
		times = append(times, start+i*10_000)
	}
	send := func(at int64) {
		b := wire.NewBatch(team)
		for i := range tornSeries {
			b.Add(labels.FromStrings("i", fmt.Sprint(i))).Samples = []wire.Sample{{T: at, V: float64(at)}}
		}
		mustAppend(t, d, b)
	}
	for _, at := range times[:10] {
		send(at)
	}
	older := filepath.Join(t.TempDir(), "older")
	if restart { // there is a snapshot, from before the chunks
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(older, os.DirFS(d.TenantDir(team))); err != nil {
			t.Fatal(err)
		}
		d = openDB(t, *o)
	}
	wal := filepath.Join(d.TenantDir(team), "wal")
	_, last, err := wlog.Segments(wal)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.Stat(wlog.SegmentName(wal, last))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range times[10:] {
		send(at)
	}
	if err := d.Close(); err != nil { // which writes the chunks, as it comes about in time by itself
		t.Fatal(err)
	}
	snapshots := func(dir string) []string {
		found, err := filepath.Glob(filepath.Join(dir, "chunk_snapshot.*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, s := range snapshots(d.TenantDir(team)) {
		if err := os.RemoveAll(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range snapshots(older) {
		if err := os.CopyFS(filepath.Join(d.TenantDir(team), filepath.Base(s)), os.DirFS(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(wlog.SegmentName(wal, last), kept.Size()+9); err != nil {
		t.Fatal(err)
	}
	return times
}

// TestTornLog: after a crash that tore the WAL, series whose newest samples are in mapped chunks take older ones again,
// or say that they do not. What the library does with them by itself is TestLibraryAfterTornLog's.
func TestTornLog(t *testing.T) {
	for name, c := range map[string]struct {
		restart bool
		harm    func(t *testing.T, dir string)
	}{
		"as it is":        {},
		"with a snapshot": {restart: true},
		"with a torn WBL": {harm: func(t *testing.T, dir string) {
			wbl := filepath.Join(dir, wlog.WblDirName)
			if err := os.MkdirAll(wbl, 0o777); err != nil {
				t.Fatal(err)
			}
			appendFile(t, wlog.SegmentName(wbl, 0), "torn, torn, torn, torn, torn")
		}},
		"with a damaged mapped chunk": {harm: func(t *testing.T, dir string) {
			files, err := filepath.Glob(filepath.Join(dir, "chunks_head", "0*"))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			f, err := os.OpenFile(files[0], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("damaged"), info.Size()/2); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			times := afterTornLog(t, &o, c.restart)
			if c.harm != nil {
				c.harm(t, filepath.Join(o.Dir, string(team)))
			}
			d := openDB(t, o)
			// The sender sends again what it has no answer for, from before and after the end of the chunks on disk,
			// and some that are new, the oldest first.
			acked := map[string][]int64{}
			for _, at := range times {
				for _, at := range []int64{at, at + 1} {
					b := wire.NewBatch(team)
					for i := range tornSeries {
						b.Add(labels.FromStrings("i", fmt.Sprint(i))).Samples = []wire.Sample{{T: at, V: float64(at)}}
					}
					failures, err := d.Append(t.Context(), wire.All(b))
					if err != nil {
						t.Fatal(err)
					}
					refused := map[int]bool{}
					for _, f := range failures {
						if refused[f.Series] = true; f.Kind != errs.Conflict {
							t.Fatal(f)
						}
					}
					for i := range tornSeries {
						if !refused[i] {
							name := labels.FromStrings("i", fmt.Sprint(i)).String()
							acked[name] = append(acked[name], at)
						}
					}
				}
			}
			check := func() {
				t.Helper()
				lost, all := 0, 0
				got := read(t, d, team)
				for name, times := range acked {
					have := map[int64]bool{}
					for _, p := range got[name] {
						have[p.t] = true
					}
					for _, at := range times {
						if all++; !have[at] {
							lost++
						}
					}
				}
				if lost > 0 || all != 2*len(times)*tornSeries {
					t.Fatalf("%d of %d acknowledged samples are gone, %d were sent", lost, all, 2*len(times)*tornSeries)
				}
			}
			check()
			dir := filepath.Join(t.TempDir(), "again")
			if err := os.CopyFS(dir, os.DirFS(o.Dir)); err != nil { // the process dies as well
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = openDB(t, o)
			check()
			o.Dir = dir
			d = openDB(t, o)
			check()
			if err := d.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
			check()
		})
	}
}

// TestLibraryAfterTornLog pins what the TSDB does by itself: it says that it appended samples, and drops them. When
// this test fails the library is mended, and fenceMapped can go.
func TestLibraryAfterTornLog(t *testing.T) {
	o := testOptions(t)
	times := afterTornLog(t, &o, false)
	po := promtsdb.DefaultOptions()
	po.OutOfOrderTimeWindow = o.Window.Milliseconds()
	plain, err := promtsdb.Open(filepath.Join(o.Dir, string(team)), slog.New(slog.DiscardHandler), nil, po, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	before := countPlain(t, plain)
	taken := 0
	for _, at := range times {
		app := plain.AppenderV2(context.Background())
		_, err := app.Append(0, labels.FromStrings("i", "0"), 0, at+1, 1, nil, nil, storage.AOptions{})
		if err == nil {
			taken++
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if kept := countPlain(t, plain) - before; taken != len(times) || kept == taken {
		t.Errorf("the TSDB took %d of %d samples and has %d of them", taken, len(times), kept)
	}
}

// countPlain is how many samples plain has of the first series.
func countPlain(t *testing.T, plain *promtsdb.DB) int {
	t.Helper()
	text := readPlain(t, plain, 0, 1<<62, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", "0")})[`{i="0"}`]
	return strings.Count(text, "{")
}
