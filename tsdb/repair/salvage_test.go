package repair

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

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
// what was written except the records that the damage touched.
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
		kept := filepath.Join(dir, tenantdir.DamagedName)
		if lost, err := salvage(dir, time.Now()); lost != 0 || err != nil || tenantdir.Exists(kept) {
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

// pages are the pages in which the records of a log end, by record.
func pages(t *testing.T, dir string) map[string][2]int64 {
	t.Helper()
	segments, err := segmentsOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][2]int64{}
	for i, name := range segments {
		s, err := wlog.OpenReadSegment(name)
		if err != nil {
			t.Fatal(err)
		}
		r := wlog.NewReader(wlog.NewSegmentBufReader(s))
		for r.Next() {
			out[string(r.Record())] = [2]int64{int64(i), (r.Offset() - 1) / logPage}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestSalvageKeepsPages: a snapshot says from which page of a segment on the log is to be replayed, since it is
// written when the log has been closed, which ends a page. So no record may come into another page, and no segment may
// change its size.
func TestSalvageKeepsPages(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		dir := t.TempDir()
		wal := filepath.Join(dir, "wal")
		writeLog(t, wal, 300, compression.None, rng)
		before := pages(t, wal)
		segments, err := segmentsOf(wal)
		if err != nil {
			t.Fatal(err)
		}
		sizes := make([]int, len(segments))
		for i, name := range segments {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sizes[i] = len(b)
			at := rng.IntN(len(b) - 100)
			copy(b[at:], bytes.Repeat([]byte{0xa5}, 100))
			if err := os.WriteFile(name, b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if lost, err := salvage(dir, time.Now()); err != nil || lost == 0 {
			t.Fatalf("seed %d: lost %d, %v", seed, lost, err)
		}
		after := pages(t, wal)
		if len(after) < len(before)/2 {
			t.Fatalf("seed %d: %d of %d records are left", seed, len(after), len(before))
		}
		for rec, at := range after {
			if before[rec] != at {
				t.Fatalf("seed %d: record %.8s was in segment and page %v, and is in %v", seed, rec, before[rec], at)
			}
		}
		for i, name := range segments {
			if info, err := os.Stat(name); err != nil || info.Size() != int64(sizes[i]) {
				t.Fatalf("seed %d: segment %d of %d bytes: %v %v", seed, i, sizes[i], info, err)
			}
		}
	}
}

// TestMendsItsOwnLog has tenants whose names are patterns that match others': each mends its own log.
func TestMendsItsOwnLog(t *testing.T) {
	root := t.TempDir()
	names := []string{"team*", "team-a", "team-b", "t(eam)", "+"}
	damaged := map[string][]byte{}
	for _, name := range names { // a checkpoint in each, with damage in the middle
		dir := filepath.Join(root, name, "wal", "checkpoint.00000000")
		writeLog(t, dir, 100, compression.None, rand.New(rand.NewPCG(1, 2)))
		segment := filepath.Join(dir, "00000000")
		b, err := os.ReadFile(segment)
		if err != nil {
			t.Fatal(err)
		}
		copy(b[logPage/2:], bytes.Repeat([]byte{0xa5}, 64))
		if err := os.WriteFile(segment, b, 0o666); err != nil {
			t.Fatal(err)
		}
		damaged[name] = b
	}
	for i, name := range names {
		if lost, err := salvage(filepath.Join(root, name), time.Now()); err != nil || lost == 0 {
			t.Fatalf("tenant %s: lost %d, %v", name, lost, err)
		}
		for j, other := range names {
			b, err := os.ReadFile(filepath.Join(root, other, "wal", "checkpoint.00000000", "00000000"))
			if err != nil {
				t.Fatal(err)
			}
			if touched := !bytes.Equal(b, damaged[other]); touched != (j <= i) {
				t.Errorf("after tenant %s mended its log, that of %s was touched: %v", name, other, touched)
			}
		}
	}
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
