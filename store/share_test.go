package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/series"
	placement "github.com/hearth-metrics/hearth/ring"
)

// byRing is the Sharing.Owners of all gateways.
func byRing(of []Member) func(key []byte, n int) []int32 {
	var members []placement.Member
	for _, m := range of {
		members = append(members, placement.Member{ID: m.ID, Zone: m.Zone})
	}
	return func(key []byte, n int) []int32 { return placement.Owners(members, key, n) }
}

// ringOf is a ring as member self sees it; a member "x/z" is in zone z.
func ringOf(self string, copies int, members ...string) owners {
	s := &Sharing{Self: self, ReplicationFactor: copies, Owners: byRing}
	var peers []Peer
	for _, m := range members {
		p := Peer{Member: Member{ID: m}}
		if m[0] == '-' {
			p.ID, p.Leaves = m[1:], true
		}
		peers = append(peers, p)
	}
	return ownersOf(s, peers)
}

func randomID(r *rand.Rand) (id ulid.ULID) {
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return id
}

// TestPlace: each block has as many owners as there are copies, one of them the first, and all gateways agree.
func TestPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	names := []string{"a", "b", "c", "d"}
	for range 1000 {
		id := randomID(r)
		count := map[place]int{}
		for _, self := range names {
			count[ringOf(self, 2, names...).place(id)]++
		}
		if count[first] != 1 || count[owned] != 1 || count[elsewhere] != 2 {
			t.Fatalf("%s: %v", id, count)
		}
	}
	id := randomID(r)
	f := func(want place, o owners) {
		t.Helper()
		if got := o.place(id); got != want {
			t.Errorf("%+v: %d, want %d", o, got, want)
		}
	}
	f(first, owners{})
	f(first, ringOf("a", 2))
	f(first, ringOf("a", 2, "a"))
	f(first, ringOf("a", 2, "a", "-b"))
	f(elsewhere, ringOf("a", 2, "b"))       // it is about to leave, or not on the ring yet
	f(elsewhere, ringOf("a", 2, "-a", "b")) // the same
}

// TestMoves: a gateway that comes or goes changes the owners of about 1/N of the blocks.
func TestMoves(t *testing.T) {
	const blocks = 20_000
	r := rand.New(rand.NewPCG(2, 2))
	ids := make([]ulid.ULID, blocks)
	for i := range ids {
		ids[i] = randomID(r)
	}
	var names []string
	for n := range 12 {
		before := ringOf("x", 2, names...)
		names = append(names, fmt.Sprint("gateway-", n))
		if n < 3 {
			continue
		}
		after, moved, firsts := ringOf("x", 2, names...), 0, 0
		for _, id := range ids {
			a, b := before.of(id), after.of(id)
			if a[0] != b[0] {
				firsts++
			}
			for _, owner := range b {
				if !slices.Contains(a, owner) {
					moved++
				}
			}
		}
		want := 1 / float64(n+1)
		for what, got := range map[string]float64{
			"copies": float64(moved) / (2 * blocks), "first owners": float64(firsts) / blocks,
		} {
			if math.Abs(got-want) > want/5 {
				t.Errorf("gateway %d came: %.3f of the %s moved, want %.3f", n+1, got, what, want)
			}
		}
	}
}

func TestMayLetGo(t *testing.T) {
	x, s := ulid.ULID{1}, ulid.ULID{2}
	o := ringOf("a", 2, "b", "c") // b and c own everything
	owns := series.BlockState{Known: true, Served: true, Owned: true}
	keeps, knows := series.BlockState{Known: true, Served: true}, series.BlockState{Known: true}
	type says map[string]series.BlockState
	f := func(name string, want, late bool, p pending, of map[ulid.ULID]says) {
		t.Helper()
		heard := func(member string, id ulid.ULID) (series.BlockState, bool) {
			state, ok := of[id][member]
			return state, ok
		}
		if got := o.mayLetGo(p, []string{"b", "c", "d"}, heard, late); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	moved, replaced := pending{id: x, moved: true}, pending{id: x, by: []ulid.ULID{s}}
	both := pending{id: x, by: []ulid.ULID{s}, moved: true}
	f("nobody answers", false, false, moved, nil)
	f("nobody ever answers", false, true, moved, nil)
	f("both owners have it", true, false, moved, map[ulid.ULID]says{x: {"b": owns, "c": owns}})
	f("one keeps it only", false, false, moved, map[ulid.ULID]says{x: {"b": owns, "c": keeps}})
	f("one does not have it yet", false, true, moved, map[ulid.ULID]says{x: {"b": owns, "c": knows}})
	f("one does not answer", false, false, moved, map[ulid.ULID]says{x: {"b": owns}})
	f("one does not answer for long", true, true, moved, map[ulid.ULID]says{x: {"b": owns}})
	f("somebody else has it", false, true, moved, map[ulid.ULID]says{x: {"d": owns}})

	all := says{"b": owns, "c": owns, "d": knows}
	f("all know what replaces it", true, false, replaced, map[ulid.ULID]says{s: all})
	f("one that owns nothing does not know it", false, true, replaced,
		map[ulid.ULID]says{s: {"b": owns, "c": owns, "d": {}}})
	f("one that owns nothing does not answer", false, false, replaced, map[ulid.ULID]says{s: {"b": owns, "c": owns}})
	f("the same for long", true, true, replaced, map[ulid.ULID]says{s: {"b": owns, "c": owns}})
	f("all know it, and one owner cannot open it", false, true, replaced,
		map[ulid.ULID]says{s: {"b": owns, "c": knows, "d": knows}})
	f("the block itself does not count when it did not move", false, false, replaced, map[ulid.ULID]says{x: all})
	f("moved, too", true, false, both, map[ulid.ULID]says{x: {"b": owns, "c": owns}})
	f("moved, and its owners let go of it already", true, false, both, map[ulid.ULID]says{s: all})
	parts := pending{id: x, by: []ulid.ULID{s, {3}}}
	f("one part of a split output", false, false, parts, map[ulid.ULID]says{s: all})
	f("both parts", true, false, parts, map[ulid.ULID]says{s: all, {3}: all})
}

// TestLinger: responses must allow it for a while without a break.
func TestLinger(t *testing.T) {
	now := time.Unix(0, 0)
	h := newHandover(now)
	x := pending{id: ulid.ULID{1}}
	f := func(after time.Duration, may bool, want bool) {
		t.Helper()
		now = now.Add(after)
		h.note([]pending{x}, func(pending) bool { return may }, now)
		if got := h.released[x.id]; got != want {
			t.Errorf("at %s: %t", now, got)
		}
	}
	f(0, true, false)
	f(linger-time.Second, true, false)
	f(time.Second, false, false)
	f(time.Second, true, false)
	f(linger-time.Second, true, false)
	f(time.Second, true, true)
	if h.late(h.began.Add(silenceCounts-1)) || !h.late(h.began.Add(silenceCounts)) {
		t.Error("late at another time")
	}
}

func TestSettling(t *testing.T) {
	type step struct {
		after   time.Duration
		members []string
		settled bool
		done    bool
	}
	f := func(name string, steps ...step) {
		t.Helper()
		var s settling
		now := time.Unix(1, 0)
		for i, st := range steps {
			now = now.Add(st.after)
			if got := s.done(ringOf("a", 2, st.members...), st.settled, now); got != st.done {
				t.Errorf("%s: step %d: %t", name, i, got)
			}
		}
	}
	ab := []string{"a", "b"}
	f("a ring that stands", step{0, ab, true, false}, step{2 * time.Second, ab, true, false}, step{time.Second, ab, true, true})
	f("one comes", step{0, ab, true, false}, step{2 * time.Second, []string{"a", "b", "c"}, true, false},
		step{time.Second, []string{"a", "b", "c"}, true, false}, step{2 * time.Second, []string{"a", "b", "c"}, true, true})
	f("not settled", step{0, ab, false, false}, step{10 * time.Second, ab, false, false}, step{time.Second, ab, true, false},
		step{time.Second, ab, true, true})
	f("settled and others at the same time", step{0, ab, false, false}, step{10 * time.Second, []string{"a"}, true, false},
		step{2 * time.Second, []string{"a"}, true, false}, step{time.Second, []string{"a"}, true, true})
	f("settled, and others a moment later", step{0, ab, false, false}, step{8 * time.Second, ab, true, false},
		step{time.Second / 2, []string{"a"}, true, false}, step{time.Second, []string{"a"}, true, false},
		step{2 * time.Second, []string{"a"}, true, true})
	f("unsettled again", step{0, ab, true, false}, step{2 * time.Second, ab, false, false}, step{time.Second, ab, true, false},
		step{time.Second, ab, true, true})
	f("never settled", step{0, ab, false, false}, step{15 * time.Second, ab, false, true})
}

// TestSettled: a gateway knows with whom it shares the bucket after a bounded time, also when the bucket is dark and
// gossip never knows.
func TestSettled(t *testing.T) {
	for knows, want := range map[time.Duration]time.Duration{0: 3 * time.Second, 8 * time.Second: 9 * time.Second,
		time.Hour: 15 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			opts := DefaultOptions()
			opts.Dir, opts.StartTimeout = t.TempDir(), 0
			opts.Sharing = &Sharing{Self: "a", ReplicationFactor: 1, Owners: byRing, Peers: func() ([]Peer, bool) {
				return []Peer{{Member: Member{ID: "a"}}}, time.Since(began) >= knows
			}}
			g, err := New(discard, nil, darkBucket{inMemory(t)}, opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(g.Open(t.Context(), nil), g.Share(t.Context(), nil)); err != nil {
				t.Fatal(err)
			}
			if g.Settled() == nil {
				t.Error("settled at once")
			}
			for g.Settled() != nil && time.Since(began) < time.Minute {
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(began); took < want || took > want+time.Second {
				t.Errorf("gossip knows after %s: settled after %s, want %s", knows, took, want)
			}
			if g.Ready() == nil {
				t.Error("ready without the bucket")
			}
			if err := errors.Join(g.Unshare(), g.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// darkBucket does not list anything.
type darkBucket struct{ objstore.Bucket }

func (darkBucket) Iter(context.Context, string, func(string) error, ...objstore.IterOption) error {
	return errFault
}

func (darkBucket) IterWithAttributes(context.Context, string, func(objstore.IterObjectAttributes) error,
	...objstore.IterOption) error {
	return errFault
}
