package query

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// kept is a block and the samples in it, as numbers.
type kept struct {
	samples  []int
	replaces []ulid.ULID
}

// state is a view of a bucket with its content.
type state struct {
	view   series.View
	blocks map[ulid.ULID]kept
}

// bucketLife is a bucket that changes, and its gateways.
type bucketLife struct {
	rnd    *rand.Rand
	states []state // the newest last; losers holds others of the same numbers
	losers map[uint64]state
	n      int // of samples and ids
	forked int // the last state that a copy of the bucket had, too
}

// newBucketLife is a bucket after some steps.
func newBucketLife(from rand.Source) *bucketLife {
	w := &bucketLife{rnd: rand.New(from), losers: map[uint64]state{},
		states: []state{{view: series.View{Number: 1, Hash: "a"}, blocks: map[ulid.ULID]kept{}}}}
	for range 3 + w.rnd.IntN(10) {
		w.step()
	}
	return w
}

func (w *bucketLife) id() ulid.ULID {
	w.n++
	return ulid.ULID{byte(w.rnd.Uint32()), byte(w.n >> 8), byte(w.n)}
}

// step makes the next view: with new blocks, with some compacted into one or into two parts, or with one expired.
func (w *bucketLife) step() {
	was := w.states[len(w.states)-1]
	next := state{series.View{Number: was.view.Number + 1, Hash: "a"}, maps.Clone(was.blocks)}
	ids := slices.SortedFunc(maps.Keys(next.blocks), ulid.ULID.Compare)
	w.rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	switch k := w.rnd.IntN(4); {
	case k < 2 || len(ids) < 4:
		for range 1 + w.rnd.IntN(3) {
			w.n++
			next.blocks[w.id()] = kept{samples: []int{w.n}}
		}
		if w.rnd.IntN(4) == 0 { // another writer made a view of this number without them
			w.losers[next.view.Number] = state{series.View{Number: next.view.Number, Hash: "b"}, was.blocks}
		}
	case k == 2:
		var made kept
		for _, id := range ids[:2+w.rnd.IntN(2)] {
			made.samples, made.replaces = append(made.samples, next.blocks[id].samples...), append(made.replaces, id)
			delete(next.blocks, id)
		}
		if w.rnd.IntN(2) == 0 { // the output is split: all parts together replace what they were made of
			at := 1 + w.rnd.IntN(len(made.samples)-1)
			next.blocks[w.id()] = kept{samples: made.samples[at:], replaces: made.replaces}
			made.samples = made.samples[:at]
		}
		next.blocks[w.id()] = made
	default:
		delete(next.blocks, ids[0])
	}
	w.states = append(w.states, next)
}

// lagging is a view that is behind by as much as most.
func (w *bucketLife) lagging(most int) state {
	s := w.states[max(0, len(w.states)-1-w.rnd.IntN(most+1))]
	if loser, found := w.losers[s.view.Number]; found && w.rnd.IntN(2) == 0 {
		return loser
	}
	return s
}

// gatewayLife is one gateway, as it is when a query comes.
type gatewayLife struct {
	*endpoint
	serves  map[ulid.ULID]kept
	fails   bool
	covered *series.Coverage // what its response says; nil = nothing
}

// gateway is one of n of a bucket, of which copies own each block. It shares the blocks with the others, or is an old
// one that serves all it sees, or serves a range of times.
func (w *bucketLife) gateway(i, n, copies int, listed bool) *gatewayLife {
	now := w.lagging(2)
	g := &gatewayLife{serves: map[ulid.ULID]kept{}, fails: w.rnd.IntN(4) == 0}
	name := fmt.Sprint("s", i)
	info := series.Info{Instance: name, Role: series.RoleStore, Blocks: series.Holding{Bucket: "x"}}
	switch kind := w.rnd.IntN(10); {
	case kind == 0: // old
		info.Blocks.Whole, g.serves = true, now.blocks
	case kind == 1: // a range of times
		for id, b := range now.blocks {
			if id[2]%2 == 0 {
				g.serves[id] = b
			}
		}
	default:
		polled := w.lagging(2)
		for polled.view.Number > now.view.Number {
			polled = w.states[slices.IndexFunc(w.states, func(s state) bool { return s.view.Number == now.view.Number })]
		}
		info.Blocks.View = polled.view
		c := series.Coverage{Holding: series.Holding{Bucket: "x", View: now.view}}
		c.Needed = series.DigestOf(slices.Collect(maps.Keys(now.blocks))...)
		for id, b := range now.blocks {
			if (int(id[0])+n-i)%n < copies {
				g.serves[id], c.Served = b, append(c.Served, id)
			} else if listed {
				c.Others = append(c.Others, series.Block{ID: id, Replaces: b.replaces})
			}
		}
		if w.rnd.IntN(20) > 0 { // else it says nothing
			g.covered = &c
		}
	}
	g.endpoint = &endpoint{Endpoint: Endpoint{Name: name}, info: info, heard: true}
	if g.fails && w.rnd.IntN(2) == 0 {
		g.err = errs.E(errs.Unavailable, "down")
		if w.rnd.IntN(3) == 0 { // it has never answered: discovery knows its bucket, and nothing more
			g.heard, g.info.Blocks = false, series.Holding{Bucket: "x"}
		}
	}
	return g
}

// asks is what becomes of a selection over gateways: who answered, in the order of its groups.
func asks(t *testing.T, s *selection, gateways []*gatewayLife) (answered []*gatewayLife) {
	for _, group := range s.plan.groups {
		for _, e := range group.endpoints {
			g := gateways[slices.IndexFunc(gateways, func(g *gatewayLife) bool { return g.endpoint == e })]
			if g.fails {
				s.col.change(s.col.begin(group, e), func(r *response) { r.err = errs.E(errs.Unavailable, "cable cut") })
				if group.blocks.Primary { // it said nothing, so nobody knows what to ask another one for
					break
				}
				continue
			}
			n := s.col.begin(group, e)
			ctx := s.col.hear(t.Context(), n, func() {})
			if g.covered != nil {
				series.TellCoverage(ctx, *g.covered)
			}
			s.col.change(n, func(r *response) { r.ended = true })
			answered = append(answered, g)
			break
		}
	}
	return answered
}

// answerOf is what a query over gateways comes to: who answered, and what the answer says that it lacks.
func answerOf(t *testing.T, q *Querier, gateways []*gatewayLife) (answered []*gatewayLife, said []string) {
	var endpoints []*endpoint
	for _, g := range gateways {
		endpoints = append(endpoints, g.endpoint)
	}
	q.snapshot.Store(newSnapshot(endpoints))
	s := &selection{q: q, req: &series.Request{Tenant: tenant.Default, MaxTime: 2000}, p: q.defaultParams(),
		col: new(collector)}
	s.choose()
	answered = asks(t, s, gateways)
	return answered, s.missing(s.col, false)
}

// truth is what the oracle knows of a selection. lost: the newest view that anybody named has samples that nobody
// served. served: each of its blocks was served, and that can be known.
func (w *bucketLife) truth(gateways, answered []*gatewayLife, listed bool) (lost, served bool) {
	newest, has, whole := uint64(0), map[int]bool{}, false
	ids, old := map[ulid.ULID]bool{}, map[ulid.ULID]bool{} // served by those that say it, and by those with another view
	for _, g := range gateways {
		newest = max(newest, g.info.Blocks.View.Number)
	}
	for _, g := range answered {
		if g.covered != nil {
			newest = max(newest, g.covered.View.Number)
		}
		whole = whole || g.info.Blocks.Whole
		for _, b := range g.serves {
			for _, s := range b.samples {
				has[s] = true
			}
		}
	}
	if newest == 0 {
		failed := slices.ContainsFunc(gateways, func(g *gatewayLife) bool { return g.fails })
		return failed && !whole, !failed || whole
	}
	named, polled := map[series.View]bool{}, map[series.View]bool{} // the newest contents, by responses and by polls
	for _, g := range gateways {
		if g.info.Blocks.View.Number == newest {
			polled[g.info.Blocks.View] = true
		}
	}
	for _, g := range answered {
		if g.covered == nil {
			continue
		}
		if g.covered.View.Number == newest {
			named[g.covered.View] = true
		}
		for id := range g.serves {
			ids[id] = true
		}
	}
	served = len(named) > 0
	for view := range polled {
		served = served && named[view]
	}
	content := func(view series.View) state {
		if view.Hash == "b" {
			return w.losers[view.Number]
		}
		return w.states[view.Number-1]
	}
	for view := range polled {
		for _, b := range content(view).blocks {
			lost = lost || slices.ContainsFunc(b.samples, func(s int) bool { return !has[s] })
		}
	}
	for view := range named {
		clear(old)
		for _, g := range answered {
			if g.covered != nil && g.covered.View != view {
				for id := range g.serves {
					old[id] = true
				}
			}
		}
		mine := func(id ulid.ULID) bool {
			return slices.ContainsFunc(answered, func(g *gatewayLife) bool {
				return g.covered != nil && g.covered.View == view && slices.Contains(g.covered.Served, id)
			})
		}
		for id, b := range content(view).blocks {
			lost = lost || slices.ContainsFunc(b.samples, func(s int) bool { return !has[s] })
			replaced := len(b.replaces) > 0 && !slices.ContainsFunc(b.replaces, func(id ulid.ULID) bool { return !ids[id] })
			served = served && (mine(id) || listed && (old[id] || replaced))
		}
	}
	return lost, served
}

// TestBlocksNeverSilent looks for samples of a bucket that are missing from an answer without a warning, and for
// warnings where each block was served.
func TestBlocksNeverSilent(t *testing.T) {
	q := open(t, DefaultOptions())
	q.stop() // else a poll may replace the snapshot
	q.wg.Wait()
	silent, warned, noisy, behind := 0, 0, 0, 0
	for seed := range uint64(4000) {
		w := newBucketLife(rand.NewPCG(seed, 2))
		n, listed := 1+w.rnd.IntN(4), w.rnd.IntN(4) > 0
		copies := min(n, 1+w.rnd.IntN(2))
		var gateways []*gatewayLife
		for i := range n {
			gateways = append(gateways, w.gateway(i, n, copies, listed))
		}
		answered, said := answerOf(t, q, gateways)
		lost, served := w.truth(gateways, answered, listed)
		switch text := strings.Join(said, "; "); {
		case lost && len(said) == 0:
			t.Fatalf("seed %d: samples are missing without a word", seed)
		case served && len(said) > 0:
			t.Fatalf("seed %d: each block was served, and the answer says %q", seed, text)
		case len(said) == 0:
			silent++
		case !lost:
			noisy++
		default:
			warned++
		}
		if served && slices.ContainsFunc(answered, func(g *gatewayLife) bool {
			return g.covered != nil && g.covered.View.Number < w.states[len(w.states)-1].view.Number
		}) {
			behind++
		}
	}
	t.Logf("%d answers without a warning (%d of them with a gateway that was behind), %d that lack something, %d that may",
		silent, behind, warned, noisy)
	if silent < 500 || behind < 50 || warned < 500 || noisy > silent {
		t.Error("too few of some kind to tell anything")
	}
}

// TestGapText: a warning names what is missing, and is not long.
func TestGapText(t *testing.T) {
	var many []ulid.ULID
	for i := range byte(9) {
		many = append(many, ulid.ULID{i})
	}
	f := func(want string, g series.Gap) {
		t.Helper()
		g.Bucket, g.View = "x", series.View{Number: 7}
		if got := gapText(g); !strings.Contains(got, want) || len(got) > 300 {
			t.Errorf("%q, want %q in it", got, want)
		}
	}
	f("serves the blocks 00000000000000000000000000, 01000000000000000000000000 (view 7)", series.Gap{Missing: many[:2]})
	f(" and 4 more (view 7)", series.Gap{Missing: many})
	f("serves 3 of its blocks (view 7)", series.Gap{Unnamed: 3})
	f("that knows its newest blocks (view 7)", series.Gap{Unheard: true})
}
