package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/notifier"
	"github.com/prometheus/prometheus/rules"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/targets"
)

// Options are the settings of a Sender. Start from DefaultOptions.
type Options struct {
	// Alertmanagers are those that get every alert; none = alerts are dropped, and seen in the API alone.
	Alertmanagers []targets.Config
	// Interval is how often names and files of Alertmanagers are looked up.
	Interval time.Duration
	// QueueCapacity is how many alerts may wait for one Alertmanager. Batch is how many go in one request.
	QueueCapacity, Batch int
	// Drop are labels that are taken off alerts. External are then added, except those in Drop. Relabel comes last.
	Drop     []string
	External labels.Labels
	Relabel  []*relabel.Config
	// QueryURL and QueryTemplate make the link of an alert to its expression: the URL, and then the template with
	// {{.Expr}}, which is escaped for a query string.
	QueryURL, QueryTemplate string
	// TenantLabel is set to the tenant in all alerts except the default tenant's, who may not set it; "" = it is not.
	// TenantHeader is set in requests, each of which then has alerts of one tenant; "" = it is not.
	TenantLabel, TenantHeader string
}

// DefaultOptions are Thanos's.
func DefaultOptions() Options {
	return Options{
		Interval: 30 * time.Second, QueueCapacity: 10_000, Batch: 100, TenantLabel: "tenant_id",
		QueryTemplate: "/graph?g0.expr={{.Expr}}&g0.tab=1",
	}
}

// Sender sends alerts. Its methods may be called by several goroutines.
type Sender struct {
	log     *slog.Logger
	opts    Options
	link    *template.Template
	config  *config.Config
	list    *targets.List
	metrics *metrics

	mu        sync.Mutex // guards what follows
	managers  map[tenant.ID]*manager
	addresses [][]string
	closed    bool
}

// manager is a notifier, of one tenant where requests name the tenant.
type manager struct {
	*notifier.Manager
	reg   *prometheus.Registry
	sets  chan map[string][]*targetgroup.Group
	ended chan struct{}
}

// New makes a Sender. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Sender, error) {
	link, err := template.New("link").Option("missingkey=error").Parse(opts.QueryTemplate)
	if err != nil {
		return nil, errs.E(errs.Invalid, "template of links: %w", err)
	}
	if opts.QueueCapacity < 1 || opts.Batch < 1 || opts.Interval <= 0 {
		return nil, errs.E(errs.Invalid, "notify: queue %d, batch %d and interval %s must be positive", opts.QueueCapacity,
			opts.Batch, opts.Interval)
	}
	s := &Sender{log: log, opts: opts, link: link, managers: map[tenant.ID]*manager{}}
	if _, err := s.linkTo("up"); err != nil {
		return nil, err
	}
	if s.config, err = notifierConfig(opts); err != nil {
		return nil, err
	}
	s.list = targets.NewList(log, opts.Alertmanagers, opts.Interval, s.found)
	s.list.Register(reg, "thanos_rule_alertmanagers_")
	s.metrics = newMetrics(reg, s)
	return s, nil
}

// notifierConfig is opts as the library reads it. A set of Alertmanagers is named by its place.
func notifierConfig(opts Options) (*config.Config, error) {
	c := config.DefaultConfig
	c.GlobalConfig.ExternalLabels = labels.NewBuilder(opts.External).Del(opts.Drop...).Labels()
	c.AlertingConfig.AlertRelabelConfigs = opts.Relabel
	for i, a := range opts.Alertmanagers {
		client, err := a.HTTP.Prometheus()
		if err != nil {
			return nil, errs.E(errs.Invalid, "alertmanager %d: %w", i+1, err)
		}
		if _, err := a.HTTP.Client("alertmanager"); err != nil {
			return nil, errs.E(errs.Invalid, "alertmanager %d: %w", i+1, err)
		}
		am := config.DefaultAlertmanagerConfig
		am.HTTPClientConfig, am.Scheme, am.PathPrefix, am.Timeout = client, a.Scheme, a.PathPrefix, a.Timeout
		if am.Timeout == 0 {
			am.Timeout = model.Duration(defaultTimeout)
		}
		c.AlertingConfig.AlertmanagerConfigs = append(c.AlertingConfig.AlertmanagerConfigs, &am)
	}
	return &c, nil
}

const defaultTimeout = 10 * time.Second

// Open looks the Alertmanagers up, and starts.
func (s *Sender) Open(ctx context.Context, fail func(error)) error {
	if s.opts.TenantHeader == "" {
		if _, err := s.manager(tenant.Default); err != nil {
			return err
		}
	}
	return s.list.Open(ctx, fail)
}

// Close sends what waits, as far as the Alertmanagers take it, and ends.
func (s *Sender) Close() error {
	err := s.list.Close()
	s.mu.Lock()
	s.closed = true
	managers := s.managers
	s.managers = map[tenant.ID]*manager{}
	s.mu.Unlock()
	for _, m := range managers {
		m.Stop()
	}
	for _, m := range managers {
		<-m.ended
	}
	return err
}

// found takes the addresses of Alertmanagers.
func (s *Sender) found(addresses [][]string) {
	s.mu.Lock()
	s.addresses = addresses
	managers := make([]*manager, 0, len(s.managers))
	for _, m := range s.managers {
		managers = append(managers, m)
	}
	s.mu.Unlock()
	for _, m := range managers {
		m.take(addresses)
	}
}

// take gives the notifier the addresses. It waits only for the notifier to take them.
func (m *manager) take(addresses [][]string) {
	sets := map[string][]*targetgroup.Group{}
	for i, of := range addresses {
		g := &targetgroup.Group{}
		for _, a := range of {
			g.Targets = append(g.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(a)})
		}
		sets[fmt.Sprint("config-", i)] = []*targetgroup.Group{g}
	}
	// The notifier reads the second one when it has taken the first: alerts that are sent from then on go to all of them.
	for _, next := range []map[string][]*targetgroup.Group{sets, nil} {
		select {
		case m.sets <- next:
		case <-m.ended:
		}
	}
}

// manager is the notifier for alerts of id. It is made when it is first needed.
func (s *Sender) manager(id tenant.ID) (*manager, error) {
	if s.opts.TenantHeader == "" {
		id = tenant.Default // one for all
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.managers[id]; m != nil {
		return m, nil
	}
	if s.closed {
		return nil, errs.E(errs.Unavailable, "notify: closed")
	}
	m := &manager{reg: prometheus.NewRegistry(), sets: make(chan map[string][]*targetgroup.Group),
		ended: make(chan struct{})}
	o := &notifier.Options{QueueCapacity: s.opts.QueueCapacity, MaxBatchSize: s.opts.Batch, DrainOnShutdown: true,
		Registerer: m.reg}
	if s.opts.TenantHeader != "" {
		o.Do = naming(s.opts.TenantHeader, id)
	}
	m.Manager = notifier.NewManager(o, model.UTF8Validation, s.log.With("component", "notify"))
	own := *s.config // the notifier writes into its relabelling rules
	own.AlertingConfig.AlertRelabelConfigs = nil
	for _, r := range s.config.AlertingConfig.AlertRelabelConfigs {
		copied := *r
		own.AlertingConfig.AlertRelabelConfigs = append(own.AlertingConfig.AlertRelabelConfigs, &copied)
	}
	if err := m.ApplyConfig(&own); err != nil {
		return nil, errs.E(errs.Invalid, "alertmanagers: %w", err)
	}
	s.managers[id] = m
	addresses := s.addresses
	go func() {
		defer close(m.ended)
		m.Run(m.sets)
	}()
	m.take(addresses)
	return m, nil
}

// Notify queues alerts of a tenant for all Alertmanagers. It waits for none of them.
func (s *Sender) Notify(_ context.Context, id tenant.ID, expr string, alerts []rules.Alert) {
	link, err := s.linkTo(expr)
	if err != nil {
		s.log.Warn("link of an alert not made", "err", err)
	}
	m, err := s.manager(id)
	if err != nil {
		s.log.Warn("alerts not sent", "tenant", string(id), "alerts", len(alerts), "err", err)
		return
	}
	out := make([]*notifier.Alert, 0, len(alerts))
	lb := labels.NewBuilder(labels.EmptyLabels())
	for _, a := range alerts {
		lb.Reset(a.Labels)
		lb.Del(s.opts.Drop...)
		if name := s.opts.TenantLabel; name != "" && (id != tenant.Default || a.Labels.Has(name)) {
			lb.Set(name, string(id))
		}
		n := &notifier.Alert{Labels: lb.Labels(), Annotations: a.Annotations, StartsAt: a.FiredAt, EndsAt: a.ValidUntil,
			GeneratorURL: link}
		if !a.ResolvedAt.IsZero() {
			n.EndsAt = a.ResolvedAt
		}
		out = append(out, n)
	}
	s.metrics.pushed.Add(float64(len(out)))
	m.Send(out...)
}

// linkTo is the link to an expression.
func (s *Sender) linkTo(expr string) (string, error) {
	var b strings.Builder
	b.WriteString(s.opts.QueryURL)
	if err := s.link.Execute(&b, struct{ Expr string }{url.QueryEscape(expr)}); err != nil {
		return s.opts.QueryURL, errs.E(errs.Invalid, "template of links: %w", err)
	}
	return b.String(), nil
}

// Alertmanagers are the URLs to which alerts are sent at the moment.
func (s *Sender) Alertmanagers() (urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, of := range s.addresses {
		for _, a := range of {
			urls = append(urls, s.opts.Alertmanagers[i].Scheme+"://"+a+s.opts.Alertmanagers[i].PathPrefix)
		}
	}
	return urls
}

// Ready says that there are Alertmanagers in the settings, and none is known.
func (s *Sender) Ready() error {
	if len(s.opts.Alertmanagers) > 0 && len(s.Alertmanagers()) == 0 {
		return errors.New("no Alertmanager is known: alerts are not sent")
	}
	return nil
}
