package distributor

import (
	"bytes"
	"fmt"

	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring/election"
)

// The labels of HA pairs where a tenant's limits name none.
const (
	haClusterLabel = "cluster"
	haReplicaLabel = "__replica__"
)

// dedupe takes the samples of replicas that are not elected out of a, and the replica label off those of the elected ones.
// Each series is judged by its own labels: a request may hold several clusters and replicas. Series without both labels
// stay as they are.
func (t *tracker) dedupe(a *admission, l *tenant.Limits) {
	src := a.batch
	named := pairLabels{cluster: l.HAClusterLabel, replica: l.HAReplicaLabel}
	if named.cluster == "" {
		named.cluster = haClusterLabel
	}
	if named.replica == "" {
		named.replica = haReplicaLabel
	}
	var (
		rewriter *wire.Rewriter // nil as long as nothing changes
		last     member         // of the series before
		fate     verdict
		let      claim
		judged   bool
		dropped  int // samples of last
	)
	flush := func() {
		if dropped > 0 {
			t.metrics.dropped.WithLabelValues(string(src.Tenant), string(last.cluster)).Add(float64(dropped))
			dropped = 0
		}
	}
	for i := range src.Series {
		s := &src.Series[i]
		labels := s.Labels()
		m, ok := named.find(labels)
		if ok && (!judged || !bytes.Equal(m.replica, last.replica) || !bytes.Equal(m.cluster, last.cluster)) {
			flush()
			newest, _ := newestOf(s)
			fate, let = t.judge(src.Tenant, l, m, newest)
			last, judged = m, true
		}
		switch {
		case ok && fate == haElected:
			if rewriter == nil {
				rewriter = wire.Rewrite(src)
				for j := range i {
					rewriter.Keep(j)
				}
			}
			rewriter.Put(i, src.Tenant, labels[:m.from], labels[m.to:])
			a.claim(let, i)
			continue
		case ok && fate == haStandby:
			dropped += samplesOf(s)
			a.duplicate(i)
		case ok:
			t.refuse(a, i, l, fate, m, let.replica)
		}
		if rewriter != nil {
			rewriter.Keep(i) // every series stands where it stood
		}
	}
	flush()
	if rewriter != nil {
		a.become(rewriter.Done()[0])
		src.Release()
	}
}

// refuse takes series i out since its cluster cannot be followed, or since nothing of elected is stored now.
func (t *tracker) refuse(a *admission, i int, l *tenant.Limits, why verdict, m member, elected string) {
	switch why {
	case haLong:
		a.refuse(i, fmt.Sprintf("name of an HA cluster or replica is longer than %d bytes", election.MaxName))
	case haWait:
		a.refuseAs(errs.Unavailable, i, fmt.Sprintf("tenant %s: HA cluster %q: the last samples of its elected replica %q were not stored, so those of replica %q are not dropped: send them again",
			a.batch.Tenant, m.cluster, elected, m.replica))
	default:
		a.account.lost("ha_clusters", samplesOf(&a.batch.Series[i]))
		a.refuseAs(errs.Limited, i, fmt.Sprintf("tenant %s: HA cluster %q is one more than ha_clusters %d (to be raised in --runtime-config.file)",
			a.batch.Tenant, m.cluster, l.HAClusters))
	}
}

// claim notes that series i was let in as c says.
func (a *admission) claim(c claim, i int) {
	if n := len(a.claims); n > 0 {
		if last := &a.claims[n-1]; last.to == i && last.pair == c.pair && last.replica == c.replica {
			last.to = i + 1
			return
		}
	}
	c.from, c.to = i, i+1
	a.claims = append(a.claims, c)
}

// outcome says which series of a claim were stored.
type outcome struct {
	newest int64 // the time of the newest sample that was stored
	stored bool  // there is one
	failed bool  // a series was not stored
}

// join is what o and p say together.
func (o outcome) join(p outcome) outcome {
	return outcome{max(o.newest, p.newest), o.stored || p.stored, o.failed || p.failed}
}

// outcomeOf is c's. failures are those of replicas, in the batch's order; rest are those of later series.
func (a *admission) outcomeOf(c claim, failures []wire.Failure) (o outcome, rest []wire.Failure) {
	for i := c.from; i < c.to; i++ {
		if !a.in(i) {
			o.failed = true
			continue
		}
		s, place := &a.batch.Series[i], a.batch.Origin(i)
		for len(failures) > 0 && failures[0].Series >= 0 && failures[0].Series < place {
			failures = failures[1:]
		}
		if len(failures) > 0 && failures[0].Series == place && failures[0].Samples+failures[0].Histograms >= samplesOf(s) {
			o.failed = true
			continue
		}
		if t, ok := newestOf(s); ok {
			o.newest, o.stored = max(o.newest, t), true
		}
	}
	return o, failures
}

// newestOf is the time of the newest sample of s, Unix milliseconds and 0 at least. Stale markers do not count: a server
// that sees nothing any more sends nothing else.
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

// member is what the labels of a series say of the replica that it comes from.
type member struct {
	cluster, replica []byte
	from, to         int // where the replica label is
}

// pairLabels are the names of the two labels.
type pairLabels struct{ cluster, replica string }

// find looks for both labels in canonical label bytes; without both there is no member.
func (n *pairLabels) find(labels []byte) (m member, ok bool) {
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
