// Package election decides which replica of a pair of Prometheus servers is listened to, and how processes that decided
// apart come to one opinion. It is pure: times and states go in, states come out.
//
// Flow: distributor asks Elect for every run of samples of one replica; what changes is gossiped (ring/gossip); what others
// decided comes back through Merge.
//
// Invariants:
//   - Merge is commutative, associative and idempotent: whatever way states travel, all end with the same one.
//   - The newest election wins everywhere, and Elect never begins one that is older than what it knows, whatever the clock
//     says: numbers that order states only grow.
//   - Whether a replica has fallen silent is a matter of when this process heard of it by its own clock. Clocks of processes
//     need not agree.
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
	// Heard is when, by this process's clock, it learnt that the elected replica sends: from the replica itself, or from
	// another process that received its samples.
	Heard time.Time
}

// Elect is asked whether samples of replica, received now, are to be kept. They are when it is elected, when nobody is,
// and when nothing was heard of the elected for longer than failover: it is elected then.
func Elect(now time.Time, k Known, replica string, failover time.Duration) (_ Known, accept bool) {
	switch {
	case k.Gone() || k.Replica != replica && now.Sub(k.Heard) > failover:
		version := max(now.UnixMilli(), k.Elected+1, k.Received+1, k.Deleted+1)
		return Known{State{Replica: replica, Elected: version, Received: version}, now}, true
	case k.Replica == replica:
		k.Received, k.Heard = max(now.UnixMilli(), k.Received), now
		return k, true
	}
	return k, false
}

// Learn takes in what another process says.
func Learn(now time.Time, k Known, s State) Known {
	merged := Merge(k.State, s)
	if merged != k.State {
		k.State, k.Heard = merged, now
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
