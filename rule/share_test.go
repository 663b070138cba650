package rule

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// cluster is rulers that share groups, in one process.
type cluster struct {
	*stage
	t      *testing.T
	source *fakeSource

	mu     sync.Mutex // guards what follows
	nodes  map[string]*node
	cut    map[string]bool // who is cut off from all others
	unseen map[string]bool // who does not know the others yet
}

// node is a ruler of a cluster. Its effects end when it is killed.
type node struct {
	*Ruler
	*cluster
	id   string
	dir  string
	mu   sync.Mutex
	dead bool
	gone bool // others know that it is dead
}

func newCluster(t *testing.T) *cluster {
	return &cluster{stage: newStage(), t: t, source: newSource(alerting("a.yml")...), nodes: map[string]*node{},
		cut: map[string]bool{}, unseen: map[string]bool{}}
}

// ownersByHash is a rendezvous as ring.Owners is one: components do not import each other.
func ownersByHash(of []Member) func([]byte, int) []int32 {
	return func(key []byte, n int) (out []int32) {
		score := func(i int32) uint64 {
			h := fnv.New64a()
			_, _ = h.Write([]byte(of[i].ID))
			_, _ = h.Write(key)
			return h.Sum64() * 0x9e3779b97f4a7c15
		}
		for i := range of {
			out = append(out, int32(i))
		}
		slices.SortFunc(out, func(a, b int32) int {
			if score(a) > score(b) {
				return -1
			}
			return 1
		})
		return out[:min(n, len(out))]
	}
}

// start starts a ruler. dir keeps its states; "" = a new one.
func (c *cluster) start(id, dir string) *node {
	c.t.Helper()
	if dir == "" {
		dir = c.t.TempDir()
	}
	n := &node{cluster: c, id: id, dir: dir}
	opts := DefaultOptions()
	opts.StateDir, opts.Interval = dir, c.step
	opts.Sharing = &Sharing{Self: Member{ID: id}, Owners: ownersByHash, Peers: n.peers}
	r, err := New(slog.New(slog.DiscardHandler), nil, Parts{c.source, n, n.store, n.notify}, opts)
	if err != nil {
		c.t.Fatal(err)
	}
	n.Ruler = r
	r.share.look = time.Second // there are many scenarios of many minutes
	c.mu.Lock()
	c.nodes[id] = n
	c.mu.Unlock()
	open(c.t, r)
	return n
}

// peers are the others that a ruler sees.
func (n *node) peers() (all []Peer, settled bool) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	for id, o := range n.nodes {
		if id != n.id && !o.gone && n.cut[id] == n.cut[n.id] {
			all = append(all, Peer{Member{ID: id}, line{n, o}})
		}
	}
	return all, !n.unseen[n.id]
}

// line is how a ruler reaches another one.
type line struct{ from, to *node }

func (l line) broken() error {
	l.from.cluster.mu.Lock()
	defer l.from.cluster.mu.Unlock()
	if l.to.isDead() || l.from.isDead() || l.from.cut[l.from.id] != l.from.cut[l.to.id] {
		return errs.E(errs.Unavailable, "%s does not answer", l.to.id)
	}
	return nil
}

func (l line) Groups(ctx context.Context, version uint64) (rulestate.Known, error) {
	if err := l.broken(); err != nil {
		return rulestate.Known{}, err
	}
	return l.to.Ruler.Groups(ctx, version)
}

func (l line) Take(ctx context.Context, g rulestate.GroupName) (rulestate.Taken, error) {
	if err := l.broken(); err != nil {
		return rulestate.Taken{}, err
	}
	return l.to.Ruler.Take(ctx, g)
}

func (l line) Hold(ctx context.Context, h rulestate.Held) (rulestate.HoldAnswer, error) {
	if err := l.broken(); err != nil {
		return rulestate.HoldAnswer{}, err
	}
	return l.to.Ruler.Hold(ctx, h)
}

func (n *node) isDead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

func (n *node) Query(ctx context.Context, q Query) (Answer, error) {
	if n.isDead() {
		return Answer{}, errs.E(errs.Invalid, "dead")
	}
	return n.stage.Query(ctx, q)
}

func (n *node) store(id tenant.ID) storage.AppendableV2 {
	if n.isDead() {
		return stageAppendable{&stage{off: true}, id}
	}
	return n.stage.store(id)
}

func (n *node) notify(ctx context.Context, id tenant.ID, expr string, alerts []rules.Alert) {
	if !n.isDead() {
		n.stage.notify(ctx, id, expr, alerts)
	}
}

// kill ends a ruler, which the others notice after a while.
func (n *node) kill(noticed time.Duration) {
	n.mu.Lock()
	n.dead = true
	n.mu.Unlock()
	gone := func() {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		n.gone = true
	}
	if noticed == 0 {
		gone()
	} else {
		time.AfterFunc(noticed, gone)
	}
	go func() { _ = n.Ruler.Close() }()
}

// evaluating is who evaluates a group; it fails unless exactly one does.
func (c *cluster) evaluating(group string) *node {
	c.t.Helper()
	var found []*node
	for _, n := range c.live() {
		for _, g := range n.Snapshot() {
			if g.Name == group {
				found = append(found, n)
			}
		}
	}
	if len(found) != 1 {
		c.t.Fatalf("group %s is evaluated by %d rulers", group, len(found))
	}
	return found[0]
}

func (c *cluster) live() (all []*node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if !n.isDead() {
			all = append(all, n)
		}
	}
	return all
}

func (c *cluster) stop() {
	for _, n := range c.live() {
		n.kill(0)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
}

// lines are the effects, each of them once: what is stored or sent twice is the same.
func (c *cluster) lines() string {
	lines := strings.Split(c.text(), "\n")
	return strings.Join(slices.Compact(lines), "\n")
}

// perform runs the scenario of 40 slots on three rulers. event comes between two slots.
func perform(t *testing.T, at int, event func(c *cluster)) (out string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		for _, id := range []string{"a", "b", "c"} {
			c.start(id, "")
		}
		for slot := range 40 {
			if slot == at {
				// The rulers have taken their groups when the first event comes.
				time.Sleep(c.step / 2)
				event(c)
				time.Sleep(c.step / 2)
			} else {
				time.Sleep(c.step)
			}
			synctest.Wait()
		}
		out = c.lines()
		c.stop()
	})
	return out
}

// TestTimelines kills, stops and adds rulers, and reloads their rules, at each slot of a scenario of 40: what is stored
// and sent is what one ruler stores and sends that runs all the time.
func TestTimelines(t *testing.T) {
	want := play(t, -1, nil)
	if got := perform(t, -1, nil); got != want {
		t.Fatalf("three rulers:\n%s", difference(want, got))
	}
	for name, event := range map[string]func(*cluster){
		"kill": func(c *cluster) { c.evaluating("alerts").kill(8 * time.Second) },
		"kill of the owner and then of the next one": func(c *cluster) {
			c.evaluating("alerts").kill(3 * time.Second)
			time.Sleep(20 * time.Second)
			c.evaluating("alerts").kill(2 * time.Second)
		},
		"drain": func(c *cluster) {
			n := c.evaluating("alerts")
			closed(c.t, n.Ruler)
			n.kill(time.Second)
		},
		"rolling restart": func(c *cluster) {
			for _, id := range []string{"a", "b", "c"} {
				n := c.nodes[id]
				closed(c.t, n.Ruler)
				n.kill(0)
				time.Sleep(time.Second)
				c.start(id, n.dir)
				time.Sleep(5 * time.Second)
			}
		},
		"move": func(c *cluster) {
			for i := range 6 {
				c.start(fmt.Sprint("new-", i), "")
				time.Sleep(3 * time.Second)
			}
		},
		"reload": func(c *cluster) {
			groups := alerting("a.yml")
			groups[0].Rules = append([]rulefmt.Rule{{Record: "another", Expr: "nothing"}}, groups[0].Rules...)
			groups[1].Limit = 1000
			c.source.mu.Lock()
			c.source.groups = groups
			c.source.mu.Unlock()
			for _, n := range c.live() {
				if err := n.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
			}
		},
		"restart of all": func(c *cluster) {
			for _, n := range c.live() {
				n.kill(0)
			}
			synctest.Wait()
			for _, id := range []string{"a", "b", "c"} {
				c.start(id, c.nodes[id].dir)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			every := 1
			if name == "reload" || name == "restart of all" {
				every = 3
			}
			for at := 0; at < 40; at += every {
				got := perform(t, at, event)
				if name == "restart of all" { // who was killed cannot know which series recording rules had
					if withoutEnds(got) == withoutEnds(want) {
						continue
					}
				}
				if got != want {
					t.Fatalf("%s at slot %d:\n%s", name, at, difference(want, got))
				}
			}
		})
	}
}

// TestMissedSlots kills the owner of a group, which others notice two and a half slots later: the slots are evaluated
// at their own times, and each alert is then sent once, as it is.
func TestMissedSlots(t *testing.T) {
	t.Parallel()
	want := play(t, -1, nil)
	stored := func(text string) string {
		return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool {
			return strings.Contains(l, " send ")
		}), "\n")
	}
	for at := range 36 {
		got := perform(t, at, func(c *cluster) { c.evaluating("alerts").kill(c.step * 5 / 2) })
		if stored(got) != stored(want) {
			t.Fatalf("killed at slot %d:\n%s", at, difference(stored(want), stored(got)))
		}
		sent := map[string]bool{}
		for _, l := range strings.Split(got, "\n") {
			sent[l] = true
			if strings.Contains(l, " send ") && !strings.Contains(want, l) {
				t.Fatalf("killed at slot %d: nobody else sends %s", at, l)
			}
		}
		missing := 0
		for _, l := range strings.Split(want, "\n") {
			if !sent[l] {
				missing++
			}
		}
		if missing > 12 { // those of the slots that were caught up: an older state of an alert is not sent any more
			t.Fatalf("killed at slot %d: %d of the alerts were not sent:\n%s", at, missing, difference(want, got))
		}
	}
}

// TestSplit cuts one of three rulers off for some slots. Both sides evaluate; what they store and send is the same, and
// afterwards one of them evaluates each group.
func TestSplit(t *testing.T) {
	t.Parallel()
	want := play(t, -1, nil)
	for at := 0; at < 36; at += 2 {
		got := perform(t, at, func(c *cluster) {
			id := c.evaluating("alerts").id
			cut := func(is bool) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.cut[id] = is
			}
			cut(true)
			time.Sleep(3 * c.step)
			if n := len(strings.Split(c.text(), "\n")) - len(strings.Split(c.lines(), "\n")); n == 0 {
				c.t.Error("only one side evaluated")
			}
			cut(false)
			time.Sleep(c.step)
			synctest.Wait()
			c.evaluating("alerts")
			c.evaluating("records")
		})
		gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
		for _, l := range gotLines {
			if !slices.Contains(wantLines, l) && !beyond(l, wantLines) {
				t.Fatalf("cut off at slot %d: one ruler alone would not have %s", at, l)
			}
		}
		for _, l := range wantLines {
			if !slices.Contains(gotLines, l) {
				t.Fatalf("cut off at slot %d: nobody has %s", at, l)
			}
		}
	}
}

// beyond reports whether a line is of a later time than all lines of a text: the scenario went on for longer.
func beyond(line string, than []string) bool { return line[:13] > than[len(than)-1][:13] }

// TestHold refuses states that are not those of the group, that are malformed, or that build on what is not there.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		n := c.start("a", "")
		defer c.stop()
		n.unseen["a"] = true // it takes nothing
		p := &progress{id: groupID{"acme", "a.yml", "records"}, slot: time.Now(),
			rules: []ruleProgress{{text: "t", nameAndLabels: "n", restored: true}}}
		state, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		good := rulestate.Held{Group: p.id.groupName(), Slot: p.slot, State: state}
		for what, change := range map[string]func(*rulestate.Held){
			"no state":       func(h *rulestate.Held) { h.State = nil },
			"malformed":      func(h *rulestate.Held) { h.State = []byte(`{"version":1,"rules":[{}]}`) },
			"version":        func(h *rulestate.Held) { h.State = []byte(`{"version":99}`) },
			"another group":  func(h *rulestate.Held) { h.Group.Name = "alerts" },
			"another slot":   func(h *rulestate.Held) { h.Slot = h.Slot.Add(1) },
			"bad series":     func(h *rulestate.Held) { h.Series = []byte("{") },
			"of no rule":     func(h *rulestate.Held) { h.Series = []byte(`{"rules":[{"index":1,"series":[]}]}`) },
			"of rule -1":     func(h *rulestate.Held) { h.Series = []byte(`{"rules":[{"index":-1,"series":[]}]}`) },
			"another tenant": func(h *rulestate.Held) { h.Group.Tenant = "other" },
		} {
			h := good
			change(&h)
			if _, err := n.Ruler.Hold(t.Context(), h); errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s: %v", what, err)
			}
		}
		later := good
		later.Base = p.slot.Add(-time.Minute)
		if a, err := n.Ruler.Hold(t.Context(), later); err != nil || !a.Lacks {
			t.Errorf("a base that is not there: %+v, %v", a, err)
		}
		if a, err := n.Ruler.Hold(t.Context(), good); err != nil || a != (rulestate.HoldAnswer{}) {
			t.Errorf("%+v, %v", a, err)
		}
		got, err := n.Ruler.Take(t.Context(), p.id.groupName())
		if err != nil || string(got.State) != string(state) {
			t.Errorf("taken: %+v, %v", got, err)
		}
	})
}

// TestAlone: a ruler that shares nothing gives nothing away.
func TestAlone(t *testing.T) {
	s := newStage()
	r := s.ruler(t, newSource(), "")
	if _, err := r.Take(t.Context(), rulestate.GroupName{}); errs.KindOf(err) != errs.Unsupported {
		t.Error(err)
	}
	if _, err := r.Hold(t.Context(), rulestate.Held{}); errs.KindOf(err) != errs.Unsupported {
		t.Error(err)
	}
}
