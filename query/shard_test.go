package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

func TestShardComplete(t *testing.T) {
	var history []ring.Incarnation
	var ids []string
	for i := range 12 {
		in := incarnation(fmt.Sprintf("r%02d", i), "", 0, 0, false)
		history, ids = append(history, in), append(ids, in.ID)
	}
	var members []ring.Member
	for _, i := range history {
		members = append(members, i.Member)
	}
	in, out := []string{}, slices.Clone(ids)
	for _, i := range ring.Shard(members, "acme", 4) {
		in = append(in, ids[i])
		out = slices.DeleteFunc(out, func(id string) bool { return id == ids[i] })
	}
	without := func(gone ...string) []series.Info {
		return live(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(gone, id) })...)
	}
	f := func(name string, shard Shard, mint float64, gone []string, want string) {
		t.Helper()
		ms := Membership{ReplicationFactor: 3, History: history, Shard: shard}
		got := strings.Join(
			assess(ms, timeRange{at(mint).UnixMilli(), at(20).UnixMilli()}, at(24), long, shown(without(gone...), nil)), "|")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	acme := Shard{Tenant: "acme", Size: 4, Since: at(5)}
	f("nobody of the shard", acme, 6, out, "")
	f("one of the shard", acme, 6, append(out, in[0]), "")
	f("two of the shard", acme, 6, []string{in[0], in[1]}, in[0]+", "+in[1])
	f("before shards were sure", acme, 4, out[:2], out[0]+", "+out[1])
	f("no shards", Shard{Tenant: "acme"}, 6, out[:2], out[0])
	other := acme
	other.Tenant = "blue"
	if slices.Equal(ring.Shard(members, "acme", 4), ring.Shard(members, "blue", 4)) {
		t.Fatal("choose other tenants")
	}
	f("another tenant's shard", other, 6, ids, "receivers ")

	// A member of the shard drains, and another one takes its place from then on: it counts from then on, and was none
	// before.
	replaced := slices.DeleteFunc(slices.Clone(members), func(m ring.Member) bool { return m.ID == in[0] })
	var next string
	for _, i := range ring.Shard(replaced, "acme", 4) {
		if id := replaced[i].ID; !slices.Contains(in, id) {
			next = id
		}
	}
	for i := range history {
		if history[i].ID == in[0] {
			history[i].ReadOnly = at(10)
		}
	}
	f("the next one, after the drain began", acme, 11, []string{in[1], next}, "receivers ")
	f("the next one, before", acme, 6, []string{in[1], next}, "receivers ") // 6 to 20 is after, too
	ms := Membership{ReplicationFactor: 3, History: history, Shard: acme}
	if got := assess(ms, timeRange{at(6).UnixMilli(), at(9).UnixMilli()}, at(24), long,
		shown(without(in[1], next), nil)); len(got) > 0 {
		t.Errorf("the next one, before the drain: %q", got)
	}
}

// world is a ring that changes while samples are written, and what really became of them.
type world struct {
	rnd     *rand.Rand
	rf      int
	size    int
	zones   int
	hour    float64
	history []ring.Incarnation
	up      map[string]bool
	writes  []written
}

// written is an acknowledged sample: when it arrived and the incarnations that have it.
type written struct {
	hour   float64
	copies []string // id@since
}

func name(i ring.Incarnation) string { return fmt.Sprint(i.ID, "@", i.Since.Unix()) }

// open are the indexes of the present members.
func (w *world) open() (all []int) {
	for i, in := range w.history {
		if in.Until.IsZero() {
			all = append(all, i)
		}
	}
	return all
}

func (w *world) join() {
	id := fmt.Sprintf("r%02d", len(w.history))
	zone := ""
	if w.zones > 0 {
		zone = string(rune('a' + w.rnd.IntN(w.zones)))
	}
	in := incarnation(id, zone, w.hour, 0, false)
	in.Placed = in.Since
	w.history = append(w.history, in)
	w.up[id] = true
}

// step changes something and lets time pass.
func (w *world) step() {
	w.hour += 0.1 + w.rnd.Float64()
	open := w.open()
	i := open[w.rnd.IntN(len(open))]
	in := &w.history[i]
	switch k := w.rnd.IntN(7); {
	case k == 0 || len(open) < w.rf+3:
		w.join()
	case k == 1: // begins to drain
		if in.ReadOnly.IsZero() {
			in.ReadOnly = at(w.hour)
		}
	case k == 2: // goes on after all
		if !in.ReadOnly.IsZero() {
			in.ReadOnly, in.Placed = time.Time{}, at(w.hour)
		}
	case k == 3: // has drained
		if !in.ReadOnly.IsZero() {
			in.Until, in.Drained = at(w.hour), true
		}
	case k == 4: // dies, and is forgotten at once or later
		if w.up[in.ID] = false; w.rnd.IntN(2) == 0 {
			in.Until = at(w.hour)
		}
	case k == 5:
		w.up[in.ID] = in.Until.IsZero()
	case k == 6: // comes back with an empty disk
		empty := incarnation(in.ID, in.Zone, w.hour, 0, false)
		empty.Placed, empty.ReadOnly = empty.Since, in.ReadOnly
		in.Until = at(w.hour)
		w.history = append(w.history, empty)
		w.up[in.ID] = true
	}
	w.hour += 0.1
	for range 5 {
		w.write()
	}
}

// asKnown is the history as a querier knows it: it may not have heard yet of the last disk that was lost.
func (w *world) asKnown() []ring.Incarnation {
	known := slices.Clone(w.history)
	for i := len(known) - 1; i >= 0 && w.rnd.IntN(2) == 0; i-- {
		was := slices.IndexFunc(known[:i],
			func(o ring.Incarnation) bool { return o.ID == known[i].ID && o.Until.Equal(known[i].Since) })
		if was >= 0 {
			known[was].Until = time.Time{}
			return slices.Delete(known, i, i+1)
		}
	}
	return known
}

// asPolled is what the last poll said of a member, which may be of before its last disk was lost. Its answer tells.
func (w *world) asPolled(in ring.Incarnation) *endpoint {
	m := &endpoint{info: series.Info{Instance: in.ID, Role: series.RoleReceive, Since: in.Since}}
	for _, before := range w.history {
		if before.ID == in.ID && w.rnd.IntN(2) == 0 {
			m.info.Since = before.Since
		}
	}
	return m
}

// write places a sample as distributors do.
func (w *world) write() {
	var members []ring.Member
	var at []int
	for i, in := range w.history {
		if in.Until.IsZero() && in.ReadOnly.IsZero() {
			members, at = append(members, in.Member), append(at, i)
		}
	}
	shard := ring.Shard(members, "t", w.size)
	var tokens []ring.TokenMember
	for _, s := range shard {
		m := ring.TokenMember{Member: members[s]}
		for range 4 {
			m.Tokens = append(m.Tokens, w.rnd.Uint32())
		}
		tokens = append(tokens, m)
	}
	p := ring.NewTokens(tokens, w.rf)
	var copies []string
	for _, r := range p.Replicas(nil, "t", w.rnd.Uint64()) {
		for k, m := range members {
			if m.ID == p.Members()[r].ID && w.up[m.ID] {
				copies = append(copies, name(w.history[at[k]]))
			}
		}
	}
	if len(copies) >= ring.Quorum(w.rf) {
		w.writes = append(w.writes, written{w.hour, copies})
	}
}

// TestShardNeverSilent looks for a sample that is missing from an answer without a warning.
func TestShardNeverSilent(t *testing.T) {
	silent, spared := 0, 0
	for seed := range uint64(400) {
		w := &world{rnd: rand.New(rand.NewPCG(seed, 1)), up: map[string]bool{}}
		w.rf, w.size, w.zones, w.hour = 1+w.rnd.IntN(3), 3+w.rnd.IntN(4), w.rnd.IntN(4), 1
		for range 5 + w.rnd.IntN(8) {
			w.join()
		}
		w.hour = 2
		for range 15 {
			w.step()
		}
		for range 6 {
			col := new(collector)
			has := map[string]bool{}
			for _, in := range w.history {
				if in.Until.IsZero() && w.rnd.IntN(4) > 0 {
					m := w.asPolled(in)
					n := col.begin(nil, m)
					series.TellIdentity(col.hear(t.Context(), n, func() {}), series.Identity{Instance: in.ID, Since: in.Since})
					col.change(n, func(r *response) { r.ended = true })
					has[name(in)] = true
				}
				if in.Drained {
					has[name(in)] = true // from blocks
				}
			}
			from := 1 + w.rnd.Float64()*w.hour
			to := from + w.rnd.Float64()*3
			ms := Membership{ReplicationFactor: w.rf, History: w.asKnown(),
				Shard: Shard{Tenant: tenant.ID("t"), Size: w.size, Since: at(1.1)}}
			shown := (&selection{p: new(params)}).evidence(col, false)
			shown.addAnswered(series.Info{Role: "store"}, said{}, false)
			said := assess(ms, timeRange{at(from).UnixMilli(), at(to).UnixMilli()}, at(100), long, shown)
			if len(said) == 0 {
				silent++
				ms.Shard = Shard{}
				if len(assess(ms, timeRange{at(from).UnixMilli(), at(to).UnixMilli()}, at(100), long, shown)) > 0 {
					spared++
				}
			}
			for _, s := range w.writes {
				missing := s.hour >= from && s.hour <= to && !slices.ContainsFunc(s.copies, func(c string) bool { return has[c] })
				if missing && len(said) == 0 {
					t.Fatalf("seed %d: a sample of %v h on %q is missing without a word from %v to %v h; rf %d, shards of %d\n%+v",
						seed, s.hour, s.copies, from, to, w.rf, w.size, w.history)
				}
			}
		}
	}
	if silent < 100 || spared < 20 {
		t.Errorf("%d answers without a warning, %d of them thanks to shards: too few to tell anything", silent, spared)
	}
	t.Logf("%d of 2400 answers without a warning, %d of them thanks to shards", silent, spared)
}

func TestUnservedBucket(t *testing.T) {
	ms := Membership{ReplicationFactor: 1, History: []ring.Incarnation{incarnation("a", "", 0, 0, false)}, Bucket: "b"}
	b := bounds{retention: 2 * time.Hour}
	f := func(mint float64, bucket string, answered []series.Info, failed []failure, want string) {
		t.Helper()
		ms.Bucket = bucket
		got := strings.Join(
			assess(ms, timeRange{at(mint).UnixMilli(), at(10).UnixMilli()}, at(10), b, shown(answered, failed)), "|")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("from %v h, bucket %q: got %q, want %q", mint, bucket, got, want)
		}
	}
	const older = "no store gateway is known, and samples from before"
	f(9, "b", live("a"), nil, "")
	f(7, "b", live("a"), nil, older)
	f(7, "", live("a"), nil, "")
	f(7, "b", append(live("a"), series.Info{Role: "store", Blocks: whole("b")}), nil, "")
	f(7, "b", live("a"), []failure{{name: "store s", info: series.Info{Role: "store", Blocks: whole("b")}}},
		"store s did not answer")
}
