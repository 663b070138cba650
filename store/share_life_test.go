package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

const (
	noticed = 15 * time.Second // after this the ring shows that a gateway died
	lag     = 5 * time.Second  // at most this later a gateway sees what the ring shows
	synced  = 70 * time.Second // so often each gateway looks at the bucket
)

// cast is a cluster of gateways of one bucket that come, go and die, and what is in the bucket.
type cast struct {
	t      *testing.T
	rnd    *rand.Rand
	bkt    objstore.Bucket
	copies int
	id     string // of the bucket; every other one has none
	n      int

	mu       sync.Mutex // guards what follows
	gateways map[string]*player
	gone     time.Time               // when the last gateway died or left
	lives    map[ulid.ULID]*part     // the blocks that no other one replaces
	old      map[ulid.ULID]time.Time // replaced blocks, since when
	broken   *halfDone               // an output of which one part is missing
}

// player is one gateway.
type player struct {
	*Gateway
	came, left time.Time // zero left: it is on the ring
	leaves     time.Time // it is about to leave since then
	lag        time.Duration
	dead       bool
}

// part is a block: which part of all series it is of, if its output was split, which series it has, and since when all
// of their samples are in the bucket.
type part struct {
	block.Part
	meta   block.Meta
	series []int
	since  time.Time
}

// halfDone is an output of two parts, of sources.
type halfDone struct {
	sources []*part
	parts   []*part // those that are in the bucket
}

func newCast(t *testing.T, seed uint64) *cast {
	id := "bucket"
	if seed%4 > 1 {
		id = ""
	}
	return &cast{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), bkt: objstore.NewInMemBucket(), copies: 1 + int(seed%2),
		id: id, gateways: map[string]*player{}, lives: map[ulid.ULID]*part{}, old: map[ulid.ULID]time.Time{}}
}

// peers are the gateways on the ring as one gateway sees them.
func (c *cast) peers(name string) ([]Peer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Peer
	for _, other := range slices.Sorted(maps.Keys(c.gateways)) {
		p := c.gateways[other]
		now := time.Now()
		if self := c.gateways[name]; other != name && self != nil { // it asks before it is on the ring itself
			now = now.Add(-self.lag)
		}
		if now.Before(p.came) || !p.left.IsZero() && !now.Before(p.left) {
			continue
		}
		all = append(all, Peer{Member: Member{ID: other},
			Leaves: !p.leaves.IsZero() && !now.Before(p.leaves),
			States: func(ctx context.Context, ids []ulid.ULID) ([]series.BlockState, error) {
				c.mu.Lock()
				dead := p.dead
				c.mu.Unlock()
				if dead {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return p.BlockStates(ids), nil
			}})
	}
	return all, true
}

// come starts a gateway.
func (c *cast) come() {
	c.n++
	name := fmt.Sprint("g", c.n)
	opts := DefaultOptions()
	opts.Dir, opts.Instance, opts.StartTimeout = c.t.TempDir(), name, time.Minute
	opts.Sharing = &Sharing{Self: name, ReplicationFactor: c.copies, Owners: byRing,
		Peers: func() ([]Peer, bool) { return c.peers(name) }}
	inBucket(c.id)(&opts)
	g, err := New(discard, nil, c.bkt, opts)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := errors.Join(g.Open(c.t.Context(), nil), g.Share(c.t.Context(), nil)); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gateways[name] = &player{Gateway: g, came: time.Now(), lag: time.Duration(c.rnd.Int64N(int64(lag)))}
}

// pick is a live gateway, "" if there are too few to lose one.
func (c *cast) pick() string {
	live := c.live(false)
	if len(live) < 2 {
		return ""
	}
	return live[c.rnd.IntN(len(live))]
}

// live are the names of gateways that answer; with ready only those that have begun to serve.
func (c *cast) live(ready bool) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, p := range c.gateways {
		if !p.dead && (!ready || p.Ready() == nil) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// die kills a gateway, which the ring shows later. stop ends one that has left.
func (c *cast) die(name string, shown time.Duration) {
	c.mu.Lock()
	p := c.gateways[name]
	p.dead = true
	c.gone = time.Now()
	if p.left.IsZero() {
		p.left = time.Now().Add(shown)
	}
	c.mu.Unlock()
	if err := errors.Join(p.Unshare(), p.Close()); err != nil {
		c.t.Error(err)
	}
}

// leave lets a gateway hand over its blocks before it stops.
func (c *cast) leave(name string) {
	c.mu.Lock()
	c.gateways[name].leaves = time.Now()
	c.mu.Unlock()
	time.Sleep(synced + linger + 30*time.Second)
	c.die(name, 0)
}

// ship uploads a block of a new series.
func (c *cast) ship() {
	c.n++
	p := &part{since: time.Now(), series: []int{c.n}}
	c.upload(p, nil)
	c.replace(nil, p)
}

func labelsOf(i int) labels.Labels { return labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)) }

// upload puts p into the bucket, which was made of sources.
func (c *cast) upload(p *part, sources []*part) {
	var in []sourcetest.Series
	for _, i := range p.series {
		in = append(in, sourcetest.Series{Labels: labelsOf(i), Samples: []sourcetest.Sample{{T: int64(i) * 1000, V: 1}}})
	}
	slices.SortFunc(in, func(a, b sourcetest.Series) int { return labels.Compare(a.Labels, b.Labels) })
	upload(c.t, c.bkt, makeBlock(c.t, in), ring(team, "r1"), func(m *block.Meta) {
		if len(sources) > 0 {
			c.origin(m, p, sources)
		}
		p.meta = *m
	})
}

// origin is what a compactor says of p.
func (c *cast) origin(m *block.Meta, p *part, sources []*part) {
	o := &block.Origin{ID: m.ULID, Shard: p.Shard, Of: p.Of}
	m.Compaction = tsdb.BlockMetaCompaction{Level: 2}
	for _, s := range sources {
		o.Sources, o.Replaces = append(o.Sources, s.meta.Sources()...), append(o.Replaces, s.meta.ULID)
		m.MinTime, m.MaxTime = min(m.MinTime, s.meta.MinTime), max(m.MaxTime, s.meta.MaxTime)
	}
	slices.SortFunc(o.Sources, ulid.ULID.Compare)
	o.Sources = slices.Compact(o.Sources)
	slices.SortFunc(o.Replaces, ulid.ULID.Compare)
	m.Compaction.Sources = o.Sources
	if o.Of > 1 {
		m.Compaction.Sources = []ulid.ULID{m.ULID}
	}
	m.Origin = o
}

// replace makes parts stand for sources.
func (c *cast) replace(sources []*part, parts ...*part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range parts {
		c.lives[p.meta.ULID] = p
	}
	for _, s := range sources {
		delete(c.lives, s.meta.ULID)
		c.old[s.meta.ULID] = time.Now()
	}
}

// merge makes one block of sources, or two parts. The compactor may die between these.
func (c *cast) merge(sources []*part) {
	whole := &part{Part: sources[0].Part}
	for i, s := range sources { // their samples were there before
		whole.series = append(whole.series, s.series...)
		if i == 0 || s.since.After(whole.since) {
			whole.since = s.since
		}
	}
	if c.rnd.IntN(2) == 0 && whole.Of == 0 {
		both := []*part{{Part: block.Part{Shard: 0, Of: 2}}, {Part: block.Part{Shard: 1, Of: 2}}}
		both[0].since, both[1].since = whole.since, whole.since
		for _, i := range whole.series {
			p := both[labels.StableHash(labelsOf(i))%2]
			p.series = append(p.series, i)
		}
		if len(both[0].series) > 0 && len(both[1].series) > 0 {
			c.broken = &halfDone{sources, both[:1]}
			c.upload(both[0], sources)
			if c.rnd.IntN(2) == 0 {
				c.broken.parts = both // the rest comes later
				return
			}
			c.broken = nil
			c.upload(both[1], sources)
			c.replace(sources, both...)
			return
		}
	}
	if whole.Of == 0 {
		whole.Part = block.Part{Shard: 0, Of: 1}
	}
	c.upload(whole, sources)
	if whole.Of == 1 {
		whole.Part = block.Part{}
	}
	c.replace(sources, whole)
}

// mend uploads the part that is missing.
func (c *cast) mend() {
	b := c.broken
	c.broken = nil
	c.upload(b.parts[1], b.sources)
	c.replace(b.sources, b.parts...)
}

// compact makes one block, or two parts, of two blocks that have the same part of all series, and deletes blocks that
// were replaced long ago.
func (c *cast) compact() {
	if c.broken != nil {
		c.mend()
		return
	}
	ids := slices.SortedFunc(maps.Keys(c.lives), ulid.ULID.Compare)
	if len(ids) < 4 {
		return
	}
	at := c.rnd.IntN(len(ids))
	for _, id := range ids[at+1:] {
		if a, b := c.lives[ids[at]], c.lives[id]; a.Part == b.Part {
			c.merge([]*part{a, b})
			break
		}
	}
	for id, since := range c.old {
		if time.Since(since) > time.Hour {
			delete(c.old, id)
			if err := block.Delete(c.t.Context(), c.bkt, id); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// query asks all gateways that a querier would ask, as one of Hearth does: first for what each owns first, then by name
// for what was missing. Some cannot be reached. It returns the series that came, and whether they are all of them by
// the gateways' own words.
func (c *cast) query(labelsOnly bool) (got map[string]bool, complete bool) {
	got = map[string]bool{}
	var heard []series.Coverage
	var seen, failed []series.Holding
	reached := slices.DeleteFunc(c.live(true), func(name string) bool {
		info, err := c.gateways[name].Info(c.t.Context())
		if err != nil {
			return true
		}
		info.Blocks.Bucket = "bucket" // as a querier names one without an id
		seen = append(seen, info.Blocks)
		if c.rnd.IntN(8) == 0 { // the network is cut
			failed = append(failed, info.Blocks)
			return true
		}
		return false
	})
	askAll := func(blocks series.BlockRequest) {
		for _, name := range reached {
			r := ask(team, math.MinInt64, math.MaxInt64)
			r.Blocks = blocks
			values, coverage := c.one(c.gateways[name], r, labelsOnly)
			for v := range values {
				got[v] = true
			}
			heard = append(heard, coverage...)
		}
	}
	askAll(series.BlockRequest{Primary: true})
	for _, name := range reached { // some look at the bucket meanwhile
		if c.rnd.IntN(4) == 0 {
			if err := c.gateways[name].Sync(c.t.Context()); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	gaps, _ := series.Uncovered("bucket", heard, seen)
	for _, g := range gaps {
		if len(g.Missing) > 0 {
			askAll(series.BlockRequest{Only: g.Missing, View: g.View})
		}
	}
	_, proven := series.Uncovered("bucket", heard, seen)
	return got, proven && !slices.ContainsFunc(failed, func(h series.Holding) bool {
		return !series.StandsFor(h, heard, proven)
	})
}

// one asks one gateway.
func (c *cast) one(g *player, r *series.Request, labelsOnly bool) (map[string]bool, []series.Coverage) {
	var coverage []series.Coverage
	ctx := series.OnCoverage(c.t.Context(), func(of series.Coverage) {
		of.Bucket = "bucket"
		coverage = []series.Coverage{of}
	})
	got := map[string]bool{}
	if labelsOnly {
		values, _, err := g.LabelValues(ctx, "i", r)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, v := range values {
			got[v] = true
		}
		return got, coverage
	}
	set := g.Select(ctx, r)
	defer set.Close()
	for set.Next() {
		got[set.At().Labels.Get("i")] = true
	}
	if set.Err() != nil {
		c.t.Fatal(set.Err())
	}
	return got, coverage
}

// check compares answers with what is in the bucket. It returns whether the answer of Hearth's querier was complete.
func (c *cast) check(step string) bool {
	want := map[string]bool{} // series that every gateway must know
	for _, p := range c.lives {
		if time.Since(p.since) > synced {
			for _, i := range p.series {
				want[fmt.Sprint(i)] = true
			}
		}
	}
	got, complete := c.query(c.rnd.IntN(3) == 0)
	for i := range want {
		if !got[i] && complete {
			c.t.Fatalf("%s: series %s is missing without a word", step, i)
		}
	}
	if time.Since(c.gone) > noticed+lag+2*time.Second {
		// Everybody knows who is there. A querier that asks nobody again misses nothing, either.
		got = map[string]bool{}
		for _, name := range c.live(true) {
			values, _ := c.one(c.gateways[name], ask(team, math.MinInt64, math.MaxInt64), false)
			maps.Copy(got, values)
		}
		for i := range want {
			if !got[i] {
				c.t.Fatalf("%s: series %s is served by nobody", step, i)
			}
		}
	}
	return complete
}

// TestShareLife plays lives of a cluster. Whatever comes, goes, dies and is compacted: an answer has all samples, or
// says what is missing; and no block is served by nobody while a gateway that has it lives.
func TestShareLife(t *testing.T) {
	answers, complete := 0, 0
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCast(t, seed)
				for range 6 {
					c.ship()
				}
				for range 3 {
					c.come()
				}
				time.Sleep(2 * synced)
				for i := range 25 {
					step := c.step()
					for _, pause := range []time.Duration{time.Second, 3 * time.Second, 5 * time.Second, time.Minute} {
						time.Sleep(time.Duration(c.rnd.Int64N(int64(pause))))
						answers++
						if c.check(fmt.Sprint("step ", i, ", ", step)) {
							complete++
						}
					}
				}
				time.Sleep(5 * time.Minute)
				c.letGoCheck()
				for _, name := range c.live(false) {
					c.die(name, 0)
				}
			})
		})
	}
	t.Logf("%d of %d answers were complete", complete, answers)
	if complete < answers*17/20 || complete == answers { // 3/4 where nobody serves what is not needed any more
		t.Errorf("%d of %d answers were complete", complete, answers)
	}
}

// letGoCheck: at rest nobody keeps what others own.
func (c *cast) letGoCheck() {
	copies := map[ulid.ULID]int{}
	for _, name := range c.live(true) {
		for _, st := range c.gateways[name].Status() {
			if st.Kept {
				c.t.Errorf("%s still keeps block %s", name, st.ID)
			}
			copies[st.ID]++
		}
	}
	for id := range c.lives {
		if want := min(c.copies, len(c.live(true))); copies[id] != want {
			c.t.Errorf("block %s is served by %d gateways, want %d", id, copies[id], want)
		}
	}
}

// step does one thing at random, and says what.
func (c *cast) step() string {
	switch k := c.rnd.IntN(12); {
	case k < 2:
		if len(c.live(false)) < 5 {
			c.come()
			return "a gateway comes"
		}
	case k < 3:
		if name := c.pick(); name != "" {
			c.die(name, noticed)
			return name + " dies"
		}
	case k < 4:
		if name := c.pick(); name != "" {
			c.leave(name)
			return name + " leaves"
		}
	case k < 7:
		c.ship()
		return "a block comes"
	case k < 9:
		c.compact()
		return "a compaction"
	case k < 10:
		f := block.NewFetcher(c.bkt, block.FetcherOptions{})
		if _, err := f.WriteIndex(c.t.Context(), c.bkt); err != nil {
			c.t.Fatal(err)
		}
		return "an index"
	}
	return "nothing"
}
