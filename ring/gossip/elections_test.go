package gossip

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/golang/snappy"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring/election"
)

// known is what g knows of elections that stand, by tenant/cluster.
func known(t *testing.T, g *Gossip) map[string]election.State {
	t.Helper()
	all := map[string]election.State{}
	err := g.Elections().All(t.Context(), func(id tenant.ID, states map[string]election.State) {
		for cluster, s := range states {
			if !s.Gone() {
				all[string(id)+"/"+cluster] = s
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestElectionsSpread(t *testing.T) {
	c := &clock{}
	a := open(t, receiverOptions(c, instance(1), 1))
	watcher := receiverOptions(c, instance(2), 2, a.Address())
	watcher.Roles = nil // a process that is on no ring takes part too
	b := open(t, watcher)

	seen := make(chan election.State, 100)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Elections().Watch(ctx, func(id tenant.ID, states map[string]election.State) {
			if id == "acme" {
				seen <- states["eu"]
			}
		})
	}()
	defer func() { stop(); <-done }()

	put := func(g *Gossip, id tenant.ID, cluster string, s election.State) {
		t.Helper()
		begin := time.Now()
		if err := g.Elections().Publish(t.Context(), id, map[string]election.State{cluster: s}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 900*time.Millisecond {
			t.Fatalf("publishing took %s: the store slept", took)
		}
	}
	agree := func(want map[string]election.State) {
		t.Helper()
		eventually(t, func() string {
			ka, kb := known(t, a), known(t, b)
			if !maps.Equal(ka, want) || !maps.Equal(kb, want) {
				return fmt.Sprintf("a has %v\nb has %v\nwant  %v", ka, kb, want)
			}
			return ""
		})
	}
	first := election.State{Replica: "one", Elected: 100, Received: 100}
	put(a, "acme", "eu", first)
	put(a, "acme", "us", first)
	put(b, "other tenant", "eu", first)
	agree(map[string]election.State{"acme/eu": first, "acme/us": first, "other tenant/eu": first})
	put(a, "acme", "eu", first) // nothing new

	second := election.State{Replica: "two", Elected: 200, Received: 210}
	put(b, "acme", "eu", second)
	put(b, "acme", "eu", first) // old news
	agree(map[string]election.State{"acme/eu": second, "acme/us": first, "other tenant/eu": first})
	for s := (election.State{}); s != second; { // the watcher may have been late for the first
		select {
		case s = <-seen:
		case <-time.After(10 * time.Second):
			t.Fatal("the watcher was not told")
		}
	}

	gone := second
	gone.Deleted = time.Now().UnixMilli()
	put(a, "acme", "eu", gone)
	agree(map[string]election.State{"acme/us": first, "other tenant/eu": first})
	put(b, "acme", "eu", second) // of before it was given up
	agree(map[string]election.State{"acme/us": first, "other tenant/eu": first})
}

// TestElectionsOfASplit lets two processes elect apart, and meet then.
func TestElectionsOfASplit(t *testing.T) {
	c := &clock{}
	a := open(t, receiverOptions(c, instance(1), 1))
	one, two := election.State{Replica: "one", Elected: 100, Received: 900}, election.State{Replica: "two", Elected: 101,
		Received: 101}
	if err := a.Elections().Publish(t.Context(), "acme", map[string]election.State{"eu": one}); err != nil {
		t.Fatal(err)
	}
	b := open(t, receiverOptions(c, instance(2), 2))
	if err := b.Elections().Publish(t.Context(), "acme", map[string]election.State{"eu": two}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.store.JoinMembers([]string{b.Address()}); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gossip{a, b} {
		eventually(t, func() string {
			if got := known(t, g)["acme/eu"]; got != two {
				return fmt.Sprintf("%+v, want %+v", got, two)
			}
			return ""
		})
	}
}

func TestElectionsBeforeOpen(t *testing.T) {
	g, err := New(nil, nil, receiverOptions(&clock{}, instance(1), 1))
	if err != nil {
		t.Fatal(err)
	}
	e := g.Elections()
	if err := e.Publish(t.Context(), "acme", nil); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	if err := e.All(t.Context(), nil); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	e.Watch(t.Context(), nil)
}

func FuzzElectionsCodec(f *testing.F) {
	good, _ := electionsCodec{}.Encode(elections{"eu": {Replica: "one", Elected: 1, Received: 2}})
	f.Add(good)
	f.Add(snappy.Encode(nil, []byte("null")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := electionsCodec{}.Decode(b)
		if err != nil {
			return
		}
		e := v.(elections)
		if _, err := e.Merge(elections{"eu": {Replica: "two", Elected: 1 << 40, Received: 1 << 40}}, false); err != nil {
			t.Fatal(err)
		}
		again, err := electionsCodec{}.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := (electionsCodec{}).Decode(again); err != nil || !maps.Equal(back.(elections), e) {
			t.Fatalf("%v, %v", back, err)
		}
	})
}
