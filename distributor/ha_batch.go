package distributor

import (
	"bytes"
	"fmt"

	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring/election"
)

// The labels of HA pairs where a tenant's limits name none.
const (
	haClusterLabel = "cluster"
	haReplicaLabel = "__replica__"
)

// dedupePairs drops the samples of HA replicas that are not elected, and takes the replica label off those of the
// elected ones. Each series is judged by its own labels: a request may hold several clusters and replicas. Series
// without both labels stay as they are.
func (d *Distributor) dedupePairs(_ *request, p *part) error {
	if p.limits != nil && p.limits.HAPairs {
		d.pairs.dedupe(p)
	}
	return nil
}

// dedupe is dedupePairs for a tenant that has HA pairs.
func (t *haTracker) dedupe(p *part) {
	named := haLabels{cluster: p.limits.HAClusterLabel, replica: p.limits.HAReplicaLabel}
	if named.cluster == "" {
		named.cluster = haClusterLabel
	}
	if named.replica == "" {
		named.replica = haReplicaLabel
	}
	var (
		b       = p.batch
		rw      = wire.Rewrite(b)
		last    haReplica // of the series before
		fate    verdict
		run     electedRun
		judged  bool
		dropped int // samples of last
	)
	flush := func() {
		if dropped > 0 {
			t.metrics.dropped.WithLabelValues(string(b.Tenant), string(last.cluster)).Add(float64(dropped))
			dropped = 0
		}
	}
	for i := range b.Series {
		s := &b.Series[i]
		labels := s.Labels()
		m, ok := named.find(labels)
		if ok && (!judged || !bytes.Equal(m.replica, last.replica) || !bytes.Equal(m.cluster, last.cluster)) {
			flush()
			newest, _ := newestOf(s)
			fate, run = t.judge(b.Tenant, p.limits, m, newest)
			last, judged = m, true
		}
		switch {
		case !ok:
			rw.Keep(i)
		case fate == haElected:
			rw.Put(i, b.Tenant, labels[:m.from], labels[m.to:])
			p.elect(run, b.Origin(i))
		case fate == haStandby:
			dropped += samplesOf(s)
			p.duplicates.add(countsOf(s))
			rw.Drop(i)
		default:
			p.refusePair(i, fate, m, run.replica)
			rw.Drop(i)
		}
	}
	flush()
	if rw.Changed() {
		own, _ := rw.Done()
		p.become(own)
	}
}

// refusePair refuses series i, because its cluster cannot be followed or because samples of the elected replica are not
// stored now.
func (p *part) refusePair(i int, why verdict, m haReplica, elected string) {
	switch why {
	case haLong:
		p.refuse(i, errs.Invalid, fmt.Sprintf("name of an HA cluster or replica is longer than %d bytes", election.MaxName))
	case haWait:
		p.refuse(i, errs.Unavailable, fmt.Sprintf("tenant %s: HA cluster %q: the last samples of its elected replica %q "+
			"were not stored, so those of replica %q are not dropped: send them again",
			p.tenant.id, m.cluster, elected, m.replica))
	default:
		p.tenant.lost("ha_clusters", samplesOf(&p.batch.Series[i]))
		p.refuse(i, errs.Limited, fmt.Sprintf("tenant %s: HA cluster %q is one more than ha_clusters %d (to be raised in "+
			"--runtime-config.file)", p.tenant.id, m.cluster, p.limits.HAClusters))
	}
}

// electedRun is a run of series of an elected replica that were let in. Whether they are stored decides if the replica
// stays elected. The series are named by their places in the request, which stay true when series become one.
type electedRun struct {
	pair     *haCluster
	replica  string
	from, to int
}

// elect notes that the series at place was let in as run says.
func (p *part) elect(run electedRun, place int) {
	if n := len(p.elected); n > 0 {
		if last := &p.elected[n-1]; last.to == place && last.pair == run.pair && last.replica == run.replica {
			last.to = place + 1
			return
		}
	}
	run.from, run.to = place, place+1
	p.elected = append(p.elected, run)
}

// outcome says which series of a run were stored.
type outcome struct {
	newest int64 // the time of the newest sample that was stored
	stored bool  // there is one
	failed bool  // a series was not stored
}

// join is what o and p say together.
func (o outcome) join(p outcome) outcome {
	return outcome{max(o.newest, p.newest), o.stored || p.stored, o.failed || p.failed}
}

// outcomes gives the outcomes of a part's runs, one after the other.
type outcomes struct {
	p    *part
	next int            // index of the next series
	lost []wire.Failure // of p, from that series on
}

// of is the outcome of run, which comes after those that were asked for before.
func (c *outcomes) of(run electedRun) (o outcome) {
	if c.p.err != nil {
		return outcome{failed: true}
	}
	b := c.p.batch
	for ; c.next < len(b.Series) && b.Origin(c.next) < run.to; c.next++ {
		if b.Origin(c.next) < run.from {
			continue
		}
		if !c.p.in(c.next) || c.lostWhole() {
			o.failed = true
			continue
		}
		if t, ok := newestOf(&b.Series[c.next]); ok {
			o.newest, o.stored = max(o.newest, t), true
		}
	}
	return o
}

// lostWhole reports whether none of the next series' samples was stored.
func (c *outcomes) lostWhole() bool {
	for len(c.lost) > 0 && c.lost[0].Series >= 0 && c.lost[0].Series < c.next {
		c.lost = c.lost[1:]
	}
	return len(c.lost) > 0 && c.lost[0].Series == c.next &&
		c.lost[0].Samples+c.lost[0].Histograms >= samplesOf(&c.p.batch.Series[c.next])
}

// newestOf is the time of the newest sample of s, in Unix milliseconds and at least 0. Stale markers do not count: a
// server that sees nothing any more sends only these.
func newestOf(s *wire.Series) (newest int64, ok bool) {
	for i := range s.Samples {
		if x := &s.Samples[i]; !value.IsStaleNaN(x.V) {
			newest, ok = max(newest, x.T), true
		}
	}
	for i := range s.Histograms {
		h, sum := &s.Histograms[i], 0.0
		if h.H != nil {
			sum = h.H.Sum
		} else {
			sum = h.FH.Sum
		}
		if !value.IsStaleNaN(sum) {
			newest, ok = max(newest, h.T), true
		}
	}
	return newest, ok
}

// haReplica is what the labels of a series say of the HA replica that it comes from.
type haReplica struct {
	cluster, replica []byte
	from, to         int // where the replica label is
}

// haLabels are the names of the two labels.
type haLabels struct{ cluster, replica string }

// find looks for both labels in canonical label bytes. It is not ok unless both are there.
func (n *haLabels) find(labels []byte) (m haReplica, ok bool) {
	last := max(n.cluster, n.replica)
	for rest := labels; len(rest) > 0; {
		name, value, after := wire.NextLabel(rest)
		from, to := len(labels)-len(rest), len(labels)-len(after)
		switch {
		case name == n.cluster:
			m.cluster = labels[to-1-len(value) : to-1]
		case name == n.replica:
			m.replica, m.from, m.to = labels[to-1-len(value):to-1], from, to
		case name > last:
			rest = nil
			continue
		}
		rest = after
	}
	return m, m.cluster != nil && m.replica != nil
}
