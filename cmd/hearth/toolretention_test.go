package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/compact/plan"
)

// TestRetain: the tool lets a block go by the rule of the compactor. Words of a bucket are
// number:resolution,from-until+sources, in minutes and days before now. Those that go stand before the bar, and those
// that are held behind it.
func TestRetain(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	viewOf := func(text string) block.View {
		v := block.View{Metas: map[ulid.ULID]*block.Meta{}, Deletions: map[ulid.ULID]block.DeletionMark{}}
		for word := range strings.FieldsSeq(text) {
			var n, res, from, until int
			word, sources, _ := strings.Cut(word, "+")
			if _, err := fmt.Sscanf(word, "%d:%d,%d-%d", &n, &res, &from, &until); err != nil {
				t.Fatal(word, err)
			}
			m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: toolID(n), MinTime: now.AddDate(0, 0, -from).UnixMilli(),
				MaxTime: now.AddDate(0, 0, -until).UnixMilli()}}
			m.Thanos.Labels = map[string]string{"tenant_id": "a", "receive_replica": fmt.Sprint(n)}
			m.Thanos.Downsample.Resolution = int64(res) * 60_000
			if sources == "" {
				sources = fmt.Sprint(n)
			}
			for s := range strings.SplitSeq(sources, "+") {
				var n int
				fmt.Sscan(s, &n)
				m.Compaction.Sources = append(m.Compaction.Sources, toolID(n))
			}
			v.Metas[m.ULID] = m
		}
		return v
	}
	owner := block.Owner{TenantLabel: "tenant_id", ReplicaLabel: "receive_replica"}
	number := func(id ulid.ULID) string { return fmt.Sprint(id[15]) }
	d := func(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }
	usual := plan.Keep{Raw: d(15), FiveMin: d(30), OneHour: d(90)}
	f := func(want, bucket string, keep plan.Keep) {
		t.Helper()
		p := retain(viewOf(bucket), now, keep, owner)
		var steps, held []string
		for _, s := range p.Steps {
			if s.Action != change.Mark || s.Mark != block.DeletionMarkName ||
				!strings.Contains(s.Details, "exceeding retention") {
				t.Errorf("%+v", s)
			}
			steps = append(steps, number(s.Block))
		}
		for _, h := range p.Held {
			held = append(held, number(h.Block))
		}
		if got := strings.Join(steps, " ") + "|" + strings.Join(held, " "); got != want || !p.Timed {
			t.Errorf("%q: %s, want %s", bucket, got, want)
		}
	}
	f("|", "1:0,900-800", plan.Keep{})
	f("|", "1:0,17-15", usual)
	f("1|", "1:0,20-16 2:0,20-15", plan.Keep{Raw: d(15)}) // nobody downsamples
	f("|1", "1:0,20-16", usual)
	f("1|", "1:0,20-16 2:5,20-14+1", usual)
	f("|1", "1:0,20-16 2:5,20-14+3", usual)    // of other samples
	f("|1", "1:0,20-16 2:60,21-16+1", usual)   // 5m is to be kept, too
	f("2|", "1:60,40-35+3 2:5,40-35+3", usual) // what is gone at 5m has its samples at 1h
	f("|2", "2:5,40-35+3", usual)              //
	f("3 2 1|", "1:0,200-180 2:5,201-180 3:60,202-180", usual)
	f("1|2", "1:0,200-180 2:0,170-160 3:5,200-180+1", plan.Keep{Raw: d(15), OneHour: d(90)})
	f("|", "1:1,200-180", usual) // a resolution that nobody knows
}
