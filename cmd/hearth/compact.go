package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/block/viewer"
	"github.com/hearth-metrics/hearth/compact"
	"github.com/hearth-metrics/hearth/compact/tenants"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// compactorFlags are the flags of a compactor, as the all-in-one has them, too.
type compactorFlags struct {
	opts         compact.Options
	memory       byteSize
	maxIndex     byteSize
	noDownsample bool
	replicas     []string
	function     string
	uploads      uploadFlags
}

func (f *compactorFlags) bind(c *kingpin.CmdClause) {
	f.opts = compact.DefaultOptions()
	f.memory, f.maxIndex = byteSize(f.opts.Jobs.Memory), byteSize(f.opts.Jobs.MaxIndexSize)
	keep := &f.opts.Retention.Default
	durationFlag(c, "retention.resolution-raw", "How long raw samples stay in the bucket; 0s = for ever.", &keep.Raw)
	durationFlag(c, "retention.resolution-5m", "How long samples of 5m stay in the bucket; 0s = for ever.",
		&keep.FiveMinutes)
	durationFlag(c, "retention.resolution-1h", "How long samples of 1h stay in the bucket; 0s = for ever.", &keep.OneHour)
	durationFlag(c, "compact.retention-wait", "How long a retention that became shorter must stay so until it takes "+
		"effect. The log says at once what it will take.", &f.opts.Retention.Wait)
	durationFlag(c, "delete-delay", "How long a block stays in the bucket after it was marked for deletion. Store "+
		"gateways need some of that time to see what replaces it.", &f.opts.DeleteDelay)
	durationFlag(c, "wait-interval", "How often the bucket is looked at for work, where the process goes on.",
		&f.opts.Interval)
	durationFlag(c, "compact.cleanup-interval", "How often what was marked is deleted, and retention is looked at.",
		&f.opts.CleanInterval)
	durationFlag(c, "compact.progress-interval", "How often it is counted what is left to be done (the metrics "+
		"thanos_compact_todo_*); 0s = never.", &f.opts.ProgressInterval)
	c.Flag("compact.concurrency", "Jobs that run at once.").Default(fmt.Sprint(f.opts.Jobs.Concurrency)).
		SetValue(whole[int]{&f.opts.Jobs.Concurrency})
	c.Flag("compact.memory", "Memory that one job may use for what it merges, such as 256MB.").
		Default(f.memory.String()).SetValue(&f.memory)
	c.Flag("downsampling.disable", "Make no blocks of 5m and 1h.").BoolVar(&f.noDownsample)
	c.Flag("deduplication.replica-label", "External label that tells HA pairs apart: blocks that differ in nothing else "+
		"become one, without it. May be given several times, or name several with commas. Copies of one ring need none of "+
		"this: they are always united.").PlaceHolder("LABEL").StringsVar(&f.replicas)
	c.Flag("deduplication.func", "How the samples of HA pairs are merged: penalty takes one replica as a querier does, "+
		"block by block; without it all samples stay.").Default("").EnumVar(&f.function, "", "penalty")
	c.Flag("compact.block-max-index-size", "Size that the index of a block may have; what would be larger becomes "+
		"several blocks, by series.").Default(f.maxIndex.String()).Hidden().SetValue(&f.maxIndex)
	c.Flag("debug.max-compaction-level", "The largest range of a block: 1 = 2h, 2 = 8h, 3 = 2d, 4 = 14d.").Hidden().
		Default(fmt.Sprint(f.opts.Jobs.MaxLevel)).IntVar(&f.opts.Jobs.MaxLevel)
	f.uploads.bind(c)
}

// compactorUse is what a compactor works with.
type compactorUse struct {
	cluster *cluster
	bucket  *bucket
	dir     string // of its local files
	limits  *tenantLimits
}

// build makes a compactor. The role adds it.
func (f *compactorFlags) build(b *builder, use compactorUse, shared sharedFlags) *compact.Compactor {
	o := &f.opts
	o.Dir, o.Instance = use.dir, use.cluster.instance.ID
	o.TenantLabel, o.ReplicaLabel = shared.tenantLabel, shared.replicaLabel
	o.BucketID = use.bucket.which
	o.Jobs.Memory, o.Jobs.MaxIndexSize, o.Jobs.Downsample = int64(f.memory), int64(f.maxIndex), !f.noDownsample
	o.Jobs.Penalty = f.function == "penalty"
	for _, text := range f.replicas {
		for _, name := range strings.Split(text, ",") {
			if name = strings.TrimSpace(name); name != "" {
				o.Jobs.ReplicaLabels = append(o.Jobs.ReplicaLabels, name)
			}
		}
	}
	o.Retention.Configured = func() (compact.Configured, error) {
		return tenantPeriods(o.Retention.Default, use.limits)
	}
	if use.cluster.gossips {
		o.Owns = use.cluster.ownsWork
	}
	c, err := compact.New(b.log, b.reg, use.bucket, *o)
	b.check(err)
	b.health.AddAdvice("look at the bucket", c.Ready) // beside the part itself, which is ready once it is open
	return c
}

// beside adds a compactor to a process that has other work, if it is to compact, and returns its routes.
func (f *compactorFlags) beside(b *builder, on bool, use compactorUse, shared sharedFlags) []httpx.Route {
	if !on {
		if f.uploads.on {
			b.check(errors.New("--compact.block-upload needs a process that compacts: set --compact.run=on"))
		}
		return nil
	}
	c := f.build(b, use, shared)
	b.addPart("compact", c.Open, c.Close, nil)
	operators := tenants.New(b.log, use.bucket, c, f.opts.Refuse, nil)
	return slices.Concat(c.Routes(), operators.Routes(), f.uploads.build(b, use.bucket, shared, use.dir, f.opts.Refuse))
}

// tenantPeriods is how long blocks of tenants are kept in the bucket, by the runtime configuration. base are the
// periods of the flags. The error says that the files are not valid at present.
func tenantPeriods(base compact.Periods, limits *tenantLimits) (compact.Configured, error) {
	table, status := limits.Table(), limits.Status()
	of := func(l *tenant.Limits) compact.TenantPeriods {
		out := compact.TenantPeriods{Periods: withPeriods(base, l.BucketRetentionRaw, l.BucketRetention5m,
			l.BucketRetention1h)}
		for _, r := range l.BucketRetentionRules {
			out.Rules = append(out.Rules, compact.PeriodRule{Match: r.Match,
				Periods: withPeriods(out.Periods, r.Raw, r.FiveMinutes, r.OneHour)})
		}
		return out
	}
	out := compact.Configured{Others: of(table.Defaults), Tenants: map[string]compact.TenantPeriods{}}
	for id, l := range table.Tenants {
		if own := of(l); !reflect.DeepEqual(own, out.Others) {
			out.Tenants[string(id)] = own
		}
	}
	return out, status.Err
}

// withPeriods is p with the periods that are set.
func withPeriods(p compact.Periods, raw, fiveMinutes, oneHour model.Duration) compact.Periods {
	for _, one := range []struct {
		to   *time.Duration
		says model.Duration
	}{{&p.Raw, raw}, {&p.FiveMinutes, fiveMinutes}, {&p.OneHour, oneHour}} {
		if one.says != 0 {
			*one.to = time.Duration(one.says)
		}
	}
	return p
}

// ownsWork reports whether this process is the compactor that does the work that key names. While gossip does not know
// the cluster yet nobody does it; it costs only time if two do.
func (c *cluster) ownsWork(key []byte) bool {
	if c.gossip == nil || c.gossip.Ready() != nil {
		return false
	}
	var live []ring.Member
	for _, m := range c.members(series.RoleCompact) {
		if m.State == ring.Active {
			live = append(live, ring.Member{ID: m.ID, Zone: m.Zone})
		}
	}
	owners := ring.Owners(live, key, 1)
	return len(owners) == 0 || live[owners[0]].ID == c.self.ID
}

func compactCommand() command {
	return command{
		name: series.RoleCompact,
		help: "Merge the blocks of a bucket, downsample them, and delete what retention no longer keeps. Any number of " +
			"them may work on one bucket.",
		first: []string{"objstore.config-file", "data-dir", "wait", "retention.resolution-raw", "retention.resolution-5m",
			"retention.resolution-1h"},
		idle: idleTable{never: compactIdle},
		bind: bindCompact,
	}
}

func bindCompact(c *kingpin.CmdClause) func(*builder) {
	var (
		shared    = defaultShared()
		http      httpFlags
		where     clusterFlags
		limited   limitFlags
		bkt       bucketFlags
		compactor compactorFlags
		chosen    selectionFlags
		page      blocksPageFlags
		noCORS    bool
		hash      string
		wait      bool
		dir       string
	)
	http.bind(c)
	where.bind(c)
	limited.bindOwn(c)
	bkt.bind(c, "there is nothing to compact")
	c.Flag("data-dir", "Directory for what jobs need on local disk. What is lost there is made again.").
		Default("./data").StringVar(&dir)
	c.Flag("wait", "Go on until stopped. Without it the process does all that there is to do, and ends.").Short('w').
		BoolVar(&wait)
	compactor.bind(c)
	chosen.consistency = compactor.opts.ConsistencyDelay
	chosen.bind(c, "Compact")
	c.Flag("block-files-concurrency", "Files of a block that are sent to the bucket at a time.").
		Default(fmt.Sprint(compactor.opts.Jobs.BlockFiles)).SetValue(whole[int]{&compactor.opts.Jobs.BlockFiles})
	c.Flag("hash-func", "SHA256 puts the checksums of a block's files into its meta.json.").
		Default("").EnumVar(&hash, "", "SHA256")
	page.bind(c)
	c.Flag("web.disable-cors", "Do not let pages of other servers read the list of blocks.").BoolVar(&noCORS)
	shared.bindLabels(c)
	return func(b *builder) {
		cl := where.identify(b, dir)
		users := http.users(b)
		server := http.build(b, users)
		bucket, shared := bkt.build(b, bucketUse{cluster: where.opts.ClusterLabel, clustered: cl.gossips, writes: true,
			refuse: compact.CheckLayout}, shared)
		if bucket == nil {
			b.check(errors.New("--objstore.config or --objstore.config-file is needed: there is nothing to compact without a " +
				"bucket"))
		}
		lockDirectory(b, dir)
		limits := limited.build(b, cl, tenant.DefaultLimits(), "")
		o := &compactor.opts
		o.ConsistencyDelay, o.Window, o.Relabel = chosen.consistency, chosen.window(b), chosen.relabels(b)
		o.Jobs.Hash, o.Refuse = hash != "", where.refuseAdmin()
		blocks := compactor.build(b, compactorUse{cl, bucket, filepath.Join(dir, "compact"), limits}, shared)
		where.join(b, cl, registration{rings: []string{series.RoleCompact}, grpc: http.opts.Address,
			http: http.opts.Address, bucket: bucket}) // it has no gRPC port, and nobody calls it
		var taken []httpx.Route
		if wait {
			b.addPart("compact", blocks.Open, blocks.Close, nil)
			taken = compactor.uploads.build(b, bucket, shared, filepath.Join(dir, "compact"), o.Refuse)
		} else {
			if compactor.uploads.on {
				b.check(errors.New("--compact.block-upload needs --wait: a process that ends takes no blocks"))
			}
			b.add("compact", func(context.Context, func(error)) error { return nil }, blocks.Close)
			b.runTool(blocks.Once)
		}
		server.Add(slices.Concat(
			b.ownRoutes(),
			httpx.StatusRoutes(b.status("", limits.lastRead)),
			limits.routes(),
			cl.routes(),
			blocks.Routes(),
			tenants.New(b.log, bucket, blocks, where.refuseAdmin(), nil).Routes(),
			taken,
			page.pageAndRoutes(viewer.Options{Source: compactorState(blocks), Bucket: bucket, Marks: bucket,
				Refuse: where.refuseAdmin(), CORS: !noCORS}),
		)...)
	}
}
