package tsdb

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

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

// TestSalvageKeepsPages: a snapshot says from which page of a segment on the log is to be replayed, since it is written when the
// log has been closed, which ends a page. So no record may come into another page, and no segment may change its size.
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

// TestSalvageBehindSnapshot damages the log of a tenant that was stopped, started and killed, in the part that the snapshot
// stands for and in the part behind it: all that came after the stop is there but for what the damage touched.
func TestSalvageBehindSnapshot(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	now := time.Now().Add(-time.Hour).UnixMilli()
	const rounds, series = 400, 50
	send := func(from, to int64) {
		for round := from; round < to; round++ {
			b := wire.NewBatch(team)
			for i := range series {
				b.Add(labels.FromStrings("i", fmt.Sprint(i))).Samples = []wire.Sample{{T: now + round*1000, V: float64(round)}}
			}
			mustAppend(t, d, b)
		}
	}
	send(0, rounds)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	send(rounds, 2*rounds)
	crashed := o
	crashed.Dir = t.TempDir()
	if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	wal := filepath.Join(crashed.Dir, string(team), "wal")
	segments, err := segmentsOf(wal)
	if err != nil || len(segments) != 2 {
		t.Fatalf("%v %v", segments, err)
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil || len(b) < 2*logPage {
			t.Fatalf("%d bytes %v", len(b), err)
		}
		copy(b[logPage+logPage/2:], bytes.Repeat([]byte{0xa5}, 512))
		if err := os.WriteFile(name, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	d = openDB(t, crashed)
	got := read(t, d, team)
	if len(got) != series {
		t.Fatalf("%d series, want %d", len(got), series)
	}
	for name, points := range got {
		before, after := 0, 0
		for _, p := range points {
			if p.t < now+rounds*1000 {
				before++
			} else {
				after++
			}
		}
		if before != rounds || after < rounds/2 || points[len(points)-1].t != now+(2*rounds-1)*1000 {
			t.Fatalf("%s: %d samples of before the stop and %d of after it, of %d each", name, before, after, rounds)
		}
	}
}

// TestMendsItsOwnLog has tenants whose names are patterns that match others': each mends its own log.
func TestMendsItsOwnLog(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	names := []tenant.ID{"team*", "team-a", "team-b", "t(eam)", "+"}
	for _, id := range names {
		put(t, d, id, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// A checkpoint in each, with damage in the middle.
	damaged := map[tenant.ID][]byte{}
	for _, id := range names {
		dir := filepath.Join(d.TenantDir(id), "wal", "checkpoint.00000000")
		writeLog(t, dir, 100, compression.None, rand.New(rand.NewPCG(1, 2)))
		name := filepath.Join(dir, "00000000")
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		copy(b[logPage/2:], bytes.Repeat([]byte{0xa5}, 64))
		if err := os.WriteFile(name, b, 0o666); err != nil {
			t.Fatal(err)
		}
		damaged[id] = b
	}
	for i, id := range names {
		if lost, err := salvage(d.TenantDir(id), time.Now()); err != nil || lost == 0 {
			t.Fatalf("tenant %s: lost %d, %v", id, lost, err)
		}
		for j, other := range names {
			b, err := os.ReadFile(filepath.Join(d.TenantDir(other), "wal", "checkpoint.00000000", "00000000"))
			if err != nil {
				t.Fatal(err)
			}
			if touched := !bytes.Equal(b, damaged[other]); touched != (j <= i) {
				t.Errorf("after tenant %s mended its log, that of %s was touched: %v", id, other, touched)
			}
		}
	}
}
