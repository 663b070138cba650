package distributor

import (
	"bytes"
	"fmt"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
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
			fate, judged = t.judge(src.Tenant, l, m.cluster, m.replica), true
			last = m
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
			continue
		case ok && fate == haStandby:
			dropped += samplesOf(s)
			a.duplicate(i)
		case ok:
			t.refuse(a, i, l, fate, m)
		}
		if rewriter != nil {
			rewriter.Keep(i) // every series stands where it stood
		}
	}
	flush()
	if rewriter != nil {
		a.batch = rewriter.Done()[0]
		src.Release()
	}
}

// refuse takes series i out since its cluster cannot be followed.
func (t *tracker) refuse(a *admission, i int, l *tenant.Limits, why verdict, m member) {
	if why == haLong {
		a.refuse(i, fmt.Sprintf("name of an HA cluster or replica is longer than %d bytes", haMaxName))
		return
	}
	a.account.lost("ha_clusters", samplesOf(&a.batch.Series[i]))
	a.refuseAs(errs.Limited, i, fmt.Sprintf("tenant %s: HA cluster %q is one more than ha_clusters %d (to be raised in --runtime-config.file)",
		a.batch.Tenant, m.cluster, l.HAClusters))
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
