package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// planLife is a gateway whose view, ring and faults change at random. Nothing of it is read.
type planLife struct {
	rnd  *rand.Rand
	g    *Gateway
	now  time.Time
	made int
}

// describe says all that requests and others see of a snapshot.
func describe(s *snapshot) string {
	var b strings.Builder
	ids := func(metas []*block.Meta) (out []string) {
		for _, m := range metas {
			out = append(out, m.ULID.String())
		}
		slices.Sort(out)
		return out
	}
	line := func(what string, blocks []*planned) {
		for _, p := range blocks {
			var parts []*block.Meta
			for _, part := range p.parts {
				parts = append(parts, part.meta)
			}
			fmt.Fprintln(&b, what, p.meta.ULID, p.tenant, p.place, p.marked, p.fault, p.all, p.b != nil, ids(p.by), ids(parts),
				s.planned[p.meta.ULID] == p, s.blocks[p.meta.ULID] == p.b)
		}
	}
	for _, id := range s.info.Tenants {
		t := s.tenants[id]
		fmt.Fprintln(&b, id, t.missing, t.unread)
		for _, st := range t.streams {
			fmt.Fprintln(&b, st.external, t.added[st.class])
			line("needed", st.needed.blocks)
			line("also", st.also.blocks)
		}
	}
	fmt.Fprintln(&b, len(s.tenants), len(s.planned), len(s.blocks), s.unread, s.sound, s.owners.members, s.view.Number)
	fmt.Fprintln(&b, s.info)
	all := slices.SortedFunc(maps.Values(s.planned), func(x, y *planned) int { return x.meta.ULID.Compare(y.meta.ULID) })
	line("planned", all)
	return b.String()
}

// add puts a block into the view: a new one, or one that others of a stream were compacted to.
func (l *planLife) add() {
	l.made++
	m := &block.Meta{}
	m.ULID = ulid.MustNew(uint64(l.now.UnixMilli()), l.entropy())
	m.MinTime = l.now.UnixMilli() + int64(l.rnd.IntN(6)-5)*7_200_000
	m.MaxTime = m.MinTime + 7_200_000
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
	m.Thanos.Labels = map[string]string{"tenant_id": []string{"a", "b", "no/name", ""}[min(l.rnd.IntN(9), 3)],
		"receive_replica": fmt.Sprint("r", l.rnd.IntN(2)), "cluster": fmt.Sprint("c", l.rnd.IntN(2))}
	m.Thanos.Downsample.Resolution = []int64{0, 0, 0, 300_000}[l.rnd.IntN(4)]
	if of := l.any(); of != nil && l.rnd.IntN(2) == 0 {
		l.compact(m, of)
	}
	l.g.view.Metas[m.ULID] = m
}

// compact makes m the block that the ones like of were compacted to.
func (l *planLife) compact(m, of *block.Meta) {
	m.Thanos.Labels, m.Thanos.Downsample, m.Compaction.Level = maps.Clone(of.Thanos.Labels), of.Thanos.Downsample, 2
	m.MinTime, m.MaxTime, m.Compaction.Sources = of.MinTime, of.MaxTime, nil
	vertical := l.rnd.IntN(4) == 0
	if vertical {
		m.Thanos.Labels["receive_replica"] = "deduped"
	}
	for _, o := range l.g.view.Metas {
		same := maps.Clone(o.Thanos.Labels)
		if vertical {
			same["receive_replica"] = "deduped"
		}
		if maps.Equal(same, m.Thanos.Labels) && l.rnd.IntN(4) > 0 {
			m.MinTime, m.MaxTime = min(m.MinTime, o.MinTime), max(m.MaxTime, o.MaxTime)
			m.Compaction.Sources = append(m.Compaction.Sources, o.Compaction.Sources...)
		}
	}
	if vertical {
		m.Origin = &block.Origin{ID: m.ULID, Sources: m.Compaction.Sources, Of: 1, Removed: []string{"receive_replica"}}
	}
}

func (l *planLife) entropy() *strings.Reader { return strings.NewReader(fmt.Sprintf("%010d", l.made)) }

// any is a block of the view; nil if there is none.
func (l *planLife) any() *block.Meta {
	all := l.g.view.Select()
	if len(all) == 0 {
		return nil
	}
	return all[l.rnd.IntN(len(all))]
}

// step changes one thing.
func (l *planLife) step() {
	g := l.g
	switch m := l.any(); l.rnd.IntN(12) {
	case 0, 1, 2, 3:
		l.add()
	case 4:
		if m != nil {
			delete(g.view.Metas, m.ULID)
		}
	case 5:
		if m != nil {
			g.view.Deletions[m.ULID] = block.DeletionMark{ID: m.ULID,
				DeletionTime: l.now.Add(-time.Duration(l.rnd.IntN(30)) * time.Hour).Unix()}
		}
	case 6:
		clear(g.view.Deletions)
	case 7:
		if m != nil {
			g.failures[m.ULID] = failure{err: errors.New("broken"), until: l.now.Add(time.Duration(l.rnd.IntN(120)) * time.Minute)}
		}
	case 8:
		l.now = l.now.Add(time.Duration(l.rnd.IntN(180)) * time.Minute)
	case 9:
		clear(g.view.Partial)
		if m != nil {
			g.view.Partial[ulid.MustNew(uint64(l.now.UnixMilli()), l.entropy())] = errs.E(
				[]errs.Kind{errs.Invalid, errs.Unavailable, errs.NotFound}[l.rnd.IntN(3)], "odd")
		}
		g.view.Number++
	case 10:
		if g.opts.Sharing != nil {
			var peers []Peer
			for i := range 1 + l.rnd.IntN(4) {
				peers = append(peers, Peer{Member: Member{ID: fmt.Sprint("g", i)}, Leaves: l.rnd.IntN(5) == 0})
			}
			if o := ownersOf(g.opts.Sharing, peers); !o.equal(g.owners) {
				g.owners, g.handover = o, newHandover(l.now)
			}
		}
	case 11:
		var some []pending
		for _, p := range g.current.pending() {
			if l.rnd.IntN(2) == 0 {
				some = append(some, p)
			}
		}
		for _, at := range []time.Time{l.now.Add(-linger), l.now} {
			g.handover.note(some, func(pending) bool { return true }, at)
		}
	}
}

// TestPlansWhatChanged: a plan that looks only at what has changed since the last one is the same as one of everything,
// and each block has one reference as long as it is in the snapshot.
func TestPlansWhatChanged(t *testing.T) {
	kinds := map[string]func(*Options, *planLife){
		"alone": func(*Options, *planLife) {},
		"sharing": func(o *Options, _ *planLife) {
			o.Sharing = &Sharing{Self: "g0", ReplicationFactor: 2, Owners: byRing, Peers: func() ([]Peer, bool) { return nil, true }}
		},
		"part": func(o *Options, l *planLife) {
			o.Window = func(now time.Time) (int64, int64) {
				return now.Add(-8 * time.Hour).UnixMilli(), now.Add(-2 * time.Hour).UnixMilli()
			}
			o.ConsistencyDelay = 20 * time.Minute
			rule := relabel.DefaultRelabelConfig
			rule.SourceLabels, rule.Modulus = model.LabelNames{"__block_id"}, 3
			rule.Action, rule.TargetLabel, rule.NameValidationScheme = relabel.HashMod, "shard", model.UTF8Validation
			drop := relabel.DefaultRelabelConfig
			drop.SourceLabels, drop.Action, drop.NameValidationScheme = model.LabelNames{"shard"}, relabel.Drop, model.UTF8Validation
			drop.Regex = relabel.MustNewRegexp("1")
			o.Relabel = []*relabel.Config{&rule, &drop}
		},
	}
	for name, edit := range kinds {
		t.Run(name, func(t *testing.T) {
			few := 0
			for seed := range uint64(40) {
				l := &planLife{rnd: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1_700_000_000, 0)}
				few += l.play(t, func(o *Options) { edit(o, l) })
			}
			if few < 100 {
				t.Errorf("only %d plans looked at a part of the families", few)
			}
		})
	}
}

// play changes a gateway many times, and returns how many plans looked at a part of the families only.
func (l *planLife) play(t *testing.T, edit func(*Options)) (few int) {
	opts := DefaultOptions()
	opts.Dir, opts.Now = t.TempDir(), func() time.Time { return l.now }
	edit(&opts)
	g, err := New(discard, nil, inMemory(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	l.g, g.settling = g, nil
	g.view = block.View{Metas: map[ulid.ULID]*block.Meta{}, Deletions: map[ulid.ULID]block.DeletionMark{},
		Partial: map[ulid.ULID]error{}}
	g.plan()
	for range 60 {
		g.view.Metas, g.view.Deletions = maps.Clone(g.view.Metas), maps.Clone(g.view.Deletions)
		g.view.Partial = maps.Clone(g.view.Partial)
		for range 1 + l.rnd.IntN(3) {
			l.step()
		}
		before := g.current
		_, whole, _ := g.draw(nil, l.now)
		d, next, changes := g.draw(g.drawn, l.now)
		if len(changes) < len(d.families) {
			few++
		}
		if got, want := describe(next), describe(whole); got != want {
			t.Fatalf("a plan of what changed is\n%s\nand of everything\n%s", got, want)
		}
		g.drawn = d
		g.swap(next, changes)
		for _, b := range next.blocks {
			if n := b.refs.Load(); n != 1 {
				t.Fatalf("block %s has %d references", b.meta.ULID, n)
			}
		}
		for id, b := range before.blocks {
			if n := b.refs.Load(); next.blocks[id] != b && n != 0 {
				t.Fatalf("block %s that is gone has %d references", id, n)
			}
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	return few
}
