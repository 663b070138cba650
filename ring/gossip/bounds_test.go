package gossip

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	dring "github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hearth-metrics/hearth/ring/election"
)

func TestRingIsBounded(t *testing.T) {
	now := time.Now().Unix()
	f := func(name string, id string, change func(e *dring.InstanceDesc), taken bool) {
		t.Helper()
		e := dring.InstanceDesc{Id: id, Addr: "10.0.0.1:10901", Timestamp: now, State: dring.ACTIVE,
			Tokens: []uint32{3, 1, 1, 2}}
		change(&e)
		refused := prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"})
		desc := &dring.Desc{Ingesters: map[string]dring.InstanceDesc{id: e, "good": {Addr: "h:1", Timestamp: now}}}
		b, err := proto.Marshal(desc)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ringCodec{refused}.Decode(snappy.Encode(nil, b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, ok := v.(ringValue).Ingesters[id]
		if ok != taken || len(v.(ringValue).Ingesters) != 1+map[bool]int{true: 1}[taken] {
			t.Fatalf("%s: taken=%v", name, ok)
		}
		if n := testutil.ToFloat64(refused); n != 1-map[bool]float64{true: 1}[taken] {
			t.Fatalf("%s: %v entries counted as refused", name, n)
		}
		if ok && (got.Id != id || len(got.Versions) != 0) {
			t.Fatalf("%s: %+v", name, got)
		}
	}
	set := func(e *dring.InstanceDesc) {}
	f("good", "r1", set, true)
	f("another's id", "r1", func(e *dring.InstanceDesc) { e.Id = "r2" }, true) // what it is filed under counts
	f("versions", "r1", func(e *dring.InstanceDesc) { e.Versions = dring.InstanceVersions{1: 2} }, true)
	f("long id", strings.Repeat("x", 151), set, false)
	f("id of markup", "<b>", set, false)
	f("no id", "", set, false)
	f("long zone", "r1", func(e *dring.InstanceDesc) { e.Zone = strings.Repeat("z", 1<<20) }, false)
	f("zone of two lines", "r1", func(e *dring.InstanceDesc) { e.Zone = "a\nb" }, false)
	f("many tokens", "r1", func(e *dring.InstanceDesc) {
		e.Tokens = make([]uint32, 1_000_000)
		for i := range e.Tokens {
			e.Tokens[i] = uint32(i)
		}
	}, false)
	f("state", "r1", func(e *dring.InstanceDesc) { e.State = 99 }, false)
	for _, addr := range []string{"h", "h:", "h:x", "h:99999", "h:-1", "a b:1", "h/x:1", strings.Repeat("h", 400) + ":1", "h\n:1"} {
		f("address "+addr, "r1", func(e *dring.InstanceDesc) { e.Addr = addr }, false)
	}
	for _, addr := range []string{"h:1", "[::1]:65535", "10.1.2.3:10901", ""} {
		f("address "+addr, "r1", func(e *dring.InstanceDesc) { e.Addr = addr }, true)
	}
	century := int64(maxAhead / time.Second)
	for at, taken := range map[int64]bool{0: false, -1: false, math.MinInt64: false, math.MaxInt64: false,
		now + century + 3600: false,
		1:                    true, now - 86400: true, now + 86400: true, now + century/10: true} {
		f(fmt.Sprint("heartbeat ", at), "r1", func(e *dring.InstanceDesc) { e.Timestamp = at }, taken)
		if at != 0 {
			f(fmt.Sprint("since ", at), "r1", func(e *dring.InstanceDesc) { e.RegisteredTimestamp = at }, taken)
		}
	}
}

func TestClusterIsBounded(t *testing.T) {
	now := time.Now().Unix()
	good := func() (process, incarnation, usage) {
		return process{ID: "r1", Addr: "h:1", HTTPAddr: "h:2", Roles: []string{RoleReceive}, RF: 3,
				Since: now, Updated: now * 1000},
			incarnation{ID: "r1", Addr: "h:1", Since: now, Updated: now * 1000}, usage{now, now, now}
	}
	f := func(name string, change func(p *process, i *incarnation, s *usage), taken bool) {
		t.Helper()
		p, i, s := good()
		change(&p, &i, &s)
		c := newCluster()
		c.Processes["r1"], c.Incarnations[incarnationKey(i.ID, i.Since)], c.Shardings["v"] = p, i, s
		b, err := clusterCodec{}.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		refused := prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"})
		v, err := clusterCodec{refused}.Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := v.(*cluster)
		if n := len(got.Processes) + len(got.Incarnations) + len(got.Shardings); (n == 3) != taken ||
			n+int(testutil.ToFloat64(refused)) != 3 {
			t.Fatalf("%s: %+v", name, got)
		}
	}
	f("good", func(*process, *incarnation, *usage) {}, true)
	f("HTTP address", func(p *process, _ *incarnation, _ *usage) { p.HTTPAddr = "h/x?y:1" }, false)
	f("replication factor", func(p *process, _ *incarnation, _ *usage) { p.RF = 65 }, false)
	f("replication factor", func(p *process, _ *incarnation, _ *usage) { p.RF = -1 }, false)
	f("bucket", func(p *process, _ *incarnation, _ *usage) { p.Bucket = strings.Repeat("b", 1<<20) }, false)
	f("roles", func(p *process, _ *incarnation, _ *usage) { p.Roles = make([]string, 1000) }, false)
	f("a new role", func(p *process, _ *incarnation, _ *usage) { p.Roles = []string{"frontend"} }, true)
	f("zone", func(_ *process, i *incarnation, _ *usage) { i.Zone = strings.Repeat("z", 1<<20) }, false)
	f("incarnation's id", func(_ *process, i *incarnation, _ *usage) { i.ID = "a@b" }, false)
	for _, at := range []int64{-1, math.MinInt64, math.MaxInt64, now * 1000} {
		f("since", func(p *process, _ *incarnation, _ *usage) { p.Since = at }, false)
		f("since", func(_ *process, i *incarnation, _ *usage) { i.Since = at }, false)
		f("until", func(_ *process, i *incarnation, _ *usage) { i.Until = at }, false)
		f("placed", func(_ *process, i *incarnation, _ *usage) { i.Placed = at }, false)
		f("read-only", func(_ *process, i *incarnation, _ *usage) { i.ReadOnly = at }, false)
		f("expires", func(_ *process, i *incarnation, _ *usage) { i.Expires = at }, false)
		f("first", func(_ *process, _ *incarnation, s *usage) { s.First = at }, false)
		f("last", func(_ *process, _ *incarnation, s *usage) { s.Last = at }, false)
	}
	for _, at := range []int64{-1, math.MinInt64, math.MaxInt64, now * 1_000_000} {
		f("version", func(p *process, _ *incarnation, _ *usage) { p.Updated = at }, false)
		f("version", func(_ *process, i *incarnation, _ *usage) { i.Updated = at }, false)
	}
}

// TestClaimsTakeNoMemory: a value of some bytes that claims to be large is refused before memory is taken for it.
func TestClaimsTakeNoMemory(t *testing.T) {
	lie := append([]byte{0xff, 0xff, 0xff, 0x0f}, make([]byte, 64)...) // 32 MiB
	large := snappy.Encode(nil, make([]byte, maxCluster+1))
	for name, decode := range map[string]func([]byte) (any, error){
		"ring": ringCodec{}.Decode, "cluster": clusterCodec{}.Decode, "elections": electionsCodec{}.Decode,
	} {
		if n := testing.AllocsPerRun(1, func() {
			if _, err := decode(lie); err == nil {
				t.Fatalf("%s: a lie was believed", name)
			}
		}); n > 20 {
			t.Fatalf("%s: %v allocations", name, n)
		}
		if _, err := decode(large); err == nil || !strings.Contains(err.Error(), "at most") {
			t.Fatalf("%s: too large a value: %v", name, err)
		}
	}
}

// TestManyNames: however many members' names come, a value keeps a bounded number of them.
func TestManyNames(t *testing.T) {
	now := time.Now().Unix()
	r, c, e := newRingValue(nil), newCluster(), elections{}
	for round := range 3 {
		more, mc, me := newRingValue(nil), newCluster(), elections{}
		for i := range maxMembers {
			id := fmt.Sprintf("r%d-%d", round, i)
			more.Ingesters[id] = dring.InstanceDesc{Id: id, Timestamp: now}
		}
		for i := range maxShardings {
			id := fmt.Sprintf("r%d-%d", round, i)
			mc.Processes[id], mc.Incarnations[id+"@1"], mc.Shardings[id] = process{ID: id}, incarnation{ID: id,
				Since: 1}, usage{1, 1, 1}
		}
		for i := range maxPairs {
			me[fmt.Sprintf("c%d-%d", round, i)] = election.State{Replica: "a", Elected: 1}
		}
		if _, err := r.Merge(more, false); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Merge(mc, false); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Merge(me, false); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.Ingesters) != maxMembers || len(c.Processes) != maxProcesses || len(c.Incarnations) != maxIncarnations ||
		len(c.Shardings) != maxShardings ||
		len(e) != maxPairs {
		t.Fatalf("%d members, %d processes, %d incarnations, %d versions, %d pairs", len(r.Ingesters), len(c.Processes),
			len(c.Incarnations), len(c.Shardings), len(e))
	}
	// Who is known is still heard.
	for id := range r.Ingesters {
		if _, err := r.Merge(
			ringValue{&dring.Desc{Ingesters: map[string]dring.InstanceDesc{id: {Id: id, Timestamp: now + 1}}}},
			false); err != nil ||
			r.Ingesters[id].Timestamp != now+1 {
			t.Fatalf("%v, %+v", err, r.Ingesters[id])
		}
		break
	}
}

func FuzzRingCodec(f *testing.F) {
	good, err := ringCodec{}.Encode(ringValue{&dring.Desc{
		Ingesters: map[string]dring.InstanceDesc{"r1": {Id: "r1", Addr: "h:1", Timestamp: 1, Tokens: []uint32{2, 1}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Add([]byte("\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ringCodec{}.Decode(b)
		if err != nil {
			return
		}
		r := v.(ringValue)
		for id, e := range r.Ingesters {
			if e.Id != id || !validID.MatchString(id) {
				t.Fatalf("%q has %+v", id, e)
			}
		}
		if _, err := newRingValue(nil).Merge(r.Clone(), false); err != nil {
			t.Fatal(err)
		}
		again, err := ringCodec{}.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ringCodec{}.Decode(again)
		if err != nil || len(back.(ringValue).Ingesters) != len(r.Ingesters) {
			t.Fatalf("not the same after a round trip: %v", err)
		}
		newRoleSnapshot(r, roleSnapshot{}, time.Now(), 0)
	})
}
