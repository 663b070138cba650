package distributor

import (
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// answerKinds are the classes of answers, by letter: stored, conflict, invalid, limited, x = cannot now.
var answerKinds = map[rune]errs.Kind{'o': errs.OK, 'c': errs.Conflict, 'i': errs.Invalid, 'l': errs.Limited,
	'x': errs.Unavailable}

func TestQuorum(t *testing.T) {
	// answers come one by one; after the last, and not before, the outcome is certain.
	f := func(replicas, need int, answers string, want errs.Kind) {
		t.Helper()
		q := tally{replicas: uint8(replicas)}
		for i, a := range answers {
			if kind, certain := q.outcome(need); certain {
				t.Fatalf("%d/%d %q: certain %s after %d answers", need, replicas, answers, kind, i)
			}
			q.add(answerKinds[a], 1)
		}
		if kind, certain := q.outcome(need); kind != want || !certain {
			t.Fatalf("%d/%d %q: %s, certain %v, want %s", need, replicas, answers, kind, certain, want)
		}
	}
	f(1, 1, "o", errs.OK)
	f(1, 1, "c", errs.Conflict)
	f(1, 1, "i", errs.Invalid)
	f(1, 1, "l", errs.Limited)
	f(1, 1, "x", errs.Unavailable)

	f(2, 2, "oo", errs.OK)
	f(2, 2, "c", errs.Conflict) // two can never be reached
	f(2, 2, "oc", errs.Conflict)
	f(2, 2, "ox", errs.Unavailable)
	f(2, 2, "xc", errs.Conflict)
	f(2, 2, "xx", errs.Unavailable)
	f(2, 1, "o", errs.OK) // as Thanos
	f(2, 1, "xo", errs.OK)
	f(2, 1, "co", errs.OK)
	f(2, 1, "cx", errs.Unavailable)
	f(2, 1, "cc", errs.Conflict)

	f(3, 2, "oo", errs.OK)
	f(3, 2, "oxo", errs.OK)
	f(3, 2, "cxo", errs.Unavailable)
	f(3, 2, "coo", errs.OK)
	f(3, 2, "cc", errs.Conflict)
	f(3, 2, "ii", errs.Invalid)
	f(3, 2, "oci", errs.Conflict)
	f(3, 2, "xx", errs.Unavailable)
	f(3, 2, "oxx", errs.Unavailable)
	f(3, 2, "xcc", errs.Conflict)
	f(3, 2, "ll", errs.Limited)
	f(3, 2, "oll", errs.Limited)
	f(3, 2, "lxo", errs.Unavailable)
	f(3, 2, "lxl", errs.Limited)
	f(3, 2, "lcl", errs.Limited)
	f(3, 2, "lco", errs.Limited) // the one that refused it for good cannot make up for the limit
	f(3, 2, "oil", errs.Limited)
	f(3, 2, "lcx", errs.Limited)
	f(3, 2, "lcc", errs.Conflict)

	// Fewer members than the quorum: nothing is asked. As many as the quorum: all must answer well.
	f(0, 2, "", errs.Unavailable)
	f(1, 2, "", errs.Unavailable)
	f(2, 3, "", errs.Unavailable)
	f(3, 3, "ooo", errs.OK)
	f(3, 3, "c", errs.Conflict)

	f(5, 3, "ooo", errs.OK)
	f(5, 3, "xxooo", errs.OK)
	f(5, 3, "xxx", errs.Unavailable)
	f(5, 3, "xxclo", errs.Unavailable)
	f(5, 3, "xxcll", errs.Limited)
	f(5, 3, "xxccc", errs.Conflict)
	f(5, 3, "ici", errs.Invalid)
}

// Every interleaving of every set of answers, against what is known when all have come.
func TestQuorumDecidesRightAndNotBeforeItIsCertain(t *testing.T) {
	letters := []rune("ocilx")
	for replicas := 1; replicas <= 5; replicas++ {
		for need := 1; need <= replicas; need++ {
			if replicas == 5 && need != 3 {
				continue // no replication factor has it, and it takes seconds
			}
			answers := make([]rune, replicas)
			var each func(int)
			each = func(i int) {
				if i == replicas {
					checkInterleaving(t, need, answers)
					return
				}
				for _, answers[i] = range letters {
					each(i + 1)
				}
			}
			each(0)
		}
	}
}

// class folds kinds between which the order of answers may choose.
func class(k errs.Kind) errs.Kind {
	if k == errs.Invalid {
		return errs.Conflict
	}
	return k
}

// truth is the outcome of complete answers, straight from the rules.
func truth(need int, answers []rune) errs.Kind {
	n := map[rune]int{}
	for _, a := range answers {
		n[a]++
	}
	bad := func(count int) bool { return len(answers)-count < need }
	switch {
	case n['o'] >= need:
		return errs.OK
	case bad(n['c'] + n['i']):
		return errs.Conflict
	case bad(n['l'] + n['c'] + n['i']):
		return errs.Limited
	}
	return errs.Unavailable
}

func checkInterleaving(t *testing.T, need int, answers []rune) {
	t.Helper()
	want := truth(need, answers)
	q := tally{replicas: uint8(len(answers))}
	for i := range len(answers) + 1 {
		kind, certain := q.outcome(need)
		if certain && class(kind) != want {
			t.Fatalf("need %d, %q: %s after %d answers, in the end %s", need, string(answers), kind, i, want)
		}
		if !certain && !undecided(need, answers, i) {
			t.Fatalf("need %d, %q: not decided after %d answers", need, string(answers), i)
		}
		if i < len(answers) {
			q.add(answerKinds[answers[i]], 1)
		}
	}
	if _, certain := q.outcome(need); !certain {
		t.Fatalf("need %d, %q: never decided", need, string(answers))
	}
}

// undecided reports whether the answers after the first n can still lead to different outcomes.
func undecided(need int, answers []rune, n int) bool {
	outcomes := map[errs.Kind]bool{}
	all := append([]rune{}, answers[:n]...)
	var each func([]rune)
	each = func(all []rune) {
		if len(all) == len(answers) {
			outcomes[truth(need, all)] = true
			return
		}
		for _, a := range "oclx" {
			each(append(all[:len(all):len(all)], a))
		}
	}
	each(all)
	return len(outcomes) > 1
}

func TestTallyKeepsTheTellingCauses(t *testing.T) {
	q := tally{replicas: 5}
	for i, kind := range []errs.Kind{errs.Unavailable, errs.Conflict, errs.OK, errs.Invalid, errs.Internal} {
		q.add(kind, int32(i+1))
	}
	if q.final != 2 || q.lost != 5 {
		t.Fatalf("final %d, lost %d, want 2 and 5", q.final, q.lost)
	}
}

func BenchmarkTally(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		q := tally{replicas: 3}
		q.add(errs.OK, 0)
		q.outcome(2)
		q.add(errs.OK, 0)
		q.outcome(2)
	}
}

// Exemplars that members refuse fail nothing, and those that a quorum has are counted: TestQuorum's letters are answers
// here, o or as a digit how many of the three exemplars an OK answer lacks.
func TestExemplarsWritten(t *testing.T) {
	f := func(need int, answers string, want int) {
		t.Helper()
		b := batch(2)
		for i := range b.Series {
			b.Series[i].Exemplars = make([]wire.Exemplar, 3)
		}
		d := &Distributor{opts: DefaultOptions()}
		w := &write{d: d, batch: b, need: need, undecided: 2, tallies: make([]tally, 2), changed: make(chan struct{}, 1)}
		for i := range w.tallies {
			w.tallies[i].replicas = uint8(len(answers))
		}
		for _, a := range answers {
			r := &queuedShard{write: w, member: &member{}, shard: wire.All(b)}
			said := wire.Failure{Series: 1, Kind: errs.OK, Exemplars: int(a - '0')}
			if kind, ok := answerKinds[a]; ok {
				said = wire.Failure{Series: 1, Kind: kind, Samples: 1, Exemplars: 3}
			}
			var failures []wire.Failure
			if a != 'o' {
				failures = append(failures, said)
			}
			w.answer(r, failures, nil)
		}
		stored, lost := w.judge(nil)
		r := Result{Exemplars: stored.Exemplars, Failures: lost}
		if r.Exemplars != 3+want {
			t.Errorf("%d of %q: %d exemplars written, want %d", need, answers, r.Exemplars, 3+want)
		}
		if kind, _ := w.tallies[1].outcome(need); r.Kind() != kind || kind == errs.OK && r.Err() != nil {
			t.Errorf("%d of %q: %s, %v", need, answers, r.Kind(), r.Err())
		}
	}
	f(1, "o", 3)
	f(1, "2", 1)
	f(1, "9", 0) // whatever a member says
	f(2, "oo", 3)
	f(2, "o1", 2)
	f(2, "13", 0)
	f(2, "o1o", 3) // a quorum of the three has all
	f(2, "3o1", 2)
	f(2, "331", 0)
	f(2, "c1o", 2)
	f(2, "x1o", 2)
	f(2, "c12", 1)
	f(1, "31", 2) // replication as Thanos does it
	f(2, "1cc", 0)
	f(2, "1xx", 0)
}
