// Package election decides from which HA replica of a pair of Prometheus servers samples are stored, and how
// processes that decided differently come to one election. It is pure: times and states go in, states come out.
//
// Flow: distributor asks Judge for every group of samples of one HA replica, and afterwards calls Stored or Failed.
// States that change are gossiped (ring/gossip). States of other processes come back through Learn.
//
// Invariants:
//   - Merge is commutative, associative and idempotent: on whatever way states travel, all processes end with the
//     same one.
//   - The newest election wins everywhere. A new one is always newer than what is known, whatever the clock says: the
//     numbers that order states only grow.
//   - Whether a replica is silent depends on when this process heard of it, by its own clock, which need not agree
//     with others' and may be set. Times of samples are compared with each other, and with that clock only to bound
//     them.
//   - A replica stays elected because its samples are stored, not because they arrive. Samples of others are dropped
//     only while the last ones of the elected replica were stored.
//   - The elected replica changes at most once in a failover timeout, unless nothing of it was ever stored.
package election

import "time"

// MaxName is the largest length, in bytes, of the name of a cluster or replica. Names are gossiped, so every process
// holds them.
const MaxName = 256

// State is the election of one cluster (the pair's cluster label), as it is gossiped. Elected, Received and Deleted
// are versions: Unix milliseconds, or more if a clock was behind what was known. The zero State means that there is
// no election.
type State struct {
	// Replica is the elected HA replica.
	Replica string `json:"replica"`
	// Elected is when it was elected; the newer of two elections wins.
	Elected int64 `json:"elected"`
	// Received is when samples of it were last stored, by the clock of the process that stored them; Elected if none
	// were.
	Received int64 `json:"received"`
	// Sample is the time of the newest of its samples that was stored, in Unix milliseconds by the replica's clock; 0 =
	// not known.
	Sample int64 `json:"sample,omitempty"`
	// Deleted, if it is after Received, is when the cluster was given up because nothing was heard of it.
	Deleted int64 `json:"deleted,omitempty"`
}

// Gone reports whether there is no election: there never was one, or the cluster was given up.
func (s State) Gone() bool { return s.Replica == "" || s.Deleted > s.Received }

// Merge returns the state that is valid when a and b are known of one cluster.
func Merge(a, b State) State {
	if a.Elected != b.Elected || a.Replica != b.Replica {
		if a.Elected > b.Elected || a.Elected == b.Elected && a.Replica > b.Replica {
			return a
		}
		return b
	}
	a.Received, a.Deleted, a.Sample = max(a.Received, b.Received), max(a.Deleted, b.Deleted), max(a.Sample, b.Sample)
	return a
}

// Known is what one process knows of a cluster.
type Known struct {
	State
	// Heard is when this process learnt, by its own clock, that samples of the elected replica are stored: it stored
	// some itself, or a state of another process said so. At first it is when the replica was elected.
	Heard time.Time
	// Failing says that the last samples of the elected replica that came to this process were not stored.
	Failing bool

	waiting time.Time // since when all samples of other replicas were answered Wait; zero = the last were not
	offered int64     // the newest sample that any other replica offered, Unix milliseconds
	lag     int64     // how far the elected replica was behind offered at the time behind, milliseconds
	behind  time.Time // since when the elected replica stays behind; zero = it does not
}

// Fate is what the caller must do with samples of a replica.
type Fate uint8

// The fates.
const (
	Keep Fate = iota // store them
	Drop             // do not store them, and answer as if they were stored: the elected replica's are
	Wait             // do not store them, and ask the sender to send them again: the elected replica's may not be stored
)

// Judge says what the caller must do with samples of replica that came now. newest is the time of one of the newest
// of them, in Unix milliseconds; 0 = not known. If there is no election, Judge elects replica. Samples of the elected
// replica are kept. Samples of another replica are kept too if it may take the place of the elected one, which it
// does when Stored is called. It may in these cases:
//
//   - nothing of the elected replica was stored for longer than failover;
//   - nothing of it was ever stored, and it failed;
//   - samples of others were answered Wait, and nothing else, for longer than failover: the elected replica fails
//     again and again, although something of it is stored in between;
//   - its newest stored sample stays more than twice failover behind what the other offers, for longer than failover,
//     and it does not catch up. Twice, since this process learns with a delay below failover what others store.
func Judge(now time.Time, k Known, replica string, newest int64, failover time.Duration) (Known, Fate) {
	switch {
	case k.Gone():
		return k.elect(now, replica), Keep
	case k.Replica == replica:
		return k, Keep
	}
	k.watch(now, newest, failover)
	switch {
	case !k.Failing:
		k.waiting = time.Time{}
	case k.waiting.IsZero():
		k.waiting = now
	}
	switch {
	case k.mayReplace(now, newest, failover):
		return k, Keep
	case k.Failing:
		return k, Wait
	}
	return k, Drop
}

// Stored returns k after samples of replica were stored; newest is the time of the newest, as in Judge. It elects
// replica if that may take the place of the elected one.
func Stored(now time.Time, k Known, replica string, newest int64, failover time.Duration) Known {
	if k.Gone() || k.Replica != replica {
		if !k.Gone() && !k.mayReplace(now, newest, failover) {
			return k
		}
		k = k.elect(now, replica)
	}
	k.Received, k.Sample = max(now.UnixMilli(), k.Received+1), max(newest, k.Sample)
	k.Heard, k.Failing = now, false
	return k
}

// Failed returns k after samples of replica came and none of them was stored.
func Failed(k Known, replica string) Known {
	if k.Replica == replica {
		k.Failing = true
	}
	return k
}

// elect returns k with replica elected at now. Nothing of replica was stored yet.
func (k Known) elect(now time.Time, replica string) Known {
	version := max(now.UnixMilli(), k.Elected+1, k.Received+1, k.Deleted+1)
	return Known{State: State{Replica: replica, Elected: version, Received: version}, Heard: now, offered: k.offered}
}

// proven reports whether samples of the elected replica were ever stored.
func (k *Known) proven() bool { return k.Received > k.Elected }

// watch compares the elected replica's newest sample with the one that another replica offers. A replica's clock may
// be ahead, so an offer counts as now at most.
func (k *Known) watch(now time.Time, newest int64, failover time.Duration) {
	offer := min(max(newest, 0), now.UnixMilli())
	if offer < k.offered-2*failover.Milliseconds() {
		return // the other replica is late itself
	}
	k.offered = max(k.offered, offer)
	lag := k.offered - k.Sample
	switch {
	case k.Sample == 0 || lag <= 2*failover.Milliseconds():
		k.behind = time.Time{}
	case k.behind.IsZero():
		k.behind, k.lag = now, lag
	case now.Sub(k.behind) > failover && k.catchesUp(now, lag):
		k.behind, k.lag = now, lag
	}
}

// catchesUp reports whether the elected replica's lag shrinks by at least a quarter of the time that passes.
func (k *Known) catchesUp(now time.Time, lag int64) bool {
	return k.lag-lag >= now.Sub(k.behind).Milliseconds()/4
}

// mayReplace reports whether a replica that offers newest may take the place of the elected one.
func (k *Known) mayReplace(now time.Time, newest int64, failover time.Duration) bool {
	waited := !k.waiting.IsZero() && now.Sub(k.waiting) > failover
	if now.Sub(k.Heard) > failover || k.Failing && !k.proven() || waited {
		return true
	}
	lag := min(max(newest, 0), now.UnixMilli()) - k.Sample
	return !k.behind.IsZero() && now.Sub(k.behind) > failover && lag > 2*failover.Milliseconds()
}

// Learn returns k after a state s came from another process.
func Learn(now time.Time, k Known, s State) Known {
	merged := Merge(k.State, s)
	switch {
	case merged == k.State:
	case merged.Replica != k.Replica || merged.Elected != k.Elected:
		k = Known{State: merged, Heard: now, offered: k.offered}
	default:
		k.State, k.Heard, k.Failing = merged, now, false
	}
	return k
}

// GiveUp returns k with its cluster given up if nothing was heard of it for longer than after. Otherwise ok is false
// and k is unchanged.
func GiveUp(now time.Time, k Known, after time.Duration) (_ Known, ok bool) {
	if k.Gone() || now.Sub(k.Heard) <= after {
		return k, false
	}
	k.Deleted = max(now.UnixMilli(), k.Received+1)
	return k, true
}
