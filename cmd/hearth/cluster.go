package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/secret"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/ring"
	"github.com/hearth-metrics/hearth/ring/gossip"
	"github.com/hearth-metrics/hearth/ring/static"
)

// clusterFlags say who else there is: by gossip, by a Thanos hashring file, or nobody.
type clusterFlags struct {
	opts       gossip.Options
	instanceID string
	rf         int
	hashrings  content
	static     static.Options
}

func (f *clusterFlags) bind(c *kingpin.CmdClause) {
	f.opts = gossip.DefaultOptions()
	bind := f.opts.BindAddress
	f.opts.BindAddress = ""
	c.Flag("gossip.address", "host:port (TCP) to gossip on. Any --gossip flag turns gossip on; the address then "+
		"defaults to "+bind+".").SetValue(address{&f.opts.BindAddress})
	c.Flag("gossip.advertise-address", "host[:port] at which others reach --gossip.address. Default: an address of "+
		"this machine.").StringVar(&f.opts.AdvertiseAddress)
	c.Flag("gossip.join", "host:port of a member to join; also dns+name:port. May be given several times, and name "+
		"this process too.").SetValue(addressList{&f.opts.Join, gossip.ValidJoin})
	c.Flag("gossip.instance-id", "Name of this process, unique in the cluster. Default: what its data directory says, "+
		"else host name and 4 random characters.").StringVar(&f.instanceID)
	c.Flag("gossip.cluster-label", "Name of the cluster: processes with another one ignore each other.").
		Default(f.opts.ClusterLabel).StringVar(&f.opts.ClusterLabel)
	c.Flag("ring.zone", "Availability zone of this process: copies go to different zones.").StringVar(&f.opts.Zone)
	tls := &f.opts.TLS
	c.Flag("gossip.tls-enabled", "Use TLS for gossip. All members must.").BoolVar(&tls.Enabled)
	c.Flag("gossip.tls-cert", "PEM certificate of this member, for its gossip address.").
		PlaceHolder("FILE").StringVar(&tls.CertFile)
	c.Flag("gossip.tls-key", "PEM key of that certificate.").PlaceHolder("FILE").StringVar(&tls.KeyFile)
	c.Flag("gossip.tls-ca", "PEM authorities that must have signed other members' certificates; default the system's.").
		PlaceHolder("FILE").StringVar(&tls.CAFile)
	c.Flag("gossip.tls-server-name", "Name that other members' certificates must carry; default the IP they gossip at.").
		StringVar(&tls.ServerName)
	c.Flag("gossip.tls-skip-verify", "Accept any certificate of other members.").BoolVar(&tls.SkipVerify)
	durationFlag(c, "ring.forget-after", "A member that was not heard from for this long loses its place, and its "+
		"series move.", &f.opts.ForgetAfter)
	c.Flag("disable-admin-operations", "Refuse POST /api/v1/admin/*, /ring/drain and /ring/forget.").
		BoolVar(&f.opts.RefuseForget)
}

// refuseAdmin reports whether requests of operators that change data or members are refused.
func (f *clusterFlags) refuseAdmin() bool { return f.opts.RefuseForget }

// bindWriting adds the flags of processes that place series.
func (f *clusterFlags) bindWriting(c *kingpin.CmdClause) {
	c.Flag("receive.replication-factor", "Copies of each series, on different members. A write is acknowledged when "+
		"more than half of them are stored.").Default("1").SetValue(whole[int]{&f.rf})
	f.hashrings.bind(c, "receive.hashrings", "Thanos hashring configuration as JSON: members are those it names, "+
		"instead of gossip's.")
	f.static = static.DefaultOptions()
	c.Flag("receive.hashrings-algorithm", "How hashrings that name no algorithm place series: hashmod or ketama.").
		Default("hashmod").EnumVar(&f.static.Algorithm, "hashmod", "ketama")
	durationFlag(c, "receive.hashrings-file-refresh-interval", "How often the hashring file is read again, besides "+
		"when it changes.", &f.static.RefreshInterval)
}

// gossips reports whether the flags ask for gossip.
func (f *clusterFlags) gossips() bool {
	return f.opts.BindAddress != "" || f.opts.AdvertiseAddress != "" || len(f.opts.Join) > 0
}

// alone reports whether the flags name no other members.
func (f *clusterFlags) alone() bool { return !f.gossips() && !f.hashrings.given() }

// goAlone sets the replication factor to 1 where neither a hashring nor gossip names other members. As in Thanos, the
// process that routes to this receiver then makes the copies.
func (f *clusterFlags) goAlone(log *slog.Logger) {
	if !f.alone() || f.rf < 2 {
		return
	}
	log.Warn("flag has no effect", "flag", "--receive.replication-factor",
		"reason", "neither --receive.hashrings-file nor --gossip.join names other members: what comes here is stored "+
			"here, once")
	f.rf = 1
}

// cluster is this process's view of itself and of the others.
type cluster struct {
	instance gossip.Instance
	rf       int
	gossips  bool
	gossip   *gossip.Gossip  // made when it opens; nil without gossip
	static   *static.Watcher // nil without a hashring file
	self     ring.Member
	single   ring.Placement // of a process that is alone
}

// identify finds out who this process is. dir keeps the identity; "" = the process has no data. The identity is read
// and written before the parts open, since they are made with it.
func (f *clusterFlags) identify(b *builder, dir string) *cluster {
	b.check(f.validate(dir != ""))
	c := &cluster{rf: max(f.rf, 1), gossips: f.gossips()}
	var err error
	if dir == "" {
		c.instance, err = gossip.NewInstance(f.instanceID)
	} else if c.instance, err = gossip.LoadInstance(dir, f.instanceID); err != nil {
		err = fmt.Errorf("data directory %s: %w", dir, err)
	}
	b.check(err)
	c.self = ring.Member{ID: c.instance.ID, Zone: f.opts.Zone}
	c.single = &ring.Single{Self: c.self}
	return c
}

// validate is the error of flags with which a process cannot write: copies need other members to keep them, and a
// process without data of its own must know a member that has some.
func (f *clusterFlags) validate(hasData bool) error {
	const rings = "--gossip.join or --receive.hashrings-file"
	writes, alone := f.hashrings.name != "", f.alone()
	switch {
	case !writes:
		return nil
	case f.rf < 1:
		return fmt.Errorf("--receive.replication-factor %d: must be at least 1", f.rf)
	case alone && !hasData:
		return fmt.Errorf("%s is needed: there is nobody to route to", rings)
	case alone && f.rf > 1:
		return fmt.Errorf("--receive.replication-factor %d needs other members: %s names them", f.rf, rings)
	}
	return nil
}

// registration is what a process tells the cluster of itself.
type registration struct {
	rings         []string                   // of which it is a member
	localEndpoint string                     // address by which a hashring file names it, "" = no file does
	grpc, http    string                     // addresses to advertise
	bucket        *bucket                    // nil = it uses none
	contents      func() series.Contents     // of a gateway's bucket without an id; nil = there is no gateway
	quarantined   func() []gossip.Quarantine // tenants whose data it cannot open; nil without data
	retention     time.Duration              // how long members that left matter to queries; 0 = gossip's default
	// sharding says on how many members each tenant is; nil = this process neither places series nor asks for them.
	sharding ring.Sharding
}

// join adds the source of the ring: gossip, a hashring file, or nothing.
func (f *clusterFlags) join(b *builder, c *cluster, r registration) {
	if f.hashrings.file != "" && f.hashrings.text.Reveal() != "" { // as in Thanos
		b.log.Warn("flag has no effect", "flag", "--receive.hashrings", "reason", "--receive.hashrings-file is given")
		f.hashrings.text = secret.Text{}
	}
	if f.hashrings.given() {
		f.static.File, f.static.Content = f.hashrings.file, []byte(f.hashrings.text.Reveal())
		f.static.Local, f.static.ReplicationFactor = r.localEndpoint, c.rf
		var err error
		c.static, err = static.Watch(b.log, b.reg, f.static)
		b.check(err)
		b.addPart("hashrings", c.static.Open, c.static.Close, nil)
		b.health.AddAdvice("local endpoint", c.static.Listed)
		b.onReload("hashrings file", c.static.Reload, c.static.Fault)
	}
	if !c.gossips {
		return
	}
	b.addPort(port{flag: "--gossip.address", guard: httpx.Guard{Encrypts: f.opts.TLS.Enabled},
		encryptedBy: "--gossip.tls-enabled"})
	b.addPart("gossip", func(ctx context.Context, fail func(error)) (err error) {
		opts := f.opts
		if opts.BindAddress == "" {
			opts.BindAddress = gossip.DefaultOptions().BindAddress
		}
		opts.Instance, opts.Roles, opts.GRPCAddress, opts.HTTPAddress = c.instance, r.rings, r.grpc, r.http
		opts.ReplicationFactor, opts.Sharding = f.rf, r.sharding
		opts.Quarantined = r.quarantined
		if r.bucket != nil {
			opts.BucketID = r.bucket.which
		}
		if r.contents != nil {
			opts.Contents = func() string { return r.contents().String() }
		}
		if r.retention > 0 {
			opts.HistoryRetention = r.retention
		}
		if c.gossip, err = gossip.New(b.log, b.reg, opts); err != nil {
			return err
		}
		err = c.gossip.Open(ctx, fail)
		if err != nil && errs.KindOf(err) != errs.Conflict { // a conflict is with a member, whatever the address
			return fmt.Errorf("--gossip.address %s: %w", opts.BindAddress, err)
		}
		return err
	}, func() error { return c.gossip.Close() }, func() error { return c.gossip.Ready() })
}

// placement is where series go at the moment.
func (c *cluster) placement() ring.Placement {
	switch {
	case c.static != nil:
		return c.static.Placement()
	case c.gossip != nil:
		return c.gossip.Placement()
	}
	return c.single
}

// ready is the error that says why no series can be placed.
func (c *cluster) ready() error {
	if c.static != nil {
		return c.static.Ready()
	}
	if len(c.placement().Members()) == 0 {
		return fmt.Errorf("the ring has no members")
	}
	return nil
}

// members are the members that gossip knows to have a role; none without gossip.
func (c *cluster) members(role string) []ring.Status {
	if c.gossip == nil {
		return nil
	}
	return c.gossip.Members(role)
}

// membership is what a querier needs to judge whether answers of a tenant are complete.
func (c *cluster) membership(id tenant.ID) query.Membership {
	if c.gossip == nil {
		return query.Membership{}
	}
	shards := c.gossip.Shards(id)
	return query.Membership{
		ReplicationFactor: c.gossip.JudgedFactor(), History: c.gossip.History(), Bucket: c.gossip.Bucket(),
		Shard: query.Shard{Tenant: id, Size: shards.Size, Since: shards.Since},
	}
}

// routes are the pages of the ring, where processes gossip.
func (c *cluster) routes() []httpx.Route {
	if !c.gossips {
		return nil
	}
	route := func(path string, f func(*gossip.Gossip, http.ResponseWriter, *http.Request)) httpx.Route {
		return httpx.Route{Pattern: path, Class: httpx.Operator, Handler: httpx.HandlerFunc(func(w http.ResponseWriter,
			r *http.Request) {
			f(c.gossip, w, r)
		})}
	}
	return []httpx.Route{
		route("/ring", (*gossip.Gossip).HandleRing),
		route("/ring/forget", (*gossip.Gossip).HandleForget),
		route("/memberlist", (*gossip.Gossip).HandleMemberlist),
	}
}
