package main

import (
	"fmt"
	"os"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb"
)

// sharedFlags are flags whose values several parts of a process use. They are bound once, and each part takes them as a
// value, so that no two parts can differ.
type sharedFlags struct {
	// tenantLabel and replicaLabel name the external labels that carry a stream's attributes, on blocks and over StoreAPI.
	// All processes of a cluster use the same names.
	tenantLabel, replicaLabel string
	// Whether a flag said them. If not, the names that the bucket says are used instead.
	tenantLabelGiven, replicaLabelGiven bool

	// tenantHeader names the tenant of a request, and defaultTenant is the tenant of requests that name none.
	tenantHeader, defaultTenant string

	// retention is how long blocks stay on a receiver's disk. window is how old a sample may be when it is taken, future
	// how far ahead of the clock. In a process that only asks receivers they are what the receivers are set to.
	retention, window, future time.Duration
}

// defaultShared are the values of a command that binds none of these flags.
func defaultShared() sharedFlags {
	labels, data := rpc.DefaultClientOptions(), tsdb.DefaultOptions()
	return sharedFlags{
		tenantLabel: labels.TenantLabel, replicaLabel: labels.ReplicaLabel,
		tenantHeader: tenant.HeaderThanos, defaultTenant: string(tenant.Default),
		retention: data.Retention, window: data.Window, future: data.Future,
	}
}

// bindLabels adds the flags of the external labels.
func (f *sharedFlags) bindLabels(c *kingpin.CmdClause) {
	c.Flag("receive.tenant-label-name", "External label that names the tenant of a stream, on blocks and to Thanos. "+
		"Where there is a bucket, the name that it says goes before the default.").
		Default(f.tenantLabel).IsSetByUser(&f.tenantLabelGiven).StringVar(&f.tenantLabel)
	c.Flag("receive.replica-label-name", "External label that tells a ring's copies apart, on blocks and to Thanos. "+
		"Copies are united; the label is not shown on series. Where there is a bucket, the name that it says goes before "+
		"the default.").
		Default(f.replicaLabel).IsSetByUser(&f.replicaLabelGiven).StringVar(&f.replicaLabel)
}

// givenLabels are the names of labels that the command line, the configuration file or the environment say.
func (f sharedFlags) givenLabels() (names block.Owner) {
	if f.tenantLabelGiven || os.Getenv(envar("receive.tenant-label-name")) != "" {
		names.TenantLabel = f.tenantLabel
	}
	if f.replicaLabelGiven || os.Getenv(envar("receive.replica-label-name")) != "" {
		names.ReplicaLabel = f.replicaLabel
	}
	return names
}

// bindTenants adds the flags that say how requests name their tenant.
func (f *sharedFlags) bindTenants(c *kingpin.CmdClause) {
	c.Flag("receive.tenant-header", "Header that names the tenant. X-Scope-OrgID and THANOS-TENANT are always "+
		"understood.").Default(f.tenantHeader).StringVar(&f.tenantHeader)
	c.Flag("receive.default-tenant-id", "Tenant of requests that name none.").
		Default(f.defaultTenant).StringVar(&f.defaultTenant)
}

// bindStored adds the flags that say which samples this process takes, and how long it keeps them.
func (f *sharedFlags) bindStored(c *kingpin.CmdClause) {
	durationFlag(c, "tsdb.retention", "How long blocks stay on local disk after they are shipped. Without a bucket: "+
		"how long data is kept. 0s = for ever.", &f.retention)
	durationFlag(c, "tsdb.out-of-order.time-window", "How old a sample may be, by this machine's clock. Within it the "+
		"order of samples does not matter.", &f.window)
	durationFlag(c, "tsdb.too-far-in-future.time-window", "How far ahead of this machine's clock a sample may be.",
		&f.future)
}

// bindAsked adds the flags that say what the receivers are set to that this process asks.
func (f *sharedFlags) bindAsked(c *kingpin.CmdClause) {
	durationFlag(c, "tsdb.retention", "How long receivers keep blocks on local disk: what they are set to. Missing "+
		"receivers matter for that long.", &f.retention)
	durationFlag(c, "tsdb.out-of-order.time-window", "How old a sample may be when receivers take it: what they are "+
		"set to.", &f.window)
	durationFlag(c, "tsdb.too-far-in-future.time-window", "How far ahead of the clock a sample may be when receivers "+
		"take it: what they are set to.", &f.future)
}

// resolver finds the tenant of a request. certificate is the field of the client's certificate that names it, "" = none
// does.
func (f sharedFlags) resolver(certificate string) (tenant.Resolver, error) {
	id, err := tenant.Parse(f.defaultTenant)
	if err != nil {
		return tenant.Resolver{}, fmt.Errorf("--receive.default-tenant-id: %w", err)
	}
	return tenant.Resolver{Header: f.tenantHeader, Default: id, Certificate: certificate}, nil
}
