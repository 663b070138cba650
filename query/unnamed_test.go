package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// found are the contents of the bucket for a gateway that looked at it in some of its states, the last one among them.
func (w *bucketLife) found(states ...int) (c series.Contents) {
	for _, i := range states {
		c = w.foundAfter(c, i)
	}
	return c
}

func (w *bucketLife) foundAfter(c series.Contents, at int) series.Contents {
	return c.After(series.DigestOfSet(w.states[at].blocks))
}

// foundUntil are the contents for a gateway that looked at the bucket in all states up to one, by its number.
func (w *bucketLife) foundUntil(number uint64) (c series.Contents) {
	for at := range int(number) {
		c = w.foundAfter(c, at)
	}
	return c
}

// unnamedLife is a gateway of a bucket without an id, as it is when a query comes.
type unnamedLife struct {
	*gatewayLife
	bucket      *bucketLife
	polled, now int // states of the bucket
	whole       bool
}

// unnamed is gateway i of n of the bucket w, which has no id. steady says that it saw the last state.
func (w *bucketLife) unnamed(i, n int, steady bool) *unnamedLife {
	var seen []int
	for at := range w.states {
		if at == 0 || steady && at == len(w.states)-1 || w.rnd.IntN(2) == 0 {
			seen = append(seen, at)
		}
	}
	polled := len(seen) - 1
	if !steady {
		polled = max(0, polled-w.rnd.IntN(2))
	}
	g := &unnamedLife{bucket: w, now: seen[len(seen)-1], polled: seen[polled], whole: w.rnd.IntN(3) == 0,
		gatewayLife: &gatewayLife{serves: map[ulid.ULID]kept{}, fails: w.rnd.IntN(3) == 0}}
	now := w.states[g.now]
	c := series.Coverage{Holding: series.Holding{Contents: w.found(seen...), Whole: g.whole}}
	if !g.whole {
		c.Needed = series.DigestOfSet(now.blocks)
	}
	for id, b := range now.blocks {
		switch at := (int(id[0]) + n - i) % n; {
		case g.whole:
			g.serves[id] = b
		case at < min(n, 2):
			g.serves[id], c.Served = b, append(c.Served, id)
		default:
			c.Others = append(c.Others, series.Block{ID: id, Replaces: b.replaces})
		}
	}
	g.covered = &c
	name := fmt.Sprintf("s%d of %d", i, w.n)
	g.endpoint = &endpoint{Endpoint: Endpoint{Name: name}, heard: true, info: series.Info{Instance: name,
		Role: series.RoleStore, Blocks: series.Holding{Contents: w.found(seen[:polled+1]...), Whole: g.whole}}}
	if g.fails && w.rnd.IntN(2) == 0 {
		g.err = errs.E(errs.Unavailable, "down")
		if w.rnd.IntN(4) == 0 { // it has never answered, and gossip knows nothing of its bucket
			g.heard, g.info.Blocks, g.polled = false, series.Holding{}, 0
		}
	}
	return g
}

// unnamedTruth is what the oracle knows of the bucket w. lost: the newest state that anybody named has samples that
// nobody served. served: all that is known of is one state, and who answered served it. A state that a copy of the
// bucket had, too, is a state of both: nobody can tell which one a gateway reads that named no other.
func (w *bucketLife) unnamedTruth(gateways []*unnamedLife, answered []*gatewayLife) (lost, served bool) {
	newest, has, served := 0, map[int]bool{}, true
	ids := map[ulid.ULID]bool{}
	whole := false
	for _, g := range gateways {
		isAnswered := slices.Contains(answered, g.gatewayLife)
		if isAnswered {
			for id, b := range g.serves {
				if g.bucket == w {
					ids[id] = true
				}
				for _, s := range b.samples {
					has[s] = true
				}
			}
		}
		if g.bucket != w {
			continue
		}
		said := g.polled
		if isAnswered {
			said = g.now
		}
		if isAnswered || said > w.forked {
			newest = max(newest, said)
		}
		last := len(w.states) - 1
		served = served && g.heard && g.now == last && g.polled == last
		whole = whole || isAnswered && g.whole
	}
	for id, b := range w.states[newest].blocks {
		lost = lost || slices.ContainsFunc(b.samples, func(s int) bool { return !has[s] })
		served = served && (whole || ids[id])
	}
	anybody := slices.ContainsFunc(gateways, func(g *unnamedLife) bool {
		return g.bucket == w && slices.Contains(answered, g.gatewayLife)
	})
	return lost, served && anybody && len(w.states[newest].blocks) > 0
}

// TestUnnamedNeverSilent looks for samples that are missing from an answer without a warning, where buckets have no ids
// and gateways of several buckets answer; and for warnings where everything was served.
func TestUnnamedNeverSilent(t *testing.T) {
	q := open(t, DefaultOptions())
	q.stop() // else a poll may replace the snapshot
	q.wg.Wait()
	silent, warned, noisy, excused := 0, 0, 0, 0
	for seed := range uint64(6000) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		buckets := []*bucketLife{newBucketLife(rnd)}
		switch rnd.IntN(3) {
		case 0:
			buckets = append(buckets, newBucketLife(rnd))
		case 1: // a copy of a bucket that goes on by itself
			w := buckets[0]
			w.forked = len(w.states) - 1
			buckets = append(buckets, &bucketLife{rnd: rnd, losers: map[uint64]state{}, states: slices.Clone(w.states),
				forked: w.forked})
		}
		for i, w := range buckets {
			w.n += 10_000 * i
			for range rnd.IntN(4) {
				w.step()
			}
		}
		var gateways []*unnamedLife
		var lives []*gatewayLife
		steady := rnd.IntN(2) == 0
		for _, w := range buckets {
			n := 1 + rnd.IntN(4)
			for i := range n {
				g := w.unnamed(i, n, steady)
				gateways, lives = append(gateways, g), append(lives, g.gatewayLife)
			}
		}
		answered, said := answerOf(t, q, lives)
		lost, served := false, true
		for _, w := range buckets {
			l, s := w.unnamedTruth(gateways, answered)
			lost, served = lost || l, served && s
		}
		switch text := strings.Join(said, "; "); {
		case lost && len(said) == 0:
			t.Fatalf("seed %d: samples are missing without a word", seed)
		case served && len(said) > 0:
			t.Fatalf("seed %d: each block was served, and the answer says %q", seed, text)
		case len(said) == 0:
			silent++
			if slices.ContainsFunc(gateways, func(g *unnamedLife) bool { return g.fails }) {
				excused++
			}
		case lost:
			warned++
		default:
			noisy++
		}
	}
	t.Logf("%d answers without a warning (%d of them though a gateway failed), %d that lack something, %d that may", silent,
		excused, warned, noisy)
	if silent < 500 || excused < 200 || warned < 500 {
		t.Error("too few of some kind to tell anything")
	}
}

// TestUnnamedBuckets: gateways are one bucket's as far as one knows what another found, and never because neither found
// anything.
func TestUnnamedBuckets(t *testing.T) {
	set := func(ids ...byte) series.Digest {
		all := map[ulid.ULID]bool{}
		for _, id := range ids {
			all[ulid.ULID{id}] = true
		}
		return series.DigestOfSet(all)
	}
	f := func(want string, contents ...series.Contents) {
		t.Helper()
		var all []*endpoint
		for i, c := range contents {
			e := &endpoint{Endpoint: Endpoint{Name: fmt.Sprint(i)}, heard: true}
			e.info.Blocks = series.Holding{Contents: c, Bucket: "of the last poll"}
			if c == "" {
				e.info.Blocks.Bucket = ""
			}
			all = append(all, e)
		}
		nameBuckets(all)
		var got []string
		names := map[string]int{"": 0}
		for _, e := range all {
			if _, found := names[e.info.Blocks.Bucket]; !found {
				names[e.info.Blocks.Bucket] = len(names)
			}
			got = append(got, fmt.Sprint(names[e.info.Blocks.Bucket]))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s, want %s", text, want)
		}
	}
	one := series.Contents("").After(set(1))
	two := one.After(set(1, 2))
	three := two.After(set(2, 3))
	f("1 1 1", one, two, three)
	f("1 2 1", two, series.Contents("").After(set(8)), one)
	f("0 0", "", one.After(set()))
	f("1 2", three, series.Contents("").After(set(1, 2, 3)))
	f("1 1", one.After(set(4)), one) // a copy that went on, or one that is behind
	f("1 2", one.After(set(4)), two)
	f("1 1 1", one.After(set(4)), two, one)

	// Which of them are asked: one that knows all that the others found.
	asked := func(want string, contents ...series.Contents) {
		t.Helper()
		var all []*endpoint
		for i, c := range contents {
			name := fmt.Sprint(i)
			e := &endpoint{Endpoint: Endpoint{Name: name}, heard: true, info: series.Info{Instance: name,
				Role: series.RoleStore, Blocks: series.Holding{Contents: c, Whole: true}}}
			all = append(all, e)
		}
		var got []string
		for _, g := range choose(newSnapshot(all).endpoints, &series.Request{}, nil).groups {
			got = append(got, g.endpoints[0].Name)
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != want {
			t.Errorf("asked are %s, want %s", text, want)
		}
	}
	asked("1", one, two)
	asked("2", two, one, three)
	asked("0 1", one.After(set(4)), two, one)
	asked("0 1", one, series.Contents("").After(set(8)))
}
