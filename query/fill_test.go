package query

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// mood is what goes wrong with a gateway.
type mood int

const (
	well        mood = iota
	dead             // fails at once
	deadAfter        // fails when it has said what it covers
	deadMid          // fails after its first series
	mute             // does not say what it covers
	stubborn         // cannot load a newer view
	blind            // cannot open some of its blocks
	hanging          // is silent from the beginning
	hangingLate      // is silent when it has said what it covers
	moods
)

// gatewayFake is a gateway that shares a bucket of blocks whose samples are numbers. Each sample is a series.
type gatewayFake struct {
	name   string
	ring   []ring.Member // as this gateway sees it
	now    state
	newest state // what it can load
	mood   mood
	listed bool // it lists what it does not serve
	// contents are what it found in a bucket without an id.
	contents series.Contents

	mu    sync.Mutex
	calls []series.BlockRequest
	named []series.View // those of the coverages that it told
}

func (g *gatewayFake) owners(id ulid.ULID) (names []string) {
	for _, i := range ring.Owners(g.ring, id[:], 2) {
		names = append(names, g.ring[i].ID)
	}
	return names
}

// serves reports whether the response to a request for blocks has block id.
func (g *gatewayFake) serves(id ulid.ULID, r series.BlockRequest) bool {
	switch owners := g.owners(id); {
	case g.mood == blind && id[2]%2 == 0:
		return false
	case r.Only != nil:
		return slices.Contains(r.Only, id)
	case r.Primary:
		return owners[0] == g.name
	default:
		return slices.Contains(owners, g.name)
	}
}

// answer tells what g covers, and returns the numbers of the samples that it serves.
func (g *gatewayFake) answer(ctx context.Context, r *series.Request) (numbers []int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, r.Blocks)
	switch g.mood {
	case dead:
		return nil, errs.E(errs.Unavailable, "connection refused")
	case hanging:
		<-ctx.Done()
		return nil, errs.Wrap(errs.Unavailable, ctx.Err())
	}
	if r.Blocks.View.Number > g.now.view.Number && g.mood != stubborn {
		g.now = g.newest
	}
	c := series.Coverage{Holding: series.Holding{Bucket: "x", View: g.now.view},
		Needed: series.DigestOf(slices.Collect(maps.Keys(g.now.blocks))...)}
	if g.contents != "" {
		c.Holding = series.Holding{Contents: g.contents}
	}
	for id, b := range g.now.blocks {
		if g.serves(id, r.Blocks) {
			c.Served, numbers = append(c.Served, id), append(numbers, b.samples...)
		} else if g.listed {
			c.Others = append(c.Others, series.Block{ID: id, Replaces: b.replaces})
		}
	}
	if g.mood != mute {
		g.named = append(g.named, g.now.view)
		series.TellCoverage(ctx, c)
	}
	slices.Sort(numbers)
	return numbers, nil
}

func nameOf(n int) string { return fmt.Sprintf("%06d", n) }

// Select implements series.Source.
func (g *gatewayFake) Select(ctx context.Context, r *series.Request) series.Set {
	numbers, err := g.answer(ctx, r)
	if err != nil {
		return series.Failed(err)
	}
	var all []series.Series
	for _, n := range numbers {
		all = append(all, series.Series{Labels: labels.FromStrings("n", nameOf(n))})
	}
	return &fakeSet{Set: series.List(all), g: g, ctx: ctx}
}

// fakeSet ends as the mood of its gateway is.
type fakeSet struct {
	series.Set
	g   *gatewayFake
	ctx context.Context
	n   int
	err error
}

func (s *fakeSet) Next() bool {
	switch {
	case s.g.mood == deadAfter, s.g.mood == deadMid && s.n == 1:
		s.err = errs.E(errs.Unavailable, "connection reset")
	case s.g.mood == hangingLate:
		<-s.ctx.Done()
		s.err = errs.Wrap(errs.Unavailable, s.ctx.Err())
	}
	s.n++
	return s.err == nil && s.Set.Next()
}

func (s *fakeSet) Err() error { return s.err }

// LabelNames implements series.Source.
func (g *gatewayFake) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return g.LabelValues(ctx, "n", r)
}

// LabelValues implements series.Source.
func (g *gatewayFake) LabelValues(ctx context.Context, _ string, r *series.Request) ([]string, series.Warnings, error) {
	numbers, err := g.answer(ctx, r)
	if err == nil && (g.mood == deadAfter || g.mood == deadMid) {
		err = errs.E(errs.Unavailable, "connection reset")
	}
	if err != nil {
		return nil, nil, err
	}
	var all []string
	for _, n := range numbers {
		all = append(all, nameOf(n))
	}
	return all, nil, nil
}

// Info implements series.Source.
func (g *gatewayFake) Info(context.Context) (series.Info, error) { return series.Info{}, nil }

// fakes are a querier and the gateways that it knows.
type fakes struct {
	*Querier
	gateways  []*gatewayFake
	endpoints []*endpoint
}

// newFakes returns n gateways of one bucket, all with the state now. The querier does not poll them.
func newFakes(t *testing.T, n int, now state) *fakes {
	f := &fakes{Querier: open(t, DefaultOptions())}
	f.stop()
	f.wg.Wait()
	var members []ring.Member
	for i := range n {
		members = append(members, ring.Member{ID: fmt.Sprint("s", i)})
	}
	for i := range n {
		g := &gatewayFake{name: members[i].ID, ring: members, now: now, newest: now, listed: true}
		f.gateways = append(f.gateways, g)
		f.endpoints = append(f.endpoints, &endpoint{Endpoint: Endpoint{Name: g.name, Source: g}, heard: true,
			info: series.Info{Instance: g.name, Role: series.RoleStore,
				Blocks: series.Holding{Bucket: "x", View: now.view}}})
	}
	return f
}

// ask returns the numbers of the samples in the answer. labels says that it asks for values of a label.
func (f *fakes) ask(t *testing.T, labels bool) (map[int]bool, series.Warnings) {
	t.Helper()
	f.snapshot.Store(newSnapshot(f.endpoints))
	r := &series.Request{Tenant: tenant.Default, MaxTime: 2000}
	has := map[int]bool{}
	add := func(name string) {
		var n int
		if _, err := fmt.Sscanf(name, "%d", &n); err != nil {
			t.Fatal(err)
		}
		has[n] = true
	}
	if labels {
		found, warnings, err := f.LabelValues(t.Context(), "n", r)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			add(name)
		}
		return has, warnings
	}
	set := f.Select(t.Context(), r)
	last := ""
	for set.Next() {
		name := set.At().Labels.Get("n")
		if name <= last {
			t.Fatalf("series %s comes after %s", name, last)
		}
		last = name
		add(name)
	}
	warnings := set.Warnings()
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	return has, warnings
}

// bucketOf is a state of n blocks with a sample each.
func bucketOf(n int) state {
	s := state{series.View{Number: 5, Hash: "a"}, map[ulid.ULID]kept{}}
	for i := range n {
		s.blocks[ulid.ULID{byte(i * 37), byte(i), byte(i >> 8)}] = kept{samples: []int{i + 1}}
	}
	return s
}

// TestEachBlockIsReadOnce: without a gap, each gateway is asked once, and no two of them serve the same block.
func TestEachBlockIsReadOnce(t *testing.T) {
	for _, labels := range []bool{false, true} {
		f := newFakes(t, 5, bucketOf(100))
		has, warnings := f.ask(t, labels)
		if len(has) != 100 || len(warnings) > 0 {
			t.Errorf("%d samples, warnings %q", len(has), warnings)
		}
		served := 0
		for _, g := range f.gateways {
			if len(g.calls) != 1 || !g.calls[0].Primary || g.calls[0].Only != nil || g.calls[0].View.Number != 5 {
				t.Errorf("%s was asked %+v", g.name, g.calls)
			}
			for id := range g.now.blocks {
				if g.serves(id, g.calls[0]) {
					served++
				}
			}
		}
		if served != 100 {
			t.Errorf("%d blocks were served", served)
		}
	}
}

// TestMissingBlocks: exactly the blocks of a gateway that fails are asked from others, each from one, and an answer
// that has all of them has no warning.
func TestMissingBlocks(t *testing.T) {
	for _, labels := range []bool{false, true} {
		for _, m := range []mood{dead, deadAfter, deadMid} {
			f := newFakes(t, 4, bucketOf(100))
			f.gateways[1].mood = m
			has, warnings := f.ask(t, labels)
			if len(has) != 100 || len(warnings) > 0 {
				t.Errorf("mood %d, labels %t: %d samples, warnings %q", m, labels, len(has), warnings)
			}
			var want, asked []ulid.ULID
			for id := range f.gateways[1].now.blocks {
				if f.gateways[1].owners(id)[0] == "s1" {
					want = append(want, id)
				}
			}
			for _, g := range f.gateways {
				for _, c := range g.calls {
					asked = append(asked, c.Only...)
				}
			}
			slices.SortFunc(want, ulid.ULID.Compare)
			slices.SortFunc(asked, ulid.ULID.Compare)
			if !slices.Equal(asked, want) || len(want) == 0 {
				t.Errorf("mood %d, labels %t: asked again for %d blocks, want %d", m, labels, len(asked), len(want))
			}
		}
	}
	// One that did not answer the last poll is not asked.
	f := newFakes(t, 3, bucketOf(100))
	f.endpoints[0].err = errs.E(errs.Unavailable, "down")
	if has, warnings := f.ask(t, false); len(has) != 100 || len(warnings) > 0 || len(f.gateways[0].calls) > 0 {
		t.Errorf("%d samples, warnings %q, asked %+v", len(has), warnings, f.gateways[0].calls)
	}
	// What nobody serves is named.
	f = newFakes(t, 3, bucketOf(4))
	for _, g := range f.gateways {
		g.mood = blind
	}
	has, warnings := f.ask(t, false)
	if text := strings.Join(warnings, ""); len(has) == 4 || !strings.Contains(text, "no store gateway that answered serves") {
		t.Errorf("%d samples, warnings %q", len(has), warnings)
	}
	// More blocks than gateways list.
	f = newFakes(t, 3, bucketOf(100))
	for _, g := range f.gateways {
		g.listed = false
	}
	f.gateways[2].mood = dead
	if has, warnings := f.ask(t, false); len(has) != 100 || len(warnings) > 0 {
		t.Errorf("%d samples, warnings %q", len(has), warnings)
	}
	// storeMatch names whom to ask.
	f = newFakes(t, 3, bucketOf(100))
	p := f.defaultParams()
	p.storeMatch = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, addressLabel, "s1")}}
	f.snapshot.Store(newSnapshot(f.endpoints))
	set := f.Select(withParams(t.Context(), p), &series.Request{Tenant: tenant.Default, MaxTime: 2000})
	for set.Next() {
	}
	others := len(f.gateways[0].calls) + len(f.gateways[2].calls)
	if w := set.Warnings(); len(w) > 0 || set.Err() != nil || others > 0 || f.gateways[1].calls[0].Primary {
		t.Errorf("%q, %v, asked %+v", w, set.Err(), f.gateways[1].calls)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
}

// TestSilentShare: a gateway that hangs is left after a third of the limit, and others serve its blocks.
func TestSilentShare(t *testing.T) {
	for _, m := range []mood{hanging, hangingLate} {
		during(t, fmt.Sprint("mood ", m), func(t *testing.T) {
			f := newFakes(t, 3, bucketOf(50))
			defer f.Close()
			f.gateways[1].mood = m
			begin := time.Now()
			has, warnings := f.ask(t, false)
			took := time.Since(begin)
			if len(has) != 50 || len(warnings) > 0 || took < 5*time.Second || took > 6*time.Second {
				t.Errorf("%d samples, warnings %q, after %s", len(has), warnings, took)
			}
			synctest.Wait()
		})
	}
}

// TestSharesNeverSilent plays random buckets and gateways, and compares answers with what the newest view has that
// anybody named.
func TestSharesNeverSilent(t *testing.T) {
	f := newFakes(t, 0, bucketOf(0))
	silent, warned, noisy, filled := 0, 0, 0, 0
	for seed := range uint64(1500) {
		w := newBucketLife(rand.NewPCG(seed, 3))
		n, listed, labels := 1+w.rnd.IntN(4), w.rnd.IntN(8) > 0, w.rnd.IntN(3) == 0
		one := newFakes(t, n, w.states[len(w.states)-1])
		f.gateways, f.endpoints = one.gateways, one.endpoints
		healthy, steady, unnamed := 0, listed && n <= attempts, w.rnd.IntN(3) == 0
		polled := make([]series.View, n)
		if unnamed {
			clear(w.losers) // nobody numbers states
		}
		for i, g := range f.gateways {
			g.listed, g.now, g.newest = listed, w.lagging(2), w.lagging(0)
			if g.mood = mood(w.rnd.IntN(2 * int(hanging))); g.mood >= hanging {
				g.mood = well
			}
			if w.rnd.IntN(4) == 0 { // it does not know the last one
				g.ring = g.ring[:max(1, n-1)]
			}
			if polled[i] = w.lagging(3).view; unnamed {
				polled[i].Number = min(polled[i].Number, g.now.view.Number)
				f.endpoints[i].info.Blocks = series.Holding{Contents: w.foundUntil(polled[i].Number)}
				g.contents = w.foundUntil(g.now.view.Number)
				steady = steady && g.contents == w.foundUntil(w.lagging(0).view.Number)
			} else {
				f.endpoints[i].info.Blocks.View = polled[i]
			}
			if g.mood == dead && w.rnd.IntN(2) == 0 {
				f.endpoints[i].err = errs.E(errs.Unavailable, "down")
			}
			if g.mood == well {
				healthy++
			}
			steady = steady && (g.mood == well || g.mood == dead || g.mood == deadAfter || g.mood == deadMid && !labels)
		}
		has, warnings := f.ask(t, labels)
		var named []series.View
		asked := 0
		for i, g := range f.gateways {
			named = append(append(named, g.named...), polled[i])
			for _, c := range g.calls {
				asked += len(c.Only)
			}
		}
		newest := uint64(0)
		for _, v := range named {
			newest = max(newest, v.Number)
		}
		lost := false
		for _, v := range named {
			if v.Number != newest {
				continue
			}
			content := w.states[v.Number-1]
			if v.Hash == "b" {
				content = w.losers[v.Number]
			}
			for _, b := range content.blocks {
				lost = lost || slices.ContainsFunc(b.samples, func(s int) bool { return !has[s] })
			}
		}
		_, raced := w.losers[newest]
		switch {
		case lost && len(warnings) == 0:
			t.Fatalf("seed %d: samples are missing without a word", seed)
		case len(warnings) > 0 && steady && healthy > 0 && !raced:
			t.Fatalf("seed %d: a gateway is well that could serve everything, and the answer says %q", seed, warnings)
		case len(warnings) == 0:
			silent++
			if asked > 0 {
				filled++
			}
		case lost:
			warned++
		default:
			noisy++
		}
	}
	t.Logf("%d answers without a warning (%d of them with blocks that were asked for again), %d that lack something, %d that may",
		silent, filled, warned, noisy)
	if silent < 500 || filled < 200 || warned < 50 || noisy > silent {
		t.Error("too few of some kind to tell anything")
	}
}
