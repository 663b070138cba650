package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// TestPartsOneByOne: two replicas become two parts. Wherever the compactor dies, each series is read once, and from the
// parts as soon as both are there. A part that cannot be opened brings back what it was made of.
func TestPartsOneByOne(t *testing.T) {
	bkt := inMemory(t)
	var now clock
	var in []sourcetest.Series
	for i := range 6 {
		samples := []sourcetest.Sample{{T: 1000, V: 1}, {T: 2000, V: 2}}
		in = append(in, sourcetest.Series{Labels: labelsOf(i), Samples: samples})
	}
	a := upload(t, bkt, makeBlock(t, in), ring(team, "r1"))
	b := upload(t, bkt, makeBlock(t, in), ring(team, "r2"))
	var parts [2][]sourcetest.Series
	for _, s := range in {
		shard := labels.StableHash(s.Labels) % 2
		parts[shard] = append(parts[shard], s)
	}
	part := func(shard int) ulid.ULID {
		return upload(t, bkt, makeBlock(t, parts[shard]), map[string]string{"tenant_id": string(team)}, func(m *block.Meta) {
			m.Compaction.Level, m.Compaction.Sources = 2, []ulid.ULID{m.ULID}
			both := []ulid.ULID{a, b}
			if b.Compare(a) < 0 {
				both = []ulid.ULID{b, a}
			}
			m.Origin = &block.Origin{ID: m.ULID, Sources: both, Replaces: both, Shard: shard, Of: 2,
				Removed: []string{"receive_replica"}}
		})
	}
	want := seriesOf(t, opened(t, bkt).Select(t.Context(), ask(team, 0, 5000)))
	if strings.Count(want, "{") != 6 {
		t.Fatal(want)
	}
	g := opened(t, bkt, func(o *Options) { o.Now = now.time })
	step := func(name string, served int) {
		t.Helper()
		if err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := seriesOf(t, g.Select(t.Context(), ask(team, 0, 5000))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if got := g.Status(); len(got) != served {
			t.Errorf("%s: %d blocks are served, want %d", name, len(got), served)
		}
	}
	step("replicas", 2)
	part(1)
	step("one part", 3)
	p0 := part(0)
	step("both", 2)

	var index []byte
	damage(t, bkt, block.Object(p0, "index"), func(b []byte) []byte { index = b; return nil })
	other := opened(t, bkt)
	if got := seriesOf(t, other.Select(t.Context(), ask(team, 0, 5000))); strings.Count(got, "{__name__") != 6 ||
		!strings.Contains(got, p0.String()) {
		t.Errorf("a part is broken: %s", got)
	}
	if err := bkt.Upload(t.Context(), block.Object(p0, "index"), strings.NewReader(string(index))); err != nil {
		t.Fatal(err)
	}
	for i, id := range []ulid.ULID{b, a} {
		if err := block.Delete(t.Context(), bkt, id); err != nil {
			t.Fatal(err)
		}
		step(fmt.Sprint(i+1, " replicas deleted"), 2)
	}
}
