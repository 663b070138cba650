package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// hourly uploads a block for each of the first n hours, with a sample each 15 s.
func hourly(t *testing.T, bkt objstore.Bucket, id tenant.ID, n int) (ids []ulid.ULID) {
	t.Helper()
	for h := range n {
		s := sourcetest.Series{Labels: labels.FromStrings("__name__", "m", "hour", fmt.Sprint(h))}
		for at := time.Duration(h) * time.Hour; at < time.Duration(h+1)*time.Hour; at += 15 * time.Second {
			s.Samples = append(s.Samples, sourcetest.Sample{T: at.Milliseconds(), V: 1})
		}
		ids = append(ids, upload(t, bkt, makeBlock(t, []sourcetest.Series{s}), ring(id, "r1")))
	}
	return ids
}

// extentOf returns the first and the last time of the chunks of a select, in minutes, and how many series it has.
func extentOf(t *testing.T, g *Gateway, r *series.Request) string {
	t.Helper()
	set := g.Select(t.Context(), r)
	defer set.Close()
	out, n := span{always.maxt, always.mint}, 0
	for ; set.Next(); n++ {
		for _, c := range set.At().Chunks {
			out.mint, out.maxt = min(out.mint, c.MinTime), max(out.maxt, c.MaxTime)
		}
	}
	if set.Err() != nil || len(set.Warnings()) > 0 {
		t.Errorf("%v %q", set.Err(), set.Warnings())
	}
	if n == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d series %d-%d", n, out.mint/60_000, out.maxt/60_000)
}

// TestWindow: of a gateway with a range of times nothing outside of it is said to be served. The chunks of
// an hour begin at its minutes 0, 29 and 59, and are served as wholes.
func TestWindow(t *testing.T) {
	bkt := inMemory(t)
	ids := hourly(t, bkt, team, 3)
	minutes := func(n float64) int64 { return int64(n * 60_000) }
	f := func(mint, maxt float64, info, all, second string, served string) {
		t.Helper()
		g := opened(t, bkt, func(o *Options) {
			o.Window = func(time.Time) (int64, int64) { return minutes(mint), minutes(maxt) }
		})
		i, err := g.Info(t.Context())
		if err != nil || i.Blocks != (series.Holding{}) {
			t.Errorf("Info of a gateway of a range of times says what it covers: %+v, %v", i.Blocks, err)
		}
		got := "nothing"
		if i.MinTime <= i.MaxTime {
			got = fmt.Sprintf("%d-%d", i.MinTime/60_000, i.MaxTime/60_000)
		}
		if got != info {
			t.Errorf("[%v, %v]: Info says %s, want %s", mint, maxt, got, info)
		}
		if got := extentOf(t, g, ask(team, 0, minutes(1000))); got != all {
			t.Errorf("[%v, %v]: everything is %s, want %s", mint, maxt, got, all)
		}
		if got := extentOf(t, g, ask(team, minutes(60), minutes(119))); got != second {
			t.Errorf("[%v, %v]: the second hour is %s, want %s", mint, maxt, got, second)
		}
		if got := fmt.Sprint(servedOf(g, ids...)); got != served {
			t.Errorf("[%v, %v]: %s are served, want %s", mint, maxt, got, served)
		}
		values, _, err := g.LabelValues(t.Context(), "hour", ask(team, minutes(60), minutes(119)))
		if err != nil || (len(values) == 0) != (second == "nothing") {
			t.Errorf("[%v, %v]: values %q, %v", mint, maxt, values, err)
		}
	}
	const none = "[false false false]"
	f(-1000, 1000, "0-179", "3 series 0-179", "1 series 60-119", "[true true true]")
	f(0, 179.999, "0-179", "3 series 0-179", "1 series 60-119", "[true true true]")
	f(70, 100, "70-100", "1 series 60-118", "1 series 60-118", none)
	f(70, 80, "70-80", "1 series 60-89", "1 series 60-89", none)
	f(60, 119.999, "60-119", "1 series 60-119", "1 series 60-119", "[false true false]")
	f(130, 1000, "130-179", "1 series 120-179", "nothing", none)
	f(-10, 30, "0-30", "1 series 0-58", "nothing", none)
	f(180, 1000, "nothing", "nothing", "nothing", none)
	f(-10, -5, "nothing", "nothing", "nothing", none)
}

// TestWindowMoves: what the window has left is no longer served at once, and what it reaches is, also between syncs. A
// gateway whose syncs fail does not announce what it cannot have.
func TestWindowMoves(t *testing.T) {
	bkt := inMemory(t)
	hourly(t, bkt, team, 6)
	start := time.UnixMilli(0)
	now := start.Add(2 * time.Hour)
	g := opened(t, bkt, func(o *Options) {
		o.Now, o.SyncInterval = func() time.Time { return now }, 15*time.Minute
		o.Window = func(now time.Time) (int64, int64) { // --min-time=-1h --max-time=-10m
			return now.Add(-time.Hour).UnixMilli(), now.Add(-10 * time.Minute).UnixMilli()
		}
	})
	f := func(minute time.Duration, info, all string) {
		t.Helper()
		now = start.Add(minute * time.Minute)
		i, err := g.Info(t.Context())
		if got := fmt.Sprintf("%d-%d", i.MinTime/60_000, i.MaxTime/60_000); got != info || err != nil {
			t.Errorf("after %d minutes Info says %s, %v; want %s", minute, got, err, info)
		}
		if got := extentOf(t, g, ask(team, 0, start.Add(10*time.Hour).UnixMilli())); got != all {
			t.Errorf("after %d minutes %s, want %s", minute, got, all)
		}
	}
	f(120, "60-110", "1 series 60-118")
	f(125, "65-115", "1 series 60-118")
	f(131, "71-121", "2 series 60-149") // the third block was out of reach when the bucket was looked at
	f(151, "91-140", "2 series 89-149") // two syncs have failed
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	f(151, "91-141", "2 series 89-149")
}

// TestLabelsOfAPart: a gateway of a part of the bucket shows the external labels of the blocks that it was given, and
// hashmod over __block_id gives each block to one gateway.
func TestLabelsOfAPart(t *testing.T) {
	bkt := inMemory(t)
	const blocks = 24
	for i := range blocks {
		external := map[string]string{"tenant_id": string(team), "cluster": fmt.Sprint("c", i%4), "n": fmt.Sprint(i)}
		upload(t, bkt, makeBlock(t, few()[:1]), external)
	}
	rule := func(action relabel.Action, source, target, regex string) *relabel.Config {
		r := relabel.DefaultRelabelConfig
		r.SourceLabels, r.Action, r.TargetLabel = model.LabelNames{model.LabelName(source)}, action, target
		r.Regex, r.Modulus, r.NameValidationScheme = relabel.MustNewRegexp(regex), 3, model.UTF8Validation
		return &r
	}
	shown := func(rules ...*relabel.Config) (sets []labels.Labels) {
		g := opened(t, bkt, func(o *Options) { o.Relabel = rules })
		info, err := g.Info(t.Context())
		if err != nil || info.Blocks != (series.Holding{}) {
			t.Fatalf("%+v %v", info.Blocks, err)
		}
		if s := g.External(team); fmt.Sprint(s) != fmt.Sprint(info.Labels) || len(g.Status()) != len(s) {
			t.Errorf("streams %v of %d blocks, Info %v", s, len(g.Status()), info.Labels)
		}
		return info.Labels
	}
	kept := shown(rule(relabel.Keep, "cluster", "", "c1|c2"))
	for _, set := range kept {
		if c := set.Get("cluster"); c != "c1" && c != "c2" {
			t.Errorf("%s was not chosen", set)
		}
	}
	if len(kept) != blocks/2 {
		t.Errorf("%d sets of labels, want %d", len(kept), blocks/2)
	}
	seen := map[string]int{}
	for shard := range 3 {
		of := shown(rule(relabel.HashMod, "__block_id", "shard", "(.*)"),
			rule(relabel.Keep, "shard", "", fmt.Sprint(shard)))
		if len(of) == 0 || len(of) == blocks {
			t.Errorf("shard %d has %d of %d blocks", shard, len(of), blocks)
		}
		for _, set := range of {
			seen[set.String()]++
		}
	}
	for set, n := range seen {
		if n != 1 {
			t.Errorf("%d gateways have %s", n, set)
		}
	}
	if len(seen) != blocks {
		t.Errorf("%d of %d blocks are served by the shards", len(seen), blocks)
	}
}
