package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/ring"
	"github.com/hearth-metrics/hearth/rule"
	"github.com/hearth-metrics/hearth/rule/definition"
	ruleapi "github.com/hearth-metrics/hearth/rule/definition/api"
	"github.com/hearth-metrics/hearth/rule/definition/files"
	ruleobjects "github.com/hearth-metrics/hearth/rule/definition/objects"
	"github.com/hearth-metrics/hearth/rule/notify"
	"github.com/hearth-metrics/hearth/rule/targets"
)

// rulerFlags are the flags of a ruler, as the all-in-one has them, too.
type rulerFlags struct {
	opts      rule.Options
	patterns  []string
	tenantDir string
	bucket    ruleobjects.Options
	alerts    alertFlags
	ruler     *rule.Ruler   // set by build
	config    []httpx.Route // by which tenants change rules; set by build, none without a bucket
}

// state are the rules that run. It may be asked once the process serves.
func (f *rulerFlags) state() rulestate.Source {
	return rulestate.Local(func() []rulestate.Group { return f.ruler.Snapshot() })
}

// bind adds the flags. patterns are the files of rules where none are named.
func (f *rulerFlags) bind(c *kingpin.CmdClause, patterns ...string) {
	f.opts = rule.DefaultOptions()
	c.Flag("rule-file", "Files of recording and alerting rules of the default tenant, with * in their names, or a "+
		"directory. Read again when they change, at SIGHUP and at POST /-/reload. May be given several times.").
		Default(patterns...).StringsVar(&f.patterns)
	c.Flag("rule.tenant-dir", "Directory with a directory of rule files for each tenant, named like the tenant.").
		PlaceHolder("DIR").StringVar(&f.tenantDir)
	f.bucket.Interval = 30 * time.Second
	durationFlag(c, "rule.bucket-interval", "How often the bucket is looked at for rules that tenants have changed by "+
		"the API of another process.", &f.bucket.Interval)
	durationFlag(c, "eval-interval", "How often groups of rules are evaluated that say nothing.", &f.opts.Interval)
	durationFlag(c, "rule-query-offset", "How far in the past rules are evaluated whose groups say nothing, so that "+
		"late samples count.", &f.opts.QueryOffset)
	c.Flag("rule-concurrent-evaluation", "Rules of one group that may be evaluated at a time, where none reads what "+
		"another one writes; shared by all groups. Groups do not wait for each other.").
		Default(strconv.Itoa(f.opts.Concurrency)).SetValue(whole[int]{&f.opts.Concurrency})
	durationFlag(c, "for-outage-tolerance", "How long a ruler may have been away for its alerts to go on.",
		&f.opts.OutageTolerance)
	durationFlag(c, "for-grace-period", "How long an alert that waited when the ruler went away waits at least after it "+
		"came back, if it has to be looked for in stored series.", &f.opts.ForGracePeriod)
	c.Flag("restore-ignored-label", "Label that stored series of alerts have and alerts lack, such as that of a replica. "+
		"May be given several times.").StringsVar(&f.opts.RestoreIgnored)
	durationFlag(c, "rule.wait-complete", "How long a slot waits at most for samples that may still come, by the "+
		"tenant's out_of_order_window. It waits no longer than its interval, and not at all if that is not enough; 0s = "+
		"it never waits.", &f.opts.WaitComplete)
	durationFlag(c, "rule.catch-up", "How far back slots of a group are evaluated that nobody evaluated when a ruler of "+
		"several had died, at their own times.", &f.opts.CatchUp)
	durationFlag(c, "resend-delay", "How often a firing alert is sent again, at most.", &f.opts.ResendDelay)
	f.alerts.bind(c)
}

// alertFlags say where alerts go.
type alertFlags struct {
	opts    notify.Options
	urls    []string
	timeout time.Duration
	config  content
	relabel content
}

func (f *alertFlags) bind(c *kingpin.CmdClause) {
	f.opts, f.timeout = notify.DefaultOptions(), 10*time.Second
	c.Flag("alertmanagers.url", "URL of an Alertmanager, such as http://host:9093; all of them get every alert. "+
		"dns+http://name:port stands for all addresses of the name. May be given several times.").
		PlaceHolder("URL").SetValue(addressList{&f.urls, anyURL})
	f.config.bind(c, "alertmanagers.config", "Alertmanagers as Thanos's YAML (alertmanagers: [{static_configs, "+
		"file_sd_configs, http_config, scheme, path_prefix, timeout}]), instead of --alertmanagers.url.")
	durationFlag(c, "alertmanagers.send-timeout", "Bound on one request to an Alertmanager of --alertmanagers.url.",
		&f.timeout)
	durationFlag(c, "alertmanagers.sd-dns-interval", "How often names and files of Alertmanagers are looked up.",
		&f.opts.Interval)
	c.Flag("alert.query-url", "URL of the page for queries, for links from alerts.").
		PlaceHolder("URL").StringVar(&f.opts.QueryURL)
	c.Flag("alert.query-template", "What follows it in links; {{.Expr}} is the expression.").
		Default(f.opts.QueryTemplate).StringVar(&f.opts.QueryTemplate)
	c.Flag("alert.label-drop", "Label that is taken off alerts before they are sent, such as that of a replica. May be "+
		"given several times.").StringsVar(&f.opts.Drop)
	f.relabel.bind(c, "alert.relabel-config", "Prometheus relabelling rules for alerts, as a list in YAML.")
	c.Flag("alert.tenant-label", "Label that names the tenant of an alert, unless it is the default one; empty = none.").
		Default(f.opts.TenantLabel).StringVar(&f.opts.TenantLabel)
	c.Flag("alert.tenant-header", "Header that names the tenant in requests to Alertmanagers, such as X-Scope-OrgID for "+
		"Mimir's. A request then has alerts of one tenant.").StringVar(&f.opts.TenantHeader)
}

// build adds the sender of alerts. external are the labels that all alerts get.
func (f *alertFlags) build(b *builder, external labels.Labels) *notify.Sender {
	text, err := f.config.read()
	b.check(err)
	if len(text) > 0 && len(f.urls) > 0 {
		b.check(errors.New("--alertmanagers.url and --alertmanagers.config are both given: use one"))
	}
	f.opts.Alertmanagers, err = targets.Parse(f.config.where(), "alertmanagers", text)
	b.check(err)
	warnUnused(b, f.config.where(), f.opts.Alertmanagers, false)
	for _, u := range f.urls {
		c, err := targets.OfURL(u, defaultAlertmanagerPort, f.timeout)
		if err != nil {
			b.check(fmt.Errorf("--alertmanagers.url: %w", err))
		}
		f.opts.Alertmanagers = append(f.opts.Alertmanagers, c)
	}
	text, err = f.relabel.read()
	b.check(err)
	f.opts.Relabel, err = parseRelabel(f.relabel.where(), text)
	b.check(err)
	f.opts.External = external
	s, err := notify.New(b.log, b.reg, f.opts)
	b.check(err)
	b.addPart("alerts", s.Open, s.Close, nil)
	b.health.AddAdvice("alertmanagers", s.Ready)
	return s
}

const defaultAlertmanagerPort = 9093

// warnUnused logs which settings of a YAML have no effect, and why.
func warnUnused(b *builder, where string, configs []targets.Config, queriers bool) {
	for _, u := range targets.UnusedBy(configs, queriers) {
		b.log.Warn("setting has no effect", "in", where, "setting", u.Name, "reason", u.Reason)
	}
}

// rulerUse is what a ruler works with.
type rulerUse struct {
	querier  rule.Querier
	storage  rule.Storage
	limits   *tenantLimits
	external labels.Labels // of all alerts, and for templates
	dir      string        // below which the state of alerts is
	shared   sharedFlags
	bucket   *bucket               // of the rules that tenants change by API; nil = there is no such API
	tenants  tenant.Resolver       // of requests of that API
	refusal  func(tenant.ID) error // why a tenant has no rules that run; nil = the bucket is asked, if there is one
	cluster  *cluster              // whose rulers share the groups
	clients  *clients              // of other members; nil = this ruler shares nothing
	services *rpc.Server           // by which other rulers ask this one
}

// sharing is how rulers of a cluster divide the groups; nil = this one is alone.
func (use rulerUse) sharing() *rule.Sharing {
	c := use.cluster
	if use.clients == nil || !c.gossips {
		return nil
	}
	return &rule.Sharing{
		Self: rule.Member{ID: c.self.ID, Zone: c.self.Zone}, Owners: rulerOwners,
		Peers: func() (all []rule.Peer, settled bool) {
			for _, m := range c.members(series.RoleRule) {
				if m.ID == c.self.ID || m.State == ring.Down {
					continue
				}
				client, err := use.clients.get(m.Addr, "")
				if err != nil { // wrong TLS files, which keep a process from starting
					continue
				}
				all = append(all, rule.Peer{Member: rule.Member{ID: m.ID, Zone: m.Zone},
					Keeper: rpc.RulerClient{Client: client}})
			}
			return all, c.gossip != nil && c.gossip.Ready() == nil
		},
	}
}

// rulerOwners is how all rulers divide groups of rules.
func rulerOwners(of []rule.Member) func(key []byte, n int) []int32 {
	members := make([]ring.Member, len(of))
	for i, m := range of {
		members[i] = ring.Member{ID: m.ID, Zone: m.Zone}
	}
	return func(key []byte, n int) []int32 { return ring.Owners(members, key, n) }
}

// build adds a ruler, which opens after all that it uses.
func (f *rulerFlags) build(b *builder, use rulerUse) {
	sender := f.alerts.build(b, use.external)
	f.opts.StateDir, f.opts.ExternalLabels = filepath.Join(use.dir, "rules"), use.external
	f.opts.Limits = use.limits.Of
	id, err := tenant.Parse(use.shared.defaultTenant)
	b.check(err)
	if f.opts.ExternalURL, err = url.Parse(f.alerts.opts.QueryURL); err != nil {
		b.check(fmt.Errorf("--alert.query-url: %w", err))
	}
	if use.refusal == nil && use.bucket != nil {
		w := deletion.NewWatcher(b.log.With("component", "rule"), use.bucket, deletionsInterval)
		b.addPart("deleted tenants", w.Open, w.Close, nil)
		use.refusal = w.Refusal
	}
	f.opts.Refusal, f.opts.Sharing = use.refusal, use.sharing()
	source := f.source(b, use, id)
	r, err := rule.New(b.log.With("component", "rule"), b.reg, rule.Parts{Source: source, Querier: use.querier,
		Storage: use.storage, Notify: sender.Notify}, f.opts)
	b.check(err)
	if f.opts.Sharing != nil {
		rpc.RegisterRulers(use.services, r)
	}
	b.addPart("rules", r.Open, r.Close, nil)
	b.onReload("groups of rules", func() error { return r.Reload(context.Background()) }, r.Ready)
	f.ruler = r
}

// deletionsInterval is how often the bucket is asked which tenants are deleted.
const deletionsInterval = 30 * time.Second

// source adds what gives the groups of rules. id is whose rules those of --rule-file are.
func (f *rulerFlags) source(b *builder, use rulerUse, id tenant.ID) definition.Source {
	s := files.New(b.log, files.Options{Patterns: f.patterns, Tenant: id,
		TenantDir: f.tenantDir, Limits: use.limits.Of, Interval: ruleFilesInterval})
	b.addPart("rule files", s.Open, s.Close, nil)
	b.reloads = append(b.reloads, func() error {
		_ = s.Reload() // whose faults are among those of the groups, which are read next
		return nil
	})
	if use.bucket == nil {
		return s
	}
	stored := ruleobjects.New(b.log, use.bucket, f.bucket)
	b.addPart("rule bucket", stored.Open, stored.Close, nil)
	f.config = ruleapi.New(b.log, stored, ruleapi.Options{Tenant: use.tenants, Limits: use.limits.Of,
		Refusal: use.refusal}).Routes()
	all := definition.NewUnion(s, stored)
	b.addPart("rule sources", all.Open, all.Close, nil)
	return all
}

// ruleFilesInterval is how often files of rules are read, besides when they change.
const ruleFilesInterval = time.Minute

// pushed is a rule.Push to a distributor. The results stay the tenant's own.
func pushed(d *distributor.Distributor) rule.Push {
	return func(ctx context.Context, b *wire.Batch) ([]wire.Failure, error) {
		result, err := d.Push(distributor.Unsplit(ctx), b)
		return result.Failures, err
	}
}

// localQuerier asks the querier of this process.
type localQuerier struct{ *query.Querier }

// Query implements rule.Querier.
func (l localQuerier) Query(ctx context.Context, q rule.Query) (rule.Answer, error) {
	v, missing, err := l.Instant(ctx, query.Instant(q))
	return rule.Answer{Vector: v, Missing: missing}, err
}

// rulesOfRing are the rules of this ruler, and of those that it shares groups with.
type rulesOfRing struct {
	own     rulestate.Source
	cluster *cluster
	clients *clients // nil = it shares nothing
}

// othersPatience is how long the rules of other rulers are waited for.
const othersPatience = 10 * time.Second

// Rules implements rulestate.Source. A ruler that does not answer is a warning.
func (s rulesOfRing) Rules(ctx context.Context, id tenant.ID, q rulestate.Query) ([]rulestate.Group, []string, error) {
	groups, warnings, err := s.own.Rules(ctx, id, q)
	if err != nil || s.clients == nil {
		return groups, warnings, err
	}
	ctx, cancel := context.WithTimeout(ctx, othersPatience)
	defer cancel()
	lists := [][]rulestate.Group{groups}
	var mu sync.Mutex // guards lists and warnings
	var asking sync.WaitGroup
	for _, m := range s.cluster.rulers() {
		client, err := s.clients.get(m.Addr, "")
		if err != nil { // wrong TLS files, which keep a process from starting
			continue
		}
		asking.Go(func() {
			groups, said, err := client.Rules(ctx, id, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				said = []string{fmt.Sprintf("rules of %s: %v", m.Instance, err)}
			}
			lists, warnings = append(lists, groups), append(warnings, said...)
		})
	}
	asking.Wait()
	slices.Sort(warnings)
	return rulestate.Merge(nil, lists...), warnings, nil
}

// ruleRoutes are the API of rules and alerts, on the paths of Prometheus and Thanos, and of Mimir.
func ruleRoutes(of rulestate.Source, resolver tenant.Resolver, label string) (routes []httpx.Route) {
	handler := func(answer func(http.ResponseWriter, *http.Request, rulestate.View)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ids, err := resolver.Read(r)
			for _, id := range ids {
				httpx.NoteTenant(r.Context(), string(id))
			}
			if err != nil {
				promapi.WriteError(w, err)
				return
			}
			answer(w, r, rulestate.View{Source: of, Tenants: ids, TenantLabel: label})
		})
	}
	for _, prefix := range []string{"/api/v1", "/prometheus/api/v1"} {
		routes = append(routes,
			httpx.Route{Pattern: prefix + "/rules", Class: httpx.Tenant, Handler: handler(rulestate.HandleRules)},
			httpx.Route{Pattern: prefix + "/alerts", Class: httpx.Tenant, Handler: handler(rulestate.HandleAlerts)})
	}
	return routes
}

// anyURL accepts what may be a URL. Whoever uses it says what is wrong with it.
func anyURL(string) error { return nil }
