package distributor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring/election"
)

// HAOptions configure the deduplication of HA pairs, which is turned on per tenant (tenant.Limits.HAPairs).
type HAOptions struct {
	// UpdateTimeout is how often this process publishes that samples of a cluster's elected replica are stored, give or
	// take up to UpdateTimeoutJitter.
	UpdateTimeout, UpdateTimeoutJitter time.Duration
	// FailoverTimeout is the time after which another replica is elected: for that long nothing of the elected replica was
	// stored, and no other replica had to wait because of it.
	FailoverTimeout time.Duration
	// Elections is where processes publish elections; nil = this process takes all writes alone.
	Elections Elections

	now func() time.Time // the clock, for tests; nil = time.Now
}

// Elections carries elections of clusters between processes. What is published comes back merged (election.Merge).
type Elections interface {
	// Publish tells all processes of elections of a tenant, by cluster.
	Publish(ctx context.Context, id tenant.ID, states map[string]election.State) error
	// All calls f with all that is known. f does not keep the map.
	All(ctx context.Context, f func(tenant.ID, map[string]election.State)) error
	// Watch calls f with what changes, until ctx ends; it may miss some changes.
	Watch(ctx context.Context, f func(tenant.ID, map[string]election.State))
}

// DefaultHAOptions are those of Mimir and Cortex.
func DefaultHAOptions() HAOptions {
	return HAOptions{
		UpdateTimeout: 15 * time.Second, UpdateTimeoutJitter: 5 * time.Second, FailoverTimeout: 30 * time.Second,
	}
}

// Validate reports every fault of o.
func (o HAOptions) Validate() error {
	var faults []error
	if o.UpdateTimeout <= 0 {
		faults = append(faults, fmt.Errorf("HA update timeout %s: must be positive", o.UpdateTimeout))
	}
	if o.UpdateTimeoutJitter < 0 || o.UpdateTimeoutJitter >= o.UpdateTimeout {
		faults = append(faults, fmt.Errorf("HA update timeout jitter %s: must be from 0 to less than the update timeout %s",
			o.UpdateTimeoutJitter, o.UpdateTimeout))
	}
	if least := o.UpdateTimeout + o.UpdateTimeoutJitter + time.Second; o.FailoverTimeout < least {
		faults = append(faults, fmt.Errorf("HA failover timeout %s: must be at least %s, a second more than the update "+
			"timeout and its jitter", o.FailoverTimeout, least))
	}
	return errors.Join(faults...)
}

const (
	haTick   = time.Second      // how often is looked for what is due
	haListen = 5 * time.Second  // how often everything known is read again, since Watch may miss some
	haIdle   = 30 * time.Minute // a cluster of which nothing was heard for this long is forgotten
)

// haTracker knows which replica of each cluster is elected.
type haTracker struct {
	log     *slog.Logger
	metrics haMetrics
	opts    HAOptions
	now     func() time.Time
	nudge   chan struct{} // tells run that an election is to be published

	mu      sync.Mutex // guards what follows; a leaf
	tenants map[tenant.ID]map[string]*haCluster
}

// haCluster is a cluster of HA replicas: the value of the cluster label.
type haCluster struct {
	name string
	election.Known
	told     election.State // what other processes know
	toldAt   time.Time      // since when
	interval time.Duration  // until the state is published again
}

type haMetrics struct {
	dropped, elections *prometheus.CounterVec
	clusters           *prometheus.GaugeVec
	failures           prometheus.Counter
}

func newHATracker(log *slog.Logger, reg prometheus.Registerer, opts HAOptions) *haTracker {
	f := promauto.With(reg)
	const prefix = "hearth_distributor_ha_"
	cluster := []string{"tenant", "cluster"}
	now := opts.now
	if now == nil {
		now = time.Now
	}
	return &haTracker{
		log: log, opts: opts, now: now, nudge: make(chan struct{}, 1), tenants: map[tenant.ID]map[string]*haCluster{},
		metrics: haMetrics{
			dropped: f.NewCounterVec(prometheus.CounterOpts{Name: prefix + "dropped_samples_total",
				Help: "Samples of HA pairs that were not stored since their replica is not the elected one."}, cluster),
			elections: f.NewCounterVec(prometheus.CounterOpts{Name: prefix + "elections_total",
				Help: "Replicas of HA pairs that this process elected or learnt of, by cluster."}, cluster),
			clusters: f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "clusters",
				Help: "Clusters of HA pairs that are followed, by tenant."}, []string{"tenant"}),
			failures: f.NewCounter(prometheus.CounterOpts{Name: prefix + "publish_failures_total",
				Help: "Failures to tell other processes of elections; it is tried again."}),
		},
	}
}

// verdict says what to do with samples of one HA replica.
type verdict uint8

const (
	haElected verdict = iota
	haStandby
	haWait // the last samples of the elected replica may not be stored
	haFull // the tenant has as many clusters as it may have
	haLong // a name is too long
)

// judge says what to do with samples of a replica of a cluster, received now. newest is the time of the newest of them
// as far as known. Samples that it lets in come with the cluster and the name of the replica, for settle.
func (t *haTracker) judge(id tenant.ID, l *tenant.Limits, m haReplica, newest int64) (verdict, electedRun) {
	if len(m.cluster) > election.MaxName || len(m.replica) > election.MaxName {
		return haLong, electedRun{}
	}
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.tenants[id][string(m.cluster)]
	if p == nil {
		if l.HAClusters > 0 && len(t.tenants[id]) >= l.HAClusters {
			return haFull, electedRun{}
		}
		p = t.add(id, string(m.cluster))
	}
	if p.Replica == string(m.replica) && !p.Gone() { // no string is made for what is known
		return haElected, electedRun{pair: p, replica: p.Replica}
	}
	replica := string(m.replica)
	next, fate := election.Judge(now, p.Known, replica, newest, t.opts.FailoverTimeout)
	t.update(id, p, next)
	switch fate {
	case election.Drop:
		return haStandby, electedRun{pair: p}
	case election.Wait:
		return haWait, electedRun{pair: p, replica: p.Replica}
	}
	return haElected, electedRun{pair: p, replica: replica}
}

// settle notes whether the series of p that were let in were stored.
func (t *haTracker) settle(p *part) {
	if len(p.elected) == 0 {
		return
	}
	// A request may have a replica's series in several runs, between those of other pairs: it is judged as a whole.
	all := make(map[electedRun]outcome, 1)
	each := outcomes{p: p, lost: p.lost}
	for _, run := range p.elected {
		whole := electedRun{pair: run.pair, replica: run.replica}
		all[whole] = all[whole].join(each.of(run))
	}
	id, now := p.tenant.id, t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for run, o := range all {
		c := run.pair
		if t.tenants[id][c.name] != c {
			continue
		}
		switch {
		case o.stored:
			t.update(id, c, election.Stored(now, c.Known, run.replica, o.newest, t.opts.FailoverTimeout))
		case o.failed:
			c.Known = election.Failed(c.Known, run.replica)
		}
	}
}

// update makes next the state of p, and has an election published. t.mu is held.
func (t *haTracker) update(id tenant.ID, p *haCluster, next election.Known) {
	if next.Replica == p.Replica && next.Elected == p.Elected {
		p.Known = next
		return
	}
	t.changed(id, p, next)
	select {
	case t.nudge <- struct{}{}:
	default:
	}
}

// add begins to follow a cluster. t.mu is held.
func (t *haTracker) add(id tenant.ID, cluster string) *haCluster {
	if t.tenants[id] == nil {
		t.tenants[id] = map[string]*haCluster{}
	}
	p := &haCluster{name: cluster}
	t.tenants[id][cluster] = p
	t.metrics.clusters.WithLabelValues(string(id)).Set(float64(len(t.tenants[id])))
	return p
}

// changed makes next the state of p, of which another replica is elected. t.mu is held.
func (t *haTracker) changed(id tenant.ID, p *haCluster, next election.Known) {
	t.log.Info("replica of an HA pair elected", "tenant", id, "cluster", p.name, "replica", next.Replica,
		"before", p.Replica)
	t.metrics.elections.WithLabelValues(string(id), p.name).Inc()
	p.Known = next
}

// learn takes in what other processes, or this one, published.
func (t *haTracker) learn(id tenant.ID, states map[string]election.State) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for cluster, s := range states {
		p := t.tenants[id][cluster]
		if p == nil {
			if s.Gone() {
				continue
			}
			p = t.add(id, cluster)
		}
		if told := election.Merge(p.told, s); told != p.told {
			p.told, p.toldAt = told, now
		}
		next := election.Learn(now, p.Known, s)
		if next.Replica != p.Replica {
			t.changed(id, p, next)
		}
		p.Known = next
	}
}

// start reads all elections before the first sample is judged, and follows them until ctx ends.
func (t *haTracker) start(ctx context.Context, running *sync.WaitGroup) {
	if e := t.opts.Elections; e != nil {
		t.listen(ctx)
		running.Go(func() { e.Watch(ctx, t.learn) })
	}
	running.Go(func() { t.run(ctx) })
}

// run publishes and forgets until ctx ends.
func (t *haTracker) run(ctx context.Context) {
	tick := time.NewTicker(haTick)
	defer tick.Stop()
	listened := t.now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.nudge:
		case <-tick.C:
		}
		t.tend(ctx)
		if now := t.now(); t.opts.Elections != nil && now.Sub(listened) >= haListen {
			listened = now
			t.listen(ctx)
		}
	}
}

// listen reads all elections.
func (t *haTracker) listen(ctx context.Context) {
	if err := t.opts.Elections.All(ctx, t.learn); err != nil && ctx.Err() == nil {
		t.log.Warn("elections of HA pairs not read", "err", err)
	}
}

// tend gives up idle clusters, publishes what is due, and forgets clusters whose end is published.
func (t *haTracker) tend(ctx context.Context) {
	for id, states := range t.due() {
		if t.opts.Elections != nil {
			if err := t.opts.Elections.Publish(ctx, id, states); err != nil {
				t.metrics.failures.Inc()
				t.log.Warn("elections of HA pairs not published", "tenant", id, "err", err)
				continue
			}
		}
		t.published(id, states)
	}
}

// due are the states that are to be published now, by tenant.
func (t *haTracker) due() map[tenant.ID]map[string]election.State {
	now := t.now()
	due := map[tenant.ID]map[string]election.State{}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, clusters := range t.tenants {
		for cluster, p := range clusters {
			if next, ok := election.GiveUp(now, p.Known, haIdle); ok {
				p.Known = next
			}
			if !p.due() {
				continue
			}
			if due[id] == nil {
				due[id] = map[string]election.State{}
			}
			due[id][cluster] = p.State
		}
	}
	return due
}

// due reports whether p is to be published: at once after an election or its end, else from time to time.
func (p *haCluster) due() bool {
	switch {
	case p.Gone():
		return true
	case p.Replica != p.told.Replica || p.Elected != p.told.Elected:
		return true
	}
	// By this process's own clock: Received is also by clocks of others, and by this one before it was set.
	return p.Received > p.told.Received && p.Heard.Sub(p.toldAt) >= p.interval
}

// published notes what other processes know now, and forgets the clusters that they know to have ended.
func (t *haTracker) published(id tenant.ID, states map[string]election.State) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	clusters := t.tenants[id]
	for cluster, s := range states {
		p := clusters[cluster]
		if p == nil {
			continue
		}
		p.told, p.toldAt = election.Merge(p.told, s), now
		p.interval = t.opts.UpdateTimeout + jitter(t.opts.UpdateTimeoutJitter)
		if !p.Gone() || !p.told.Gone() {
			continue
		}
		delete(clusters, cluster)
		labels := prometheus.Labels{"tenant": string(id), "cluster": cluster}
		t.metrics.dropped.DeletePartialMatch(labels)
		t.metrics.elections.DeletePartialMatch(labels)
		t.log.Info("HA pair forgotten", "tenant", id, "cluster", cluster)
	}
	t.metrics.clusters.WithLabelValues(string(id)).Set(float64(len(clusters)))
	if len(clusters) == 0 {
		delete(t.tenants, id)
		t.metrics.clusters.DeleteLabelValues(string(id))
	}
}

// jitter is anything from -most to most.
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(2*most) - most
}
