// Package election decides which replica of a pair of Prometheus servers is listened to, and how processes that decided
// apart come to one opinion. It is pure: times and states go in, states come out.
//
// Flow: distributor asks Judge for every run of samples of one replica, and says afterwards whether they were Stored or
// Failed; what changes is gossiped (ring/gossip); what others decided comes back through Learn.
//
// Invariants:
//   - Merge is commutative, associative and idempotent: whatever way states travel, all end with the same one.
//   - The newest election wins everywhere, and none is begun that is older than what is known, whatever the clock says:
//     numbers that order states only grow.
//   - Whether a replica has fallen silent is a matter of when this process heard of it by its own clock, which need not agree
//     with others' and may be set. Times of samples are compared with each other, and with that clock only to bound them.
//   - Being elected is kept by what is stored, not by what arrives. Samples are dropped only while the last ones of the
//     elected replica were stored.
//   - The elected replica changes at most once in a failover timeout, unless nothing of it was ever stored.
package election

import "time"

// MaxName is how many bytes the name of a cluster or replica may have: they are gossiped.
const MaxName = 256

// State is the election of one cluster of replicas, as processes tell each other. Numbers are versions: Unix milliseconds,
// or more where a clock was behind what is known. The zero State is no election.
type State struct {
	// Replica is the elected one.
	Replica string `json:"replica"`
	// Elected is when it was elected; the newer of two elections wins.
	Elected int64 `json:"elected"`
	// Received is when samples of it were last stored, by the last process that said so.
	Received int64 `json:"received"`
	// Sample is the time of the newest of its samples that was stored, in Unix milliseconds by the replica's clock; 0 = not known.
	Sample int64 `json:"sample,omitempty"`
	// Deleted, when after Received, is when the cluster was given up because nothing was heard of it.
	Deleted int64 `json:"deleted,omitempty"`
}

// Gone reports whether there is no election: none ever, or the cluster was given up.
func (s State) Gone() bool { return s.Replica == "" || s.Deleted > s.Received }

// Merge is what is to be believed of two states of one cluster.
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
	// Heard is when, by this process's clock, it learnt that samples of the elected replica are stored: it stored some itself,
	// or another process said so. At first it is when the replica was elected.
	Heard time.Time
	// Failing says that the last samples of the elected replica that came here were not stored.
	Failing bool

	waiting time.Time // since when every sample of other replicas was answered Wait; zero = the last was not
	offered int64     // the newest sample that any other replica offered, Unix milliseconds
	lag     int64     // how far the elected one was behind it at behind, milliseconds
	behind  time.Time // since when it stays behind; zero = it does not
}

// Fate is what is to be done with samples of a replica.
type Fate uint8

// The fates.
const (
	Keep Fate = iota // they are to be stored
	Drop             // the elected replica's are stored: these are to be answered as if they were too
	Wait             // the elected replica's may not be stored: these are to be sent again
)

// Judge is asked what is to be done with samples of replica that came now; newest is the time of one of the newest of them,
// Unix milliseconds, 0 = not known. Those of the elected one are kept, and the first one is elected when nobody is. Those of
// another are kept too when it may take the place of the elected one, and it does once Stored reports success:
//
//   - nothing of the elected one was stored for longer than failover;
//   - nothing of it was ever stored, and it failed;
//   - samples of others were answered Wait, and nothing else, for longer than failover: the elected one fails again and again
//     though something of it is stored in between;
//   - its newest stored sample stays more than twice failover behind what the other offers, for longer than failover, and it
//     does not catch up. What other processes store is known with a delay that is below failover.
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

// Stored is k after samples of replica were stored, the newest of which is of newest. It elects replica when it may take the
// place of the elected one.
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

// Failed is k after samples of replica came of which nothing was stored.
func Failed(k Known, replica string) Known {
	if k.Replica == replica {
		k.Failing = true
	}
	return k
}

// elect is k with replica elected at now, of which nothing was stored yet.
func (k Known) elect(now time.Time, replica string) Known {
	version := max(now.UnixMilli(), k.Elected+1, k.Received+1, k.Deleted+1)
	return Known{State: State{Replica: replica, Elected: version, Received: version}, Heard: now, offered: k.offered}
}

// proven reports whether samples of the elected replica were ever stored.
func (k *Known) proven() bool { return k.Received > k.Elected }

// watch compares the elected replica's newest sample with one that another offers. A replica's clock may be ahead: what it
// offers is of now at most.
func (k *Known) watch(now time.Time, newest int64, failover time.Duration) {
	offer := min(max(newest, 0), now.UnixMilli())
	if offer < k.offered-2*failover.Milliseconds() {
		return // it is late itself
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

// catchesUp reports whether the elected replica's lag shrinks: by a quarter of the time that passes, at least.
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

// Learn takes in what another process says.
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

// GiveUp is k once nothing was heard of its cluster for longer than after; ok = false leaves it as it was.
func GiveUp(now time.Time, k Known, after time.Duration) (_ Known, ok bool) {
	if k.Gone() || now.Sub(k.Heard) <= after {
		return k, false
	}
	k.Deleted = max(now.UnixMilli(), k.Received+1)
	return k, true
}
