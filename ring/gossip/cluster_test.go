package gossip

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/golang/snappy"
)

// randomCluster draws entries from few names and few versions, so that clusters meet in all ways.
func randomCluster(r *rand.Rand) *cluster {
	c := newCluster()
	for range r.IntN(4) {
		p := process{ID: string(rune('a' + r.IntN(3))), Addr: string(rune('x'+r.IntN(2))) + ":1", RF: r.IntN(2),
			Left: r.IntN(4) == 0, Updated: int64(r.IntN(3))}
		c.Processes[p.ID] = p
	}
	for range r.IntN(4) {
		i := incarnation{ID: string(rune('a' + r.IntN(2))), Since: int64(r.IntN(2)), Until: int64(r.IntN(3)),
			Drained: r.IntN(2) == 0, Updated: int64(r.IntN(3))}
		c.Incarnations[incarnationKey(i.ID, i.Since)] = i
	}
	for range r.IntN(3) {
		first := int64(r.IntN(4))
		c.Shardings[string(rune('v'+r.IntN(2)))] = usage{first, first + int64(r.IntN(4)), int64(10 + r.IntN(3))}
	}
	for range r.IntN(3) {
		first := int64(r.IntN(4))
		c.Factors[string(rune('1'+r.IntN(2)))] = usage{first, first + int64(r.IntN(4)), int64(10 + r.IntN(3))}
	}
	return c
}

// merged is a with b merged in, and the change.
func merged(t *testing.T, a, b *cluster) (*cluster, *cluster) {
	t.Helper()
	out := a.clone()
	change, err := out.Merge(b.clone(), false)
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		return out, nil
	}
	return out, change.(*cluster)
}

func TestMergeIsASemilattice(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for n := range 5000 {
		a, b, c := randomCluster(r), randomCluster(r), randomCluster(r)
		fail := func(law string) { t.Fatalf("seed %d, round %d: %s: a=%+v b=%+v c=%+v", seed, n, law, a, b, c) }

		ab, change := merged(t, a, b)
		if ba, _ := merged(t, b, a); !reflect.DeepEqual(ab, ba) {
			fail("not commutative")
		}
		abThenC, _ := merged(t, ab, c)
		bc, _ := merged(t, b, c)
		if aThenBC, _ := merged(t, a, bc); !reflect.DeepEqual(abThenC, aThenBC) {
			fail("not associative")
		}
		if again, none := merged(t, ab, b); none != nil || !reflect.DeepEqual(again, ab) {
			fail("not idempotent")
		}
		if change == nil {
			if !reflect.DeepEqual(ab, a) {
				fail("changed without a change")
			}
			continue
		}
		if byChange, _ := merged(t, a, change); !reflect.DeepEqual(byChange, ab) {
			fail("the change alone does not lead to the result")
		}
	}
}

func TestMergeRefusesOthers(t *testing.T) {
	c := newCluster()
	if change, err := c.Merge(nil, false); change != nil || err != nil {
		t.Fatalf("merge of nothing: %v, %v", change, err)
	}
	if change, err := c.Merge((*cluster)(nil), true); change != nil || err != nil {
		t.Fatalf("merge of a nil cluster: %v, %v", change, err)
	}
}

func TestRemoveTombstones(t *testing.T) {
	c := newCluster()
	c.Processes["left"] = process{ID: "left", Left: true, Updated: 5000}
	c.Processes["here"] = process{ID: "here", Updated: 1}
	c.Incarnations["a@1"] = incarnation{ID: "a", Since: 1}
	c.Incarnations["b@1"] = incarnation{ID: "b", Since: 1, Until: 2, Expires: 9}

	kept := c.clone()
	if total, removed := kept.RemoveTombstones(time.Unix(4, 0)); total != 1 || removed != 0 ||
		len(kept.Incarnations) != 2 {
		t.Fatalf("at 4s: %d tombstones, %d removed, %+v", total, removed, kept)
	}
	hidden := c.clone()
	if _, removed := hidden.RemoveTombstones(time.Time{}); removed != 0 || !reflect.DeepEqual(hidden, c) {
		t.Fatalf("who changes the value does not see its tombstones: %+v", hidden)
	}
	late := c.clone()
	if total, removed := late.RemoveTombstones(time.Unix(10, 0)); total != 0 || removed != 2 {
		t.Fatalf("at 10s: %d tombstones, %d removed, %+v", total, removed, late)
	}
	if _, ok := late.Incarnations["a@1"]; !ok {
		t.Fatal("an open incarnation was removed")
	}
}

func TestHistoryOfADisk(t *testing.T) {
	const keep = time.Hour
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	c, a := newCluster(), process{ID: "a", Addr: "a:1", Zone: "z"}

	if !c.begin(a, 100, at(100), keep) || c.begin(a, 100, at(101), keep) {
		t.Fatal("begin must change once")
	}
	if !c.begin(a, 500, at(510), keep) { // a new disk
		t.Fatal("a new disk changed nothing")
	}
	if got := c.Incarnations["a@100"]; got.Until != 510 || got.Drained || got.Expires != 510+3600 {
		t.Fatalf("incarnation of the lost disk: %+v", got)
	}
	if got := c.Incarnations["a@500"]; got.Until != 0 || got.Addr != "a:1" || got.Zone != "z" {
		t.Fatalf("incarnation of the new disk: %+v", got)
	}
	placed := func(want, readOnly int64) {
		t.Helper()
		if got := c.Incarnations["a@500"]; got.Placed != want || got.ReadOnly != readOnly {
			t.Fatalf("placed since %d, read-only since %d, want %d and %d", got.Placed, got.ReadOnly, want, readOnly)
		}
	}
	placed(510, 0)
	a.ReadOnly = 520
	if !c.begin(a, 500, at(521), keep) || c.begin(a, 500, at(522), keep) {
		t.Fatal("going read-only must change once")
	}
	placed(510, 520)
	a.ReadOnly = 0
	if !c.begin(a, 500, at(530), keep) {
		t.Fatal("an end of read-only changed nothing")
	}
	placed(530, 0)
	a.Zone = "y"
	if !c.begin(a, 500, at(540), keep) {
		t.Fatal("another zone changed nothing")
	}
	placed(540, 0)
	if !c.endAll("a", 600, true, at(610), keep) || c.endAll("a", 700, false, at(710), keep) {
		t.Fatal("endAll must change once")
	}
	if got := c.Incarnations["a@500"]; got.Until != 600 || !got.Drained {
		t.Fatalf("drained: %+v", got)
	}
	a.Addr = "a:2"
	if !c.begin(a, 500, at(800), keep) { // comes back, elsewhere
		t.Fatal("coming back changed nothing")
	}
	placed(800, 0)
	if got := c.Incarnations["a@500"]; got.Until != 0 || got.Drained || got.Addr != "a:2" || got.Expires != 0 {
		t.Fatalf("back: %+v", got)
	}
	if got := c.Incarnations["a@100"]; got.Until != 510 {
		t.Fatalf("the lost disk came back: %+v", got)
	}
	if !c.begin(a, 100, at(900), keep) { // the old disk is found again
		t.Fatal("the old disk changed nothing")
	}
	if lost, found := c.Incarnations["a@500"], c.Incarnations["a@100"]; lost.Until != 900 || found.Until != 0 {
		t.Fatalf("old disk found: %+v %+v", lost, found)
	}
}

func TestSetProcess(t *testing.T) {
	c, now := newCluster(), time.UnixMilli(1000)
	p := process{ID: "a", Addr: "x", Roles: []string{RoleStore}, RF: 3}
	if !c.setProcess(p, now) || c.setProcess(p, now) {
		t.Fatal("setProcess must change once")
	}
	p.RF = 2
	if !c.setProcess(p, now) {
		t.Fatal("another RF changed nothing")
	}
	if got := c.Processes["a"]; got.RF != 2 || got.Updated != 1001 {
		t.Fatalf("got %+v: a change within a millisecond needs a newer version", got)
	}
	if !c.leave("a", now) || c.leave("a", now) || !c.Processes["a"].Left {
		t.Fatalf("leave: %+v", c.Processes["a"])
	}
}

func TestClusterCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		c := randomCluster(r)
		b, err := clusterCodec{}.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := clusterCodec{}.Decode(b)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("got %+v, %v; want %+v", got, err, c)
		}
	}
	if got, err := (clusterCodec{}).Decode(snappy.Encode(nil, nil)); err != nil || !reflect.DeepEqual(got, newCluster()) {
		t.Fatalf("empty value: %+v, %v", got, err)
	}
	if _, err := (clusterCodec{}).Encode("x"); err == nil {
		t.Fatal("encoded a string")
	}
}

func FuzzClusterCodec(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"processes":{"a":{"id":"b","rf":3}},"incarnations":{"a@1":{"id":"a","since":1}}}`, `{"incarnations":{"x":{}}}`, `null`} {
		f.Add(snappy.Encode(nil, []byte(s)))
	}
	f.Add([]byte("\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := clusterCodec{}.Decode(b)
		if err != nil {
			return
		}
		c := v.(*cluster)
		for id, p := range c.Processes {
			if p.ID != id {
				t.Fatalf("process %q is filed under %q", p.ID, id)
			}
		}
		again, err := clusterCodec{}.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := (clusterCodec{}).Decode(again); err != nil || fmt.Sprint(back) != fmt.Sprint(c) {
			t.Fatalf("not the same after a round trip: %v, %v", back, err)
		}
		if _, err := newCluster().Merge(c, false); err != nil {
			t.Fatal(err)
		}
	})
}
