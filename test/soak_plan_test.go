package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// trouble is a kind of thing that happens to the cluster of a soak.
type trouble string

const (
	killed      trouble = "kill"      // SIGKILL, whatever it is doing, started again with its disk
	restarted   trouble = "restart"   // SIGTERM, started again with its disk
	stopped     trouble = "stop"      // SIGSTOP, SIGCONT
	partitioned trouble = "partition" // cut off, in one direction or both, from a receiver, all of them, or everybody
	drained     trouble = "drain"     // POST /ring/drain; another may join before or after
	added       trouble = "add"       // a new member joins and stays
	wiped       trouble = "wipe"      // SIGKILL, disk gone; it comes back empty, or is forgotten and another one joins
	outage      trouble = "outage"    // several killed at once, started again with their disks
	flushed     trouble = "flush"     // every member cuts and ships, one after another
	gatewayGone trouble = "gateway"   // the store gateway killed, started again
	bucketGone  trouble = "bucket"    // the object store does not answer
	querierGone trouble = "querier"   // the querier killed, started again
)

// step is one thing that happens. Steps come one after another: the next one begins when every process is ready again
// and sees the others, so that a step is all the trouble there is. What is beside it is no trouble for receivers.
type step struct {
	kind   trouble
	who    []string      // receivers in trouble
	joins  string        // receiver that joins, "" = none
	how    string        // the variant
	lasts  time.Duration // of the trouble
	amid   time.Duration // into what the victim is doing when it is killed
	beside trouble       // happens in the middle, "" = nothing
}

// has reports whether that is part of the step.
func (s step) has(t trouble) bool { return s.kind == t || s.beside == t }

func (s step) String() string {
	words := []string{string(s.kind)}
	words = append(words, s.who...)
	if s.how != "" {
		words = append(words, s.how)
	}
	if s.joins != "" {
		words = append(words, s.joins+" joins")
	}
	if s.amid > 0 {
		words = append(words, "after "+s.amid.String())
	}
	if s.lasts > 0 {
		words = append(words, "for "+s.lasts.String())
	}
	if s.beside != "" {
		words = append(words, "beside it: "+string(s.beside))
	}
	return strings.Join(words, ", ")
}

// plan makes the steps of a soak from a seed, without end. It keeps what the promise asks for (what was acknowledged is
// never lost while a quorum of each series' replicas survives): disks are lost one at a time, and between two of them
// every member has shipped all it has, since what is missing on a member is not copied there later. All else leaves
// the disks.
type plan struct {
	rng     *rand.Rand
	members []string
	born    int
	bag     []trouble // kinds to come, in random order; each comes in its share
	share   []trouble
	exposed bool // a disk was lost since every member shipped
	queue   []step
	longest time.Duration // of a stop or a partition
}

var shortShare = []trouble{killed, restarted, stopped, partitioned, drained, outage}

var longShare = []trouble{killed, killed, restarted, restarted, stopped, stopped, partitioned, partitioned, partitioned,
	drained, drained, added, wiped, outage, flushed, gatewayGone, bucketGone}

func newPlan(seed uint64, share []trouble, longest time.Duration) *plan {
	p := &plan{rng: rand.New(rand.NewPCG(seed, 1)), share: share, longest: longest}
	for range 3 {
		p.members = append(p.members, p.fresh())
	}
	return p
}

func (p *plan) fresh() string {
	p.born++
	return fmt.Sprintf("r%d", p.born)
}

func (p *plan) pick(of ...string) string { return of[p.rng.IntN(len(of))] }

// between is a duration in whole tenths of a second.
func (p *plan) between(from, to time.Duration) time.Duration {
	return (from + time.Duration(p.rng.Int64N(int64(to-from)+1))).Round(100 * time.Millisecond)
}

// next is the next step.
func (p *plan) next() step {
	if len(p.queue) == 0 {
		if len(p.bag) == 0 {
			p.bag = slices.Clone(p.share)
			p.rng.Shuffle(len(p.bag), func(i, j int) { p.bag[i], p.bag[j] = p.bag[j], p.bag[i] })
		}
		kind := p.bag[0]
		p.bag = p.bag[1:]
		s := p.make(kind)
		if s.kind == wiped && p.exposed {
			p.queue = append(p.queue, step{kind: flushed})
		}
		p.queue = append(p.queue, s)
	}
	s := p.queue[0]
	p.queue = p.queue[1:]
	switch s.kind {
	case wiped:
		p.exposed = true
	case flushed:
		p.exposed = false
	}
	return s
}

// make fills in a step and keeps the list of members.
func (p *plan) make(kind trouble) step {
	s := step{kind: kind}
	victim := p.pick(p.members...)
	switch kind {
	case killed:
		s.who, s.lasts = []string{victim}, p.between(0, p.longest/3)
		if s.how = p.pick("at ease", "flushing", "draining", "starting", "stopping"); s.how != "at ease" {
			s.amid = p.between(0, 2*time.Second)
		}
	case restarted:
		s.who = []string{victim}
	case stopped:
		s.who, s.lasts = []string{victim}, p.between(p.longest/8, p.longest)
	case partitioned:
		s.who, s.lasts = []string{victim}, p.between(p.longest/8, p.longest)
		s.how = p.pick("to and from", "to", "from") + " " + p.pick("one receiver", "receivers", "everybody")
	case drained:
		s = p.drain(victim)
	case added:
		if len(p.members) >= 5 {
			s = p.drain(victim)
			break
		}
		s.joins = p.fresh()
		p.members = append(p.members, s.joins)
	case wiped:
		s.who, s.how = []string{victim}, p.pick("comes back empty", "lost for good")
		s.lasts = p.between(0, p.longest/4)
		if s.how == "lost for good" {
			s.joins = p.fresh()
			p.replace(victim, s.joins)
		}
	case outage:
		n := 2 + p.rng.IntN(len(p.members)-1)
		some := slices.Clone(p.members)
		p.rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		s.who, s.lasts = some[:n], p.between(0, p.longest/4)
		if s.how = p.pick("at ease", "flushing"); s.how != "at ease" {
			s.amid = p.between(0, 2*time.Second)
		}
	case gatewayGone, bucketGone:
		s.lasts = p.between(p.longest/8, p.longest)
	}
	if len(s.who) > 0 && p.rng.IntN(2) == 0 {
		s.beside = trouble(
			p.pick(string(flushed), string(flushed), string(gatewayGone), string(bucketGone), string(querierGone)))
	}
	return s
}

// drain takes victim away. With the last three another one comes.
func (p *plan) drain(victim string) step {
	s := step{kind: drained, who: []string{victim}, how: p.pick("one joins before", "one joins after")}
	if len(p.members) > 3 && (len(p.members) > 4 || p.rng.IntN(2) == 0) {
		s.how = "none joins"
		p.replace(victim, "")
		return s
	}
	s.joins = p.fresh()
	p.replace(victim, s.joins)
	return s
}

func (p *plan) replace(old, by string) {
	p.members = slices.DeleteFunc(p.members, func(m string) bool { return m == old })
	if by != "" {
		p.members = append(p.members, by)
	}
}

// TestSoakPlan replays plans and holds each step against what may be: a seed gives the same steps again, and no step
// puts acknowledged samples at risk.
func TestSoakPlan(t *testing.T) {
	kinds := map[trouble]int{}
	for seed := range uint64(200) {
		a, b := newPlan(seed, longShare, 40*time.Second), newPlan(seed, longShare, 40*time.Second)
		members, used, safe := []string{"r1", "r2", "r3"}, map[string]bool{"r1": true, "r2": true, "r3": true}, true
		for n := range 100 {
			s := a.next()
			if again := b.next(); s.String() != again.String() {
				t.Fatalf("seed %d: step %d is %q and %q", seed, n, s, again)
			}
			kinds[s.kind]++
			if err := checkStep(s, members, used, safe); err != nil {
				t.Fatalf("seed %d: step %d, %q with %q: %v", seed, n, s, members, err)
			}
			if s.kind == drained || s.how == "lost for good" {
				members = slices.DeleteFunc(members, func(m string) bool { return m == s.who[0] })
			}
			if s.joins != "" {
				members, used[s.joins] = append(members, s.joins), true
			}
			safe = s.kind != wiped && (safe || s.kind == flushed)
			if len(members) < 3 || len(members) > 5 {
				t.Fatalf("seed %d: step %d, %q leaves %q", seed, n, s, members)
			}
		}
	}
	for _, k := range longShare {
		if kinds[k] < 200 {
			t.Errorf("%s: %d of 20000 steps", k, kinds[k])
		}
	}
}

func checkStep(s step, members []string, used map[string]bool, safe bool) error {
	for i, m := range s.who {
		if !slices.Contains(members, m) || slices.Contains(s.who[:i], m) {
			return fmt.Errorf("%s is no member, or named twice", m)
		}
	}
	single := s.kind != flushed && s.kind != gatewayGone && s.kind != bucketGone && s.kind != added && s.kind != outage
	switch {
	case single != (len(s.who) == 1):
		return fmt.Errorf("%d are in trouble", len(s.who))
	case s.joins != "" && used[s.joins]:
		return fmt.Errorf("%s was there before", s.joins)
	case s.kind == wiped && !safe:
		return fmt.Errorf("a second disk is lost before everything was shipped")
	case s.kind == flushed && s.beside != "":
		return fmt.Errorf("a flush that must succeed has trouble beside it")
	case s.lasts < 0 || s.lasts > 40*time.Second || s.amid < 0 || s.amid > 2*time.Second:
		return fmt.Errorf("lasts %s", s.lasts)
	}
	return nil
}
