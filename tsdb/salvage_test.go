package tsdb

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// What package repair does with damaged logs, seen from the tenants that have them.

const logPage = 32 << 10 // bytes of a page of a log

// TestCorruptWAL damages the middle of one tenant's WAL. What was written before and after must be there, the tenant
// takes writes, and the loss is reported.
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
	if st[0].Tenant != "other" || st[0].Damage != "" || !strings.Contains(st[1].Damage, tenantdir.DamagedName) ||
		st[1].State != Open {
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

// TestSalvageBehindSnapshot damages the log of a tenant that was stopped, started and killed, in the part that the
// snapshot stands for and in the part behind it: all that came after the stop is there except what the damage touched.
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
	segments, err := filepath.Glob(filepath.Join(wal, "0*"))
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
