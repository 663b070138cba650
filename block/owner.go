package block

import (
	"cmp"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Owner says whose a bucket is: the names on which all processes that use it must agree. An empty name is one that is
// not known.
type Owner struct {
	// Cluster is the name of the cluster whose processes write into the bucket: their --gossip.cluster-label.
	Cluster string `json:"cluster_label,omitempty"`
	// TenantLabel is the external label of blocks that names their tenant.
	TenantLabel string `json:"tenant_label,omitempty"`
	// ReplicaLabel is the external label of blocks that tells copies of the same series apart.
	ReplicaLabel string `json:"replica_label,omitempty"`
}

// Or is o with the names of p where o has none.
func (o Owner) Or(p Owner) Owner {
	return Owner{
		Cluster: cmp.Or(o.Cluster, p.Cluster), TenantLabel: cmp.Or(o.TenantLabel, p.TenantLabel),
		ReplicaLabel: cmp.Or(o.ReplicaLabel, p.ReplicaLabel),
	}
}

func (o Owner) complete() bool { return o.Cluster != "" && o.TenantLabel != "" && o.ReplicaLabel != "" }

// MayRead decides whether a process that uses the names of own may read the bucket. With another tenant label it would
// take all blocks for those of one tenant, and with another replica label it would show copies as series of their own.
// A bucket that does not say its names yet may be read. Errors are of kind Conflict.
func (id Identity) MayRead(own Owner) error {
	if err := sameLabel("tenant_label", id.TenantLabel, "--receive.tenant-label-name", own.TenantLabel); err != nil {
		return err
	}
	return sameLabel("replica_label", id.ReplicaLabel, "--receive.replica-label-name", own.ReplicaLabel)
}

func sameLabel(field, theirs, flag, own string) error {
	if theirs == "" || own == "" || theirs == own {
		return nil
	}
	return errs.E(errs.Conflict, "%s of the bucket says %s=%s, and this process has %s=%s: leave the flag out or set it "+
		"to %s, and restart. The blocks in a bucket keep their labels, so another name needs another bucket, or a prefix "+
		"in this one", identityName, field, theirs, flag, own, theirs)
}

// MayWrite decides whether a process that uses the names of own may write blocks with the external labels ext, those of
// tenant and replica aside, into the bucket. It must use the same label names, and be of the same cluster: blocks that
// differ in nothing but the replica label are taken for copies of each other, and are united. Only replicas of one
// cluster are that. A process of another cluster may write if one of its external labels has the name of its cluster as
// the value: then its blocks differ from those of all other clusters. Errors are of kind Conflict.
func (id Identity) MayWrite(own Owner, ext labels.Labels) error {
	if err := id.MayRead(own); err != nil {
		return err
	}
	if id.Cluster == "" || id.Cluster == own.Cluster {
		return nil
	}
	distinct := false
	ext.Range(func(l labels.Label) {
		attribute := l.Name == own.TenantLabel || l.Name == own.ReplicaLabel
		distinct = distinct || !attribute && l.Value == own.Cluster
	})
	if distinct {
		return nil
	}
	return errs.E(errs.Conflict, "%s of the bucket says cluster_label=%s, and this process has "+
		"--gossip.cluster-label=%s: in one bucket the blocks of two clusters would be taken for copies of each other. "+
		"Give this cluster another bucket or prefix, or mark all its blocks by an external label that has its name "+
		"as the value, such as --label='cluster=%q'. If this process is of cluster %s, set --gossip.cluster-label to that",
		identityName, id.Cluster, own.Cluster, own.Cluster, id.Cluster)
}
