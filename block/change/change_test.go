package change

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/faulty"
	"github.com/hearth-metrics/hearth/internal/errs"
)

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func id(n int) ulid.ULID { return ulid.MustParse(fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5F%02d", n)) }

// days is a block of the days from and until before now, of a resolution and a stream.
func days(n, from, until int, resolution time.Duration, stream string) *block.Meta {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id(n), Version: 1}}
	m.MinTime, m.MaxTime = now.AddDate(0, 0, -from).UnixMilli(), now.AddDate(0, 0, -until).UnixMilli()
	m.Thanos.Labels = map[string]string{"stream": stream}
	m.Thanos.Downsample.Resolution = resolution.Milliseconds()
	return m
}

func viewOf(metas ...*block.Meta) block.View {
	v := block.View{Metas: map[ulid.ULID]*block.Meta{}, Deletions: map[ulid.ULID]block.DeletionMark{},
		Partial: map[ulid.ULID]error{}}
	for _, m := range metas {
		v.Metas[m.ULID] = m
	}
	return v
}

// picture is a plan in short: the numbers of the blocks of its steps, and after a bar of those that are held.
func picture(p Plan) string {
	var parts, held []string
	for _, s := range p.Steps {
		parts = append(parts, s.Block.String()[24:])
	}
	for _, h := range p.Held {
		held = append(held, h.Block.String()[24:])
	}
	return strings.Join(parts, " ") + "|" + strings.Join(held, " ")
}

func TestCleanup(t *testing.T) {
	v := viewOf(days(1, 9, 8, 0, "a"), days(2, 9, 8, 0, "b"), days(3, 9, 8, 0, "b"))
	old := block.DeletionMark{DeletionTime: now.Add(-49 * time.Hour).Unix()}
	young := block.DeletionMark{DeletionTime: now.Add(-47 * time.Hour).Unix()}
	v.Deletions = map[ulid.ULID]block.DeletionMark{id(1): old, id(2): young, id(5): old, id(6): young}
	for n, err := range map[int]error{4: errs.E(errs.NotFound, "no meta"), 5: errs.E(errs.NotFound, "no meta"), 6: errs.E(errs.Invalid, "faulty"),
		7: errs.E(errs.Invalid, "faulty"), 8: errs.E(errs.NotFound, "no meta"), 9: errs.E(errs.NotFound, "no meta"), 10: errs.E(errs.Unavailable, "?")} {
		v.Partial[id(n)] = err
	}
	opts := CleanupOptions{DeleteDelay: 48 * time.Hour, Touched: map[ulid.ULID]time.Time{
		id(4): now.Add(-49 * time.Hour), id(8): now.Add(-47 * time.Hour), id(7): now.Add(-99 * time.Hour)}}
	f := func(want string, opts CleanupOptions) {
		t.Helper()
		if got := picture(Cleanup(v, now, opts)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f("01 04 05|07 09", opts)
	opts.DeleteDelay = 0
	f("01 02 04 05 06|07 09", opts)
	opts.ConsistencyDelay = 50 * time.Hour
	f("01 02 05 06|07 09", opts)
	opts.Filters = []block.Filter{func(_ block.View, metas []*block.Meta) []*block.Meta { return metas[:1] }}
	f("01|", opts)
}

// blocksIn are the objects of a bucket except audits.
func blocksIn(bkt *objstore.InMemBucket) map[string]string {
	all := map[string]string{}
	for name, raw := range bkt.Objects() {
		if !strings.HasPrefix(name, auditFolder) {
			all[name] = string(raw)
		}
	}
	return all
}

func bucketOf(t *testing.T) *objstore.InMemBucket {
	t.Helper()
	bkt := objstore.NewInMemBucket()
	for n := 1; n <= 3; n++ {
		for _, rel := range []string{"chunks/000001", "index", "meta.json"} {
			if n == 3 && rel == "meta.json" {
				continue
			}
			text := rel
			if rel == "meta.json" {
				m := days(n, 20, 16, 0, "a")
				var b bytes.Buffer
				if err := m.Write(&b); err != nil {
					t.Fatal(err)
				}
				text = b.String()
			}
			if err := bkt.Upload(t.Context(), block.Object(id(n), rel), strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return bkt
}

// everything plans all kinds of steps over what the bucket has at present: a mark on 1, and block 2 and the rest of an
// upload removed.
func everything(t *testing.T, bkt objstore.Bucket) Plan {
	t.Helper()
	v, err := block.NewFetcher(bkt, block.FetcherOptions{Concurrency: 1}).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := NewPlan("test", v, now)
	p.Steps = append(p.Steps, Step{Action: Mark, Block: id(1), Mark: block.NoCompactMarkName, Details: "d"},
		Step{Action: Mark, Block: id(1), Mark: block.DeletionMarkName, Details: "d"},
		Step{Action: Unmark, Block: id(1), Mark: block.NoCompactMarkName})
	for _, n := range []int{2, 3} {
		if _, marked := v.Deletions[id(n)]; marked || n == 2 {
			if v.Metas[id(n)] != nil || marked {
				p.Steps = append(p.Steps, Step{Action: Delete, Block: id(n), Mark: block.DeletionMarkName})
				continue
			}
		}
		if v.Partial[id(n)] != nil {
			p.Steps = append(p.Steps, Step{Action: Delete, Block: id(n)})
		}
	}
	return p
}

// TestFaults: whatever request fails, and whether or not it had its effect, planning and applying again ends in what an
// undisturbed run ends in. At no time has a block a meta.json and not the rest.
func TestFaults(t *testing.T) {
	clock := func() time.Time { return now }
	start := func() *objstore.InMemBucket {
		bkt := bucketOf(t)
		if err := block.MarkDeletion(t.Context(), bkt, id(2), "d", now.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		return bkt
	}
	undisturbed := start()
	count := &faulty.Bucket{Bucket: undisturbed}
	r, err := Apply(t.Context(), count, everything(t, undisturbed), Options{Now: clock})
	if err != nil || r.Count(Done) != 5 {
		t.Fatalf("%v %+v", err, r)
	}
	want := blocksIn(undisturbed)
	if len(want) != 5 { // block 1, its mark and the copy of that
		t.Fatalf("%v", want)
	}
	for at := 1; at <= count.N; at++ {
		for _, all := range []bool{false, true} {
			for _, effect := range []bool{false, true} {
				bkt := start()
				f := &faulty.Bucket{Bucket: bkt, At: at, All: all, Effect: effect}
				_, err := Apply(t.Context(), f, everything(t, bkt), Options{Now: clock})
				if err == nil || errs.KindOf(err) != errs.Unavailable {
					t.Errorf("request %d: %v", at, err)
				}
				for name := range blocksIn(bkt) {
					if n, ok := block.ParseID(name); ok && strings.HasSuffix(name, "/meta.json") && blocksIn(bkt)[block.Object(n, "index")] == "" {
						t.Errorf("request %d: half of block %s", at, n)
					}
				}
				if r, err := Apply(t.Context(), bkt, everything(t, bkt), Options{Now: clock}); err != nil {
					t.Errorf("request %d, again: %v %+v", at, err, r)
				}
				if got := blocksIn(bkt); !maps.Equal(got, want) {
					// A copy of a mark whose block is gone is removed by whoever writes the index.
					delete(got, "hearth/marks/"+id(2).String()+"-deletion-mark.json")
					if !maps.Equal(got, want) {
						t.Errorf("request %d all %v effect %v: %v", at, all, effect, got)
					}
				}
			}
		}
	}
}

// TestClock: where the clocks differ nothing is changed.
func TestClock(t *testing.T) {
	bkt := bucketOf(t)
	before := blocksIn(bkt)
	p := NewPlan("test", block.View{}, now)
	p.Timed, p.Steps = true, []Step{{Action: Mark, Block: id(1), Mark: block.DeletionMarkName}}
	_, err := Apply(t.Context(), bkt, p, Options{Now: func() time.Time { return now.AddDate(10, 0, 0) }})
	if errs.KindOf(err) != errs.Conflict || !maps.Equal(before, blocksIn(bkt)) {
		t.Errorf("%v", err)
	}
	if _, err := Apply(t.Context(), bkt, p, Options{}); err != nil || maps.Equal(before, blocksIn(bkt)) {
		t.Errorf("%v", err)
	}
}

// FuzzRead: no plan makes it panic, and one that is read has only steps that Apply knows.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"tool":"cleanup","steps":[{"action":"delete","block":"01ARZ3NDEKTSV4RRFFQ69G5FA1"}]}`))
	f.Add([]byte(`{"version":1,"tool":"cleanup","steps":[{"action":"mark","block":"01ARZ3NDEKTSV4RRFFQ69G5FA1","mark":"../x"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Read(bytes.NewReader(raw), "cleanup")
		if err != nil {
			return
		}
		for _, s := range p.Steps {
			if s.Mark != "" && !block.IsMark(s.Mark) || s.Action != Mark && s.Action != Unmark && s.Action != Delete {
				t.Errorf("%+v", s)
			}
		}
	})
}
