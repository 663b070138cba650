package rule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// Ruler evaluates the groups of a source.
type Ruler struct {
	log    *slog.Logger
	opts   Options
	source definition.Source
	engine engine
	states states
	loaded errs.Last // what was wrong with the groups when they were read last

	ctx    context.Context // of evaluations
	cancel context.CancelFunc
	stop   chan struct{}  // closed by Close; engine.closing is the same
	wg     sync.WaitGroup // the loop that follows the source, groups, and ends of series

	applying sync.RWMutex // held while groups are exchanged; for reading while one is given to another ruler
	waiting  []*progress  // of an earlier process, for groups that have not appeared yet

	share *share        // nil = this ruler evaluates all groups
	held  heldStates    // of groups of other rulers
	takes chan struct{} // bounds takeOver

	mu     sync.Mutex // guards groups
	groups map[groupID]*group
}

// Notify sends alerts of a tenant. It does not wait for anybody.
type Notify func(ctx context.Context, id tenant.ID, expr string, alerts []rules.Alert)

// Storage is where the results of a tenant's rules are stored. What a Commit acknowledged can be read.
type Storage func(tenant.ID) storage.AppendableV2

// Parts are what a Ruler works with.
type Parts struct {
	// Source gives the groups. Querier answers the queries of rules.
	Source  definition.Source
	Querier Querier
	// Storage stores the results.
	Storage Storage
	// Notify gets alerts; nil = nobody does.
	Notify Notify
}

// New makes a Ruler. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer, parts Parts, opts Options) (*Ruler, error) {
	if opts.ExternalURL == nil {
		opts.ExternalURL = &url.URL{}
	}
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	r := &Ruler{
		log: log, opts: opts, source: parts.Source, groups: map[groupID]*group{}, stop: make(chan struct{}),
		states: states{opts.StateDir, log},
	}
	if opts.Sharing != nil {
		r.share, r.takes = newShare(opts.Sharing), make(chan struct{}, takesAtOnce)
		r.held = heldStates{files: r.states, all: map[groupID]*heldState{}}
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.engine = engine{
		opts: &r.opts, metrics: newMetrics(reg), querier: parts.Querier, storage: parts.Storage,
		notify:    parts.Notify,
		templates: &templates{log, opts.ExternalLabels.Map(), opts.ExternalURL},
		late:      make(chan struct{}, lateAtOnce),
		closing:   r.stop,
	}
	if opts.Concurrency > 1 {
		r.engine.places = make(chan struct{}, opts.Concurrency)
	}
	return r, nil
}

// lateAtOnce is how many groups may evaluate slots of the past at the same time, when another ruler has failed: those
// that are on time must not wait for them.
const lateAtOnce = 8

// Open reads the groups and starts them. A group that cannot be read is logged and shown by Ready, and the others run.
func (r *Ruler) Open(ctx context.Context, _ func(error)) error {
	var err error
	if r.waiting, err = r.states.read(time.Now().Add(-r.opts.OutageTolerance)); err != nil {
		return fmt.Errorf("state of alerts: %w", err)
	}
	if r.share != nil { // others may have gone on since
		for _, p := range r.waiting {
			r.held.keep(p)
		}
		r.waiting = nil
	}
	_ = r.Reload(ctx) // it logged what is wrong
	r.wg.Go(r.follow)
	if r.share != nil {
		r.wg.Go(func() { r.share.follow(r.ctx, r.stop) })
	}
	return nil
}

// leavePatience is how long Close waits for other rulers to take the groups.
const leavePatience = 15 * time.Second

// leave waits until other rulers have taken all groups that they can take. Until then the groups are evaluated here.
func (r *Ruler) leave() {
	r.share.leave()
	const poll = 20 * time.Millisecond
	for until := time.Now().Add(leavePatience); time.Now().Before(until); time.Sleep(poll) {
		v, rest := r.share.view(), 0
		for _, g := range r.running() {
			if g.led() && (!v.leaves || len(v.owners(g.id)) > 0) {
				rest++
			}
		}
		if rest == 0 {
			return
		}
	}
	r.log.Warn("other rulers have not taken all groups in time; they go on from the states that they hold")
}

// closePatience is how long Close waits for rules that are being evaluated.
const closePatience = 10 * time.Second

// Close ends all groups and keeps their state. A rule that is being evaluated is waited for, but not long.
func (r *Ruler) Close() error {
	if r.share != nil && !r.engine.isClosing() {
		r.leave()
	}
	r.applying.Lock() // no exchange starts any more
	if r.engine.isClosing() {
		r.applying.Unlock()
		return nil
	}
	close(r.stop)
	r.applying.Unlock()
	defer time.AfterFunc(closePatience, r.cancel).Stop()
	var faults []error
	for _, g := range r.running() {
		close(g.done)
	}
	for _, g := range r.running() {
		<-g.ended
		if g.led() {
			g.sendBack(r.ctx, &r.engine)
			faults = append(faults, r.states.write(g.progress(true)))
		}
	}
	r.cancel()
	r.wg.Wait()
	return errors.Join(faults...)
}

// Ready says what was wrong with the groups when they were read last.
func (r *Ruler) Ready() error { return r.loaded.Get() }

// follow exchanges the groups when the source has changed.
func (r *Ruler) follow() {
	var old <-chan time.Time
	if r.share != nil {
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		old = tick.C
	}
	for {
		select {
		case <-r.stop:
			return
		case <-r.source.Changed():
			_ = r.Reload(r.ctx)
		case <-old:
			r.held.forgetOld(time.Now().Add(-r.opts.OutageTolerance))
		}
	}
}

// running are the groups in order.
func (r *Ruler) running() []*group {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*group, 0, len(r.groups))
	for _, g := range r.groups {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *group) int { return a.id.compare(b.id) })
	return out
}

// Reload reads the groups again and exchanges those that have changed. The error names what cannot be read or run; all
// else is exchanged.
func (r *Ruler) Reload(ctx context.Context) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	if r.engine.isClosing() {
		return errs.E(errs.Unavailable, "the ruler is closed")
	}
	defs, err := r.source.Groups(ctx)
	faults := []error{err}
	next := map[groupID]*group{}
	var kept, fresh []*group
	for _, def := range defs {
		id := idOf(&def)
		if next[id] != nil {
			faults = append(faults, errs.E(errs.Invalid, "tenant %s: %s: group %q is there twice; the first one runs",
				id.tenant, id.namespace, id.name))
			continue
		}
		if old := r.groups[id]; old != nil && reflect.DeepEqual(old.def, def) {
			next[id] = old
			kept = append(kept, old)
			continue
		}
		g, err := compile(r.log, def, &r.opts)
		if err != nil {
			faults = append(faults, err)
			if g = r.groups[id]; g != nil {
				next[id] = g
				kept = append(kept, g)
			}
			continue
		}
		next[id] = g
		fresh = append(fresh, g)
	}
	r.exchange(next, kept, fresh)
	loaded := errors.Join(faults...)
	r.engine.metrics.loaded(r.running(), loaded == nil)
	if loaded != nil && errs.Text(loaded) != errs.Text(r.loaded.Get()) {
		r.log.Error("some rules cannot be loaded; the last good ones stay in force, and all others run", "err", loaded)
	}
	r.loaded.Set(loaded)
	return loaded
}

// exchange makes next the groups that run. kept of them go on, fresh ones start. Groups that are not in next end.
func (r *Ruler) exchange(next map[groupID]*group, kept, fresh []*group) {
	var old, ended []*group // ended are those of old that this ruler evaluated
	for id, g := range r.groups {
		if next[id] != g {
			old = append(old, g)
		}
	}
	var ending sync.WaitGroup
	for _, g := range old {
		ending.Go(g.stop)
	}
	ending.Wait()
	from := make([]*progress, 0, len(old))
	for i, g := range old {
		if p := g.release(time.Time{}); p != nil { // else another ruler evaluates the group
			g.sendBack(r.ctx, &r.engine)
			from = append(from, p)
			ended = append(ended, old[i])
		}
	}
	slices.SortFunc(fresh, func(a, b *group) int { return a.id.compare(b.id) })
	slices.SortFunc(kept, func(a, b *group) int { return a.id.compare(b.id) })
	adopt(r.ctx, fresh, slices.Concat(from, r.waiting))
	r.forgetWaiting(next)
	now := time.Now()
	for i, g := range ended {
		rest := from[i].series()
		switch in := next[g.id]; {
		case in != nil:
			in.stale = append(in.stale, rest...)
			in.take()
		default:
			r.engine.metrics.forget(g)
			r.engine.metrics.lead(-1)
			r.states.remove(g.id)
			if len(rest) > 0 {
				g.stale = rest
				r.wg.Go(func() { r.endLater(g, now) })
			}
		}
	}
	for _, twice := range disableDuplicates(slices.Concat(kept, fresh)) {
		r.log.Warn("a rule is there twice", "rule", twice)
	}
	r.mu.Lock()
	r.groups = next
	r.mu.Unlock()
	in := shell{lead: r.lead, after: r.evaluated, giveUp: r.giveUp}
	if r.share == nil {
		in = shell{lead: (*group).led, after: r.evaluated}
	}
	for _, g := range fresh {
		r.engine.storage(g.id.tenant) // opens what there is to open before the first slot
		switch {
		case g.led(): // its predecessor did
			r.engine.metrics.start(g)
		case r.share == nil:
			g.take()
			r.engine.metrics.start(g)
			r.engine.metrics.lead(1)
		}
		r.wg.Go(func() { g.run(r.ctx, &r.engine, in) })
	}
	if len(fresh)+len(old) > 0 {
		r.log.Info("rules loaded", "groups", len(next), "new_or_changed", len(fresh), "unchanged", len(kept),
			"ended", len(next)-len(kept)-len(fresh)+len(old))
	}
}

// forgetWaiting drops the state of an earlier process that is used up or too old. next are the groups that run from now
// on: their files are theirs.
func (r *Ruler) forgetWaiting(next map[groupID]*group) {
	since := time.Now().Add(-r.opts.OutageTolerance)
	r.waiting = slices.DeleteFunc(r.waiting, func(p *progress) bool {
		if len(p.rules) > 0 && p.slot.After(since) {
			return false
		}
		if next[p.id] == nil {
			r.states.remove(p.id)
		}
		return true
	})
}

// intervalsToEnd is after how many intervals the series of a group that is gone end: a group that was renamed, or that
// another process has now, has written them again by then.
const intervalsToEnd = 2

// endLater marks the end of the series of a group that ended at now.
func (r *Ruler) endLater(g *group, now time.Time) {
	select {
	case <-r.stop:
	case <-time.After(intervalsToEnd * g.grid.interval):
		g.endStale(r.ctx, &r.engine, now)
	}
}

// evaluated is called behind each slot of a group, on its goroutine. It reports whether another ruler evaluates the
// group, too.
func (r *Ruler) evaluated(ctx context.Context, g *group) (conflict bool) {
	g.restore(ctx, &r.engine, time.Now())
	alerting := slices.ContainsFunc(g.rules, func(r *rule) bool { return r.alert != nil })
	if !alerting && r.share == nil {
		return false
	}
	if g.holdsBack() { // the state says that they were sent; a crash now begins again at the last state
		return false
	}
	p := g.progress(false)
	state, err := p.encode()
	if err != nil {
		r.unkept(g, err)
		return false
	}
	empty := !p.hasAlerts()
	if alerting && (!empty || !g.kept) { // else the file says so already
		if err := r.states.writeBytes(g.id, state); err != nil {
			r.unkept(g, err)
		} else {
			g.kept = empty
		}
	}
	return r.share != nil && r.passOn(ctx, g, state)
}

func (r *Ruler) unkept(g *group, err error) {
	r.engine.metrics.stateFailures.Inc()
	g.log.Error("state of alerts not kept; a restart would look for them in stored series", "err", err)
}
