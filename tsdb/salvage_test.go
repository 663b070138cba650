package tsdb

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// writeLog writes a log of records of all sizes, and returns them.
func writeLog(t testing.TB, dir string, n int, compress compression.Type, rng *rand.Rand) [][]byte {
	t.Helper()
	w, err := wlog.NewSize(slog.New(slog.DiscardHandler), nil, dir, 8*logPage, compress)
	if err != nil {
		t.Fatal(err)
	}
	var records [][]byte
	for i := range n {
		size := rng.IntN(200)
		if i%10 == 0 {
			size = rng.IntN(3 * logPage)
		}
		rec := make([]byte, size+8)
		for j := range rec {
			rec[j] = byte(rng.Uint32())
		}
		copy(rec, fmt.Sprintf("%08d", i))
		records = append(records, rec)
		if err := w.Log(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return records
}

func readLog(t testing.TB, dir string) (records [][]byte) {
	t.Helper()
	segments, err := wlog.NewSegmentsReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer segments.Close()
	r := wlog.NewReader(segments)
	for r.Next() {
		records = append(records, bytes.Clone(r.Record()))
	}
	if r.Err() != nil {
		t.Fatalf("after %d records: %v", len(records), r.Err())
	}
	return records
}

// TestSalvage damages logs in many places. The reader of the library must read what is left to the end, which must be
// what was written but for the records that the damage touched.
func TestSalvage(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		wal := filepath.Join(dir, "wal")
		written := writeLog(t, wal, 400, []compression.Type{compression.None, compression.Snappy}[seed%2], rng)
		segments, err := segmentsOf(wal)
		if err != nil || len(segments) < 3 {
			t.Fatalf("%d segments %v", len(segments), err)
		}
		hits := 1 + rng.IntN(3)
		for range hits {
			name := segments[rng.IntN(len(segments)-1)]
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			n := 1 + rng.IntN(600)
			at := rng.IntN(max(1, len(b)-n))
			for i := at; i < min(at+n, len(b)); i++ {
				b[i] = byte(rng.Uint32())
			}
			if err := os.WriteFile(name, b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		lost, err := salvage(dir, time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		left, at := readLog(t, wal), 0
		for _, rec := range left {
			for at < len(written) && !bytes.Equal(written[at], rec) {
				at++
			}
			if at == len(written) {
				t.Fatalf("seed %d: record %.8s is not as it was written, or not in its place", seed, rec)
			}
			at++
		}
		// Each hit costs a page and the records that reach into it: those of 0-200 bytes, and some large ones.
		total, kept := 0, 0
		for _, rec := range written {
			total += len(rec)
		}
		for _, rec := range left {
			kept += len(rec)
		}
		if gone := total - kept; gone > hits*(2*3*logPage+logPage) || gone > 0 && lost == 0 {
			t.Fatalf("seed %d: %d hits cost %d of %d bytes (%d lost)", seed, hits, gone, total, lost)
		}
		if again, err := salvage(dir, time.Unix(2e9, 0)); again != 0 || err != nil {
			t.Fatalf("seed %d: salvaged twice: %d %v", seed, again, err)
		}
	}
}

// TestSalvageLeavesTornEnds: a log whose end is torn is the TSDB's to repair, and one in order is not touched.
func TestSalvageLeavesTornEnds(t *testing.T) {
	dir := t.TempDir()
	wal := filepath.Join(dir, "wal")
	writeLog(t, wal, 150, compression.None, rand.New(rand.NewPCG(1, 2)))
	f := func(what string) {
		t.Helper()
		if lost, err := salvage(dir, time.Now()); lost != 0 || err != nil || tenantdir.Exists(filepath.Join(dir, tenantdir.DamagedName)) {
			t.Fatalf("%s: %d %v", what, lost, err)
		}
	}
	f("in order")
	segments, _ := segmentsOf(wal)
	last := segments[len(segments)-1]
	info, err := os.Stat(last)
	if err != nil {
		t.Fatal(err)
	}
	for size := info.Size() - 1; size >= 0; size -= 997 {
		if err := os.Truncate(last, size); err != nil {
			t.Fatal(err)
		}
		f(fmt.Sprint("torn at ", size))
	}
}

// TestCorruptWAL damages the middle of one tenant's WAL. What was written before and after must be there, the tenant
// takes writes, and somebody is told.
func TestCorruptWAL(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	now := time.Now().Add(-time.Hour).UnixMilli()
	const rounds, series = 300, 50
	for round := range int64(rounds) {
		b := wire.NewBatch(team)
		for i := range series {
			b.Add(labels.FromStrings("i", fmt.Sprint(i))).Samples = []wire.Sample{{T: now + round*1000, V: float64(round)}}
		}
		mustAppend(t, d, b)
		if round == 10 {
			put(t, d, "other", labels.FromStrings("a", "b"), float64(now), 1)
		}
	}
	crashed := o
	crashed.Dir = t.TempDir()
	if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	segment := filepath.Join(crashed.Dir, string(team), "wal", "00000000")
	b, err := os.ReadFile(segment)
	if err != nil || len(b) < 2*logPage {
		t.Fatalf("%d bytes %v", len(b), err)
	}
	copy(b[logPage/2:], bytes.Repeat([]byte{0xa5}, 512))
	if err := os.WriteFile(segment, b, 0o666); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, crashed)
	got := read(t, d, team)
	if len(got) != series {
		t.Fatalf("%d series, want %d", len(got), series)
	}
	for name, points := range got {
		if len(points) < rounds/2 || points[0].t != now || points[len(points)-1].t != now+(rounds-1)*1000 {
			t.Fatalf("%s: %d samples from %d to %d", name, len(points), points[0].t, points[len(points)-1].t)
		}
	}
	st := d.Status()
	if st[0].Tenant != "other" || st[0].Damage != "" || !strings.Contains(st[1].Damage, tenantdir.DamagedName) || st[1].State != Open {
		t.Fatalf("status %+v", st)
	}
	if err := d.Whole(); err == nil || !strings.Contains(err.Error(), "tenant team: its logs were damaged") {
		t.Fatalf("whole: %v", err)
	}
	if kept, err := os.ReadDir(filepath.Join(d.TenantDir(team), tenantdir.DamagedName)); err != nil || len(kept) != 1 {
		t.Fatalf("kept %v %v", kept, err)
	}
	put(t, d, team, labels.FromStrings("i", "0"), float64(now+rounds*1000), 1)
}

func FuzzSalvage(f *testing.F) {
	dir := f.TempDir()
	writeLog(f, dir, 20, compression.None, rand.New(rand.NewPCG(1, 2)))
	seed, err := os.ReadFile(filepath.Join(dir, "00000000"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed[:min(len(seed), 3*logPage)])
	f.Add(seed[:100])
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{2}, logPage+1))
	f.Fuzz(func(t *testing.T, segment []byte) {
		path := filepath.Join(t.TempDir(), "00000000")
		if err := os.WriteFile(path, segment, 0o666); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		s, err := scanSegment(path, &out)
		if err != nil || out.Len() != len(segment) {
			t.Fatalf("%d bytes of %d: %v", out.Len(), len(segment), err)
		}
		if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
		again, err := scanSegment(path, &bytes.Buffer{})
		if err != nil || again.lost != 0 || again.good != s.good {
			t.Fatalf("%+v, then %+v: %v", s, again, err)
		}
	})
}
