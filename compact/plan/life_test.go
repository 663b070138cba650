package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
)

// piece is samples of one shipped block: those of the series with one hash.
type piece struct {
	source ulid.ULID
	hash   int
}

// world is a bucket that compactors change, as far as plans can see it.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	now     int64 // ms
	view    block.View
	content map[ulid.ULID]map[piece]bool
	first   map[ulid.ULID]*block.Meta // what was shipped
	n       int
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, rnd: rand.New(rand.NewPCG(seed, 3)), content: map[ulid.ULID]map[piece]bool{},
		first: map[ulid.ULID]*block.Meta{}, view: block.View{
			Metas: map[ulid.ULID]*block.Meta{}, Deletions: map[ulid.ULID]block.DeletionMark{}}}
}

func (w *world) bucket() Bucket { return Bucket{View: w.view, Metas: w.view.Select()} }

// ship puts a block of some series of a replica into the bucket.
func (w *world) ship(replica string, mint, maxt int64, size int64, hashes ...int) {
	w.n++
	m := &block.Meta{}
	m.Version, m.MinTime, m.MaxTime = 1, mint, maxt
	_ = m.ULID.SetTime(uint64(w.now))
	m.ULID[15], m.ULID[14], m.ULID[13] = byte(w.n), byte(w.n>>8), byte(w.n>>16)
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
	m.Thanos.Labels = map[string]string{"tenant_id": "a", "receive_replica": replica}
	m.Thanos.Files = []block.File{{RelPath: "chunks/000001", SizeBytes: size}}
	m.Stats.NumSeries = uint64(len(hashes))
	w.view.Metas[m.ULID], w.first[m.ULID] = m, m
	w.content[m.ULID] = map[piece]bool{}
	for _, h := range hashes {
		w.content[m.ULID][piece{m.ULID, h}] = true
	}
}

// do does a job up to a number of steps, and reports whether that was all. A step is an output or a mark.
func (w *world) do(j Job, steps int) bool {
	all := map[piece]bool{}
	for _, m := range j.Inputs {
		if _, marked := w.view.Deletions[m.ULID]; marked || w.view.Metas[m.ULID] == nil {
			return false // whoever does the job finds out
		}
		maps.Copy(all, w.content[m.ULID])
	}
	in := func(p block.Part) map[piece]bool {
		out := map[piece]bool{}
		for x := range all {
			if x.hash%p.Of == p.Shard {
				out[x] = true
			}
		}
		return out
	}
	var empty []int
	for _, o := range j.Outputs {
		if len(in(o.Part)) == 0 && !slices.Contains(empty, o.Part.Shard) {
			empty = append(empty, o.Part.Shard)
		}
	}
	slices.Sort(empty)
	for _, o := range j.Outputs {
		if content := in(o.Part); len(content) > 0 {
			if steps--; steps < 0 {
				return false
			}
			m := j.Meta(o, empty)
			if err := m.Origin.Validate(o.ID); err != nil {
				w.t.Fatal(err)
			}
			m.Stats.NumSeries = uint64(len(content))
			m.Thanos.Files = []block.File{{RelPath: "chunks/000001", SizeBytes: guess(&j, o).Thanos.Files[0].SizeBytes}}
			if have := w.view.Metas[o.ID]; have != nil && !maps.Equal(w.content[o.ID], content) {
				w.t.Fatalf("%s has two contents", o.ID)
			}
			w.view.Metas[o.ID], w.content[o.ID] = m, content
		}
	}
	if j.Kind == Downsample {
		return true
	}
	for _, m := range j.Inputs {
		if steps--; steps < 0 {
			return false
		}
		w.mark(m.ULID)
	}
	return true
}

func (w *world) mark(id ulid.ULID) {
	if _, marked := w.view.Deletions[id]; !marked {
		w.view.Deletions[id] = block.DeletionMark{ID: id, DeletionTime: w.now / 1000}
	}
}

// sweep deletes what was marked for longer than a delay.
func (w *world) sweep(delay time.Duration) {
	for id, mark := range w.view.Deletions {
		if w.now-mark.DeletionTime*1000 >= delay.Milliseconds() {
			delete(w.view.Metas, id)
			delete(w.view.Deletions, id)
		}
	}
}

// read is how often each piece is read at a resolution: from blocks that nothing replaced, and that have no mark.
func (w *world) read(resolution int64) map[piece]int {
	live := slices.DeleteFunc(w.view.Select(), func(m *block.Meta) bool {
		_, marked := w.view.Deletions[m.ULID]
		return marked || m.Thanos.Downsample.Resolution != resolution
	})
	replaced, out := block.Replaced(live), map[piece]int{}
	for _, m := range live {
		if _, gone := replaced[m.ULID]; !gone {
			for x := range w.content[m.ULID] {
				out[x]++
			}
		}
	}
	return out
}

// TestNothingIsLost: whatever is shipped, and wherever two compactors with different settings stop, all samples are
// read at every moment, and in the end once.
func TestNothingIsLost(t *testing.T) {
	for seed := range uint64(long(500, 25)) {
		w := newWorld(t, seed)
		shipped := map[piece]bool{}
		check := func(when string) {
			t.Helper()
			have := w.read(Raw)
			for x := range shipped {
				if have[x] == 0 {
					t.Fatalf("seed %d, %s: samples of %s with hash %d are gone", seed, when, x.source, x.hash)
				}
			}
		}
		a, b := testSettings(), testSettings()
		a.MaxSeries, b.MaxSeries = 6, 6
		if seed%2 == 0 {
			b.MaxSeries = 12
		}
		step := func(s *Settings, whole bool) int {
			plan := Make(w.bucket(), s, time.UnixMilli(w.now))
			for _, j := range plan.Jobs {
				steps := 1000
				if !whole && w.rnd.IntN(3) == 0 {
					steps = w.rnd.IntN(len(j.Outputs) + len(j.Inputs))
				}
				w.do(j, steps)
				check(fmt.Sprint("job ", j.Kind, " of ", len(j.Inputs)))
			}
			for _, d := range plan.Replaced {
				if whole || w.rnd.IntN(2) == 0 {
					w.mark(d.Meta.ULID)
				}
			}
			check("garbage")
			return len(plan.Jobs) + len(plan.Replaced)
		}
		for slot := range int64(30) {
			w.now = (slot + 1) * 2 * hour
			for _, replica := range []string{"r1", "r2", "r3"} {
				if w.rnd.IntN(10) == 0 {
					continue // it is down
				}
				from := slot
				if w.rnd.IntN(8) == 0 {
					from = w.rnd.Int64N(slot + 1) // it comes late
				}
				w.ship(replica, from*2*hour, (from+1)*2*hour, 100+w.rnd.Int64N(1000), w.rnd.Perm(8)[:1+w.rnd.IntN(8)]...)
			}
			if ids := slices.Collect(maps.Keys(w.first)); w.rnd.IntN(5) == 0 { // shipped again
				slices.SortFunc(ids, ulid.ULID.Compare)
				id := ids[w.rnd.IntN(len(ids))]
				if _, marked := w.view.Deletions[id]; !marked {
					w.view.Metas[id] = w.first[id]
				}
			}
			for id := range w.first {
				for x := range w.content[id] {
					shipped[x] = true
				}
			}
			check("shipped")
			step([]*Settings{a, b}[w.rnd.IntN(2)], false)
			w.sweep(6 * time.Hour)
			check("deleted")
		}
		w.now += 1000 * hour
		for rounds := 0; step(a, true) > 0; rounds++ {
			if rounds > 100 {
				t.Fatalf("seed %d: it never ends", seed)
			}
		}
		for x, n := range w.read(Raw) {
			if n != 1 {
				t.Fatalf("seed %d: samples of %s with hash %d are read from %d blocks", seed, x.source, x.hash, n)
			}
		}
		end := time.UnixMilli(w.now)
		if todo := Simulate(w.bucket(), a, end, Make(w.bucket(), a, end)); todo.Compactions != 0 {
			t.Fatalf("seed %d: %+v", seed, todo)
		}
	}
}

// TestFinestIsKept lets 400 days go by: at every moment the finest resolution that is to be kept of a time can be
// read.
func TestFinestIsKept(t *testing.T) {
	for i, c := range []struct {
		name string
		keep Keep
		late int // one block in that many comes late
	}{
		{"as in the manual", Keep{40 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour}, 0},
		{"late blocks", Keep{40 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour}, 20},
		{"raw for longer than 5m", Keep{20 * 24 * time.Hour, 12 * 24 * time.Hour, 0}, 20},
		{"no raw", Keep{time.Hour, 15 * 24 * time.Hour, 90 * 24 * time.Hour}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := newWorld(t, 1), testSettings()
			s.Retention.Default = c.keep
			most := 0
			days := int64(400)
			if i > 0 {
				days = int64(long(400, 60)) // the first one has all that takes long
			}
			for slot := range days * 12 {
				w.now = (slot+1)*2*hour + hour
				for _, replica := range []string{"r1", "r2"} {
					from := slot
					if c.late > 0 && w.rnd.IntN(c.late) == 0 {
						from = max(slot-w.rnd.Int64N(12), 0)
					}
					w.ship(replica, from*2*hour, (from+1)*2*hour, 1000, 0)
				}
				plan := Make(w.bucket(), s, time.UnixMilli(w.now))
				for _, j := range plan.Jobs {
					w.do(j, 1000)
				}
				for _, d := range plan.Replaced {
					w.mark(d.Meta.ULID)
				}
				for _, e := range Expired(w.bucket(), s, time.UnixMilli(w.now)) {
					if e.Waits == "" {
						w.mark(e.Meta.ULID)
					}
				}
				w.sweep(0)
				most = max(most, len(w.view.Metas))
				if slot%5 == 0 {
					w.finest(c.keep)
				}
			}
			if most > 250 {
				t.Errorf("%d blocks at once", most)
			}
		})
	}
}

// finest checks that each shipped block that is still to be kept can be read at the finest resolution for its age.
func (w *world) finest(keep Keep) {
	w.t.Helper()
	have := []map[piece]int{w.read(Raw), w.read(FiveMin), w.read(OneHour)}
	for id, m := range w.first {
		age := time.Duration(w.now-m.MaxTime) * time.Millisecond
		at := slices.IndexFunc(resolutions, func(r int64) bool { return keep.of(r) == 0 || age <= keep.of(r) })
		if at < 0 {
			delete(w.first, id)
			continue
		}
		read := 0
		for _, h := range have[:at+1] {
			read += h[piece{id, 0}]
		}
		if read == 0 {
			w.t.Fatalf("after %s: samples of %s, %s old, cannot be read at %d ms", time.Duration(w.now)*time.Millisecond, id,
				age, resolutions[at])
		}
	}
}

func TestRetention(t *testing.T) {
	day := 24 * time.Hour
	f := func(now int64, policy Policy, blocks, want string) {
		t.Helper()
		p, s := picture(t, blocks), testSettings()
		s.Retention = policy
		var got string
		for _, e := range Expired(p.Bucket, s, at(now)) {
			got += p.names[e.Meta.ULID]
			if e.Waits != "" {
				got += "?"
			}
			if e.Bytes != 1100 {
				t.Errorf("%d bytes", e.Bytes)
			}
		}
		if got != want {
			t.Errorf("%s at %d: %q, want %q", blocks, now, got, want)
		}
	}
	days := func(raw, five, one time.Duration) Policy {
		return Policy{Rules: Rules{Default: Keep{raw * day, five * day, one * day}}}
	}
	all := "a:0-24 A:0-24,res=5,src=a B:0-24,res=60,src=a b:24-48"
	f(24*3, days(0, 0, 0), all, "")
	f(24*3, days(2, 3, 4), all, "")
	f(24*3+1, days(2, 3, 4), all, "a")
	f(24*4+1, days(2, 3, 4), all, "Aab?") // nobody has downsampled b
	f(24*5+1, days(2, 3, 4), all, "ABab?")
	f(24*7, days(2, 3, 4), all, "ABab")
	f(24*4+1, days(2, 2, 2), all, "ABab")
	f(24*4+1, days(2, 2, 3), "a:0-24 A:0-24,res=5,src=a", "Aa")
	f(24*3+1, days(2, 2, 3), "a:0-24 A:0-24,res=5,src=a", "A?a?") // 1h is to be kept
	f(24*3+1, days(2, 3, 3), "a:0-24,nodown", "a")
	f(24*3+1, days(2, 3, 3), "a:0-24 A:0-24,res=5,src=a,t=b", "a?")
	f(24*3+1, days(2, 3, 3), "a:0-24 A:0-24,res=5,src=a,del", "a?")
	f(24*3+1, days(2, 3, 3), "a:0-24,src=1+2 A:0-12,res=5,src=1 B:12-24,res=5,src=2", "a")
	f(24*3+1, days(2, 3, 3), "a:0-24,src=1+2 A:0-24,res=5,src=1+2,part=0/2", "a?")
	f(24*3+1, days(2, 3, 3), "a:0-24,src=1+2 A:0-24,res=5,src=1+2,part=0/2 B:0-24,res=5,src=1+2,part=1/2", "a")

	// Of tenants and matchers the first rule counts; a block without a tenant is nobody's.
	some := days(10, 10, 10)
	some.Tenants = map[string][]Rule{"b": {
		{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "x", "long")}, Keep: Keep{Raw: 0}},
		{Keep: Keep{Raw: day, FiveMin: day, OneHour: day}},
	}}
	some.Others = []Rule{
		{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "x", "")}, Keep: Keep{day, day, day}},
	}
	f(24*3, some, "a:0-24,t=b b:0-24,t=b,x=long c:0-24 d:0-24,x=y e:0-24,t=", "ac")
	// A retention that became shorter waits for a day, and one that became longer counts at once.
	shorter := days(1, 1, 1)
	shorter.Earlier = []Dated{{days(5, 5, 5).Rules, at(24 * 4)}}
	f(24*4-1, shorter, "a:0-24", "a?")
	f(24*4, shorter, "a:0-24", "a")
	f(24*7, shorter, "a:0-24", "a")
	longer := days(5, 5, 5)
	longer.Earlier = []Dated{{days(1, 1, 1).Rules, at(24 * 4)}}
	f(24*4-1, longer, "a:0-24", "")
}
