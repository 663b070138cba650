package main

import (
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/run"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/receive"
	"github.com/hearth-metrics/hearth/ring/gossip"
	"github.com/hearth-metrics/hearth/tsdb"
)

// storageFlags are the flags of a process that owns data.
type storageFlags struct {
	tsdb    tsdb.Options
	receive receive.Options
	tuning  tuningFlags
	drain   drainFlags
}

func (f *storageFlags) bind(c *kingpin.CmdClause) {
	f.tsdb, f.receive = tsdb.DefaultOptions(), receive.DefaultOptions()
	f.tuning.bind(c, &f.tsdb, &f.receive)
	durationFlag(c, "tsdb.block-duration", "Time range of a block.", &f.tsdb.BlockDuration)
	c.Flag("tsdb.max-exemplars", "Exemplars kept per tenant; 0 = none.").
		Default(strconv.FormatInt(f.tsdb.MaxExemplars, 10)).SetValue(whole[int64]{&f.tsdb.MaxExemplars})
	c.Flag("receive.max-tenants", "Tenants that may have data on this receiver; writes of one more are refused. 0 = no "+
		"bound.").Default("50000").SetValue(whole[int]{&f.tsdb.MaxTenants})
	durationFlag(c, "tsdb.idle-timeout", "A tenant without writes for this long is cut, shipped and closed; it is "+
		"opened again when needed. 0s = never.", &f.tsdb.IdleTimeout)
	c.Flag("tsdb.adopt", "Take over directories of tenants that Hearth did not make, if they have thanos.shipper.json "+
		"or wal/, as a Thanos receiver's do. Without it they are left alone, and writes of their tenants are refused.").
		BoolVar(&f.tsdb.Adopt)
	c.Flag("receive.deletion-interval", "How often the bucket is asked which tenants operators want to be deleted.").
		Hidden().Default("30s").SetValue(duration{&f.receive.DeletionInterval})
	c.Flag("label", "External label name=\"value\" of this receiver. The replica label (--receive.replica-label-name) "+
		"defaults to the instance id. May be given several times.").
		SetValue(labelSet{&f.receive.Labels})
	f.drain.bind(c)
}

// limits are what the flags say of the limits of tenants, added to l.
func (f *storageFlags) limits(l tenant.Limits) tenant.Limits {
	l.Exemplars = f.tsdb.MaxExemplars
	l.OutOfOrderWindow, l.FutureWindow = model.Duration(f.tsdb.Window), model.Duration(f.tsdb.Future)
	l.Retention = model.Duration(f.tsdb.Retention)
	return l
}

// storage is the data of a member: the TSDBs, and the receiver over them.
type storage struct {
	db       *tsdb.DB
	receiver *receive.Receiver
}

// build adds the TSDBs below dir, kept to the tenants' limits, and the receiver over them.
func (f *storageFlags) build(b *builder, c *cluster, bkt *bucket, limits *tenantLimits, shared sharedFlags,
	dir string) storage {
	f.tsdb.Limits, f.tsdb.Share = limits.Of, limits.ofSeries
	f.tsdb.Dir, f.tsdb.Instance, f.tsdb.Since, f.tsdb.Role = dir, c.instance.ID, c.instance.Since, series.RoleReceive
	db, err := tsdb.New(b.log, b.reg, f.tsdb)
	b.check(err)
	var ships objstore.Bucket // stays nil without a bucket
	if bkt != nil {
		ships = bkt
	}
	f.receive.Instance, f.receive.Since = c.instance.ID, c.instance.Since
	f.receive.TenantLabel, f.receive.ReplicaLabel = shared.tenantLabel, shared.replicaLabel
	r, err := receive.New(b.log, b.reg, db, ships, f.receive)
	b.check(err)
	gc := run.NewCollector(b.log, db.Overhead)
	b.addPart("garbage collector", gc.Open, gc.Close, nil)
	b.addPart("tsdb", db.Open, db.Close, db.Ready)
	b.health.AddAdvice("tenants", db.Whole)
	b.addPart("receive", r.Open, r.Close, nil)
	return storage{db, r}
}

// quarantined are the tenants whose data cannot be opened; gossip passes them on to the other members.
func (s storage) quarantined() []gossip.Quarantine {
	var all []gossip.Quarantine
	for _, t := range s.db.Broken() {
		all = append(all, gossip.Quarantine{Tenant: t.Tenant, Reason: t.Error})
	}
	return all
}
