package rule

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// group is a group that runs. Its goroutine alone evaluates it; what others may read is behind mu.
type group struct {
	id      groupID
	def     definition.Group
	opts    *Options
	log     *slog.Logger
	grid    grid
	offset  time.Duration // of queries and samples
	tenants []tenant.ID   // that are read
	rules   []*rule
	batches [][]int

	// Of the evaluation alone.
	last   time.Time        // the newest slot that was evaluated; zero = none
	kept   bool             // the state file says that there are no alerts
	stale  []labels.Labels  // series of rules that the group no longer has
	owed   int              // how many slots of the past may still be evaluated
	sent   map[string]*sent // what other rulers hold, by their ids
	unheld string           // why another ruler does not hold the state

	done, ended chan struct{} // closed when it is to end, and when it has ended

	mu      sync.Mutex // guards what follows
	began   time.Time  // the last evaluation
	took    time.Duration
	samples int
	phase   phase
	wanted  time.Time     // until then no slot is begun, since another ruler has asked for the group
	lost    chan struct{} // closed when another ruler has it
	// back are the alerts of slots of the past, the newest of each: they are sent with those of the newest slot.
	back  map[*rule]map[uint64]rules.Alert
	given bool // it was given away: last is not that of its state any more
}

// phase is what this process does with a group.
type phase uint8

const (
	elsewhere phase = iota // it does not evaluate the group
	waiting                // it does, and at the moment no slot is evaluated
	within                 // a slot is evaluated
)

// led reports whether this process evaluates the group.
func (g *group) led() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.phase != elsewhere
}

// take makes this process the one that evaluates the group.
func (g *group) take() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.phase, g.lost, g.wanted = waiting, make(chan struct{}), time.Time{}
}

// release ends that, and gives what the evaluation has come to; nothing of it stays here. Within a slot it gives nil;
// then no other slot is begun before until.
func (g *group) release(until time.Time) *progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.phase {
	case within:
		g.wanted = until
		return nil
	case elsewhere:
		return nil
	}
	p := g.progress(true)
	g.phase = elsewhere
	close(g.lost)
	g.given, g.stale, g.sent = true, nil, map[string]*sent{}
	for _, r := range g.rules {
		r.forget()
	}
	return p
}

// begin begins a slot. If it must not, it says how long to wait: 0 = the group is another ruler's.
func (g *group) begin() (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != waiting {
		return 0, false
	}
	if wait = time.Until(g.wanted); wait > 0 {
		return wait, false
	}
	g.phase = within
	return 0, true
}

func (g *group) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.phase = waiting
}

// engine is what all groups of a ruler evaluate with.
type engine struct {
	opts      *Options
	metrics   *metrics
	querier   Querier
	storage   Storage
	notify    Notify
	templates *templates
	places    chan struct{}   // of rules that are evaluated at the same time
	late      chan struct{}   // of groups that evaluate a slot of the past
	closing   <-chan struct{} // closed when nothing more is to be evaluated
}

func (e *engine) isClosing() bool {
	select {
	case <-e.closing:
		return true
	default:
		return false
	}
}

// stop makes the group end once the slot that it evaluates is done, and waits.
func (g *group) stop() {
	close(g.done)
	<-g.ended
}

// shell is what the loop of a group works in.
type shell struct {
	// lead waits until this process is to evaluate the group. It is false when the group is to end.
	lead func(*group) bool
	// after is called behind each slot. It reports whether another ruler evaluates the group, too.
	after func(context.Context, *group) (conflict bool)
	// giveUp leaves the group to others, if there are any; nil = there are none.
	giveUp func(*group) bool
}

// run evaluates the group while this process is to, until stop, or until the engine closes.
func (g *group) run(ctx context.Context, e *engine, in shell) {
	defer close(g.ended)
	for in.lead(g) {
		if !g.slots(ctx, e, in) {
			return
		}
	}
}

// slots evaluates the group slot by slot. The first slot is the next one, or the first that is due after the last one
// of an earlier run. It is true when the group is another ruler's from now on, false when the group is to end.
func (g *group) slots(ctx context.Context, e *engine, in shell) (lost bool) {
	if g.last.IsZero() || !g.grid.has(g.last) {
		g.last = g.grid.before(time.Now())
	}
	idle := time.Now() // since when there was nothing to do
	for {
		delay := g.delay()
		due := g.last.Add(g.grid.interval + delay)
		if ended, lost := g.wait(due); ended || lost {
			return lost
		}
		now := time.Now()
		if in.giveUp != nil && g.owed == 0 && now.Sub(latest(due, idle)) >= max(g.grid.interval, overslept) {
			// The process was suspended. Others may have gone on meanwhile.
			in.giveUp(g)
			return true
		}
		if wait, ok := g.begin(); !ok {
			if ended, lost := g.wait(now.Add(wait)); ended || lost {
				return lost
			}
			continue
		}
		slot, missed, newest := g.nextSlot(now.Add(-delay))
		if g.refused() {
			g.last, g.owed = slot, 0
			g.finish()
			continue
		}
		e.metrics.scheduled(g, missed)
		if missed > 0 {
			g.log.Warn("slots were left out, since the group was evaluated too late", "missed", missed,
				"interval", g.grid.interval, "slot", slot)
		}
		if !newest {
			e.metrics.caughtUp.Inc()
			e.late <- struct{}{}
		}
		done := g.evaluate(ctx, e, slot, newest)
		if !newest {
			<-e.late
		}
		if !done {
			g.finish()
			return false
		}
		g.last = slot
		conflict := in.after(ctx, g)
		g.finish()
		idle = time.Now()
		if conflict {
			g.log.Info("another ruler evaluates the group, too")
			in.giveUp(g)
			return true
		}
	}
}

// delay is how long a slot waits until what it reads is complete.
func (g *group) delay() (rest time.Duration) {
	if g.opts.WaitComplete == 0 || g.opts.Limits == nil {
		return 0
	}
	for _, id := range g.tenants {
		rest = max(rest, time.Duration(g.opts.Limits(id).OutOfOrderWindow)-g.offset)
	}
	if rest > min(g.opts.WaitComplete, g.grid.interval) {
		return 0
	}
	return rest
}

// overslept is how late a group at least is when its process was suspended.
const overslept = 5 * time.Second

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// catchUp allows the slots between the last one and now to be evaluated at their own times, and gives how many these
// are. Twice as many are allowed, for those that become due meanwhile: a group that cannot keep up leaves slots out in
// the end, as any group does.
func (g *group) catchUp(now time.Time) (missed int) {
	if g.owed = 0; g.last.IsZero() || !g.grid.has(g.last) {
		return 0
	}
	missed = max(0, int(g.grid.before(now).Sub(g.last)/g.grid.interval))
	g.owed = 2 * missed
	return missed
}

// nextSlot is the slot to evaluate at now, how many are left out before it, and whether it is the newest one.
func (g *group) nextSlot(now time.Time) (slot time.Time, missed int, newest bool) {
	slot, missed = g.grid.next(g.last, now)
	if missed == 0 || g.owed == 0 {
		g.owed = 0
		return slot, missed, true
	}
	g.owed--
	first := g.last.Add(g.grid.interval)
	if left := int(now.Add(-g.opts.CatchUp).Sub(first) / g.grid.interval); left > 0 {
		return first.Add(time.Duration(min(left, missed)) * g.grid.interval), min(left, missed), left >= missed
	}
	return first, 0, false
}

// refused reports whether no rule of the tenant is evaluated. Then each rule says why, and it is no failure.
func (g *group) refused() bool {
	if g.opts.Refusal == nil {
		return false
	}
	why := g.opts.Refusal(g.id.tenant)
	if why == nil {
		return false
	}
	for _, r := range g.rules {
		r.lib.SetHealth(rules.HealthBad)
		r.lib.SetLastError(why)
	}
	return true
}

// wait waits until t, until the group is to end, or until it is another ruler's. A clock that is set back makes it wait
// longer, so that no slot comes twice.
func (g *group) wait(t time.Time) (ended, lost bool) {
	g.mu.Lock()
	gone := g.lost
	g.mu.Unlock()
	for {
		select {
		case <-g.done:
			return true, false
		case <-gone:
			return false, true
		case <-time.After(time.Until(t)):
		}
		if !time.Now().Before(t) {
			return false, false
		}
	}
}

// evaluate evaluates all rules for a slot. It is false when the engine closed before all of them were evaluated: then
// the slot may be evaluated again. The alerts of a slot that is not the newest are held back.
func (g *group) evaluate(ctx context.Context, e *engine, slot time.Time, newest bool) bool {
	began := time.Now()
	ctx = promql.NewOriginContext(ctx, map[string]any{
		"ruleGroup": map[string]string{"file": g.id.namespace, "name": g.id.name, "tenant": string(g.id.tenant)},
	})
	samples := make([]int, len(g.rules))
	run := func(i int) { samples[i] = g.evaluateRule(ctx, e, i, slot, newest) }
	if cap(e.places) == 0 {
		for i := range g.rules {
			if e.isClosing() {
				return false
			}
			run(i)
		}
	} else if !g.runBatches(e, run) {
		return false
	}
	g.endStale(ctx, e, slot)
	if newest { // what is left is of rules that failed now
		g.sendBack(ctx, e)
	}
	total := 0
	for _, n := range samples {
		total += n
	}
	g.mu.Lock()
	g.began, g.took, g.samples = began, time.Since(began), total
	g.mu.Unlock()
	e.metrics.evaluated(g, began, total)
	return true
}

// runBatches runs all rules, those of one batch at the same time as far as there are places for them. It is false when
// the engine closed before that.
func (g *group) runBatches(e *engine, run func(i int)) bool {
	for _, batch := range g.batches {
		var others sync.WaitGroup
		for _, i := range batch {
			if e.isClosing() {
				others.Wait()
				return false
			}
			if len(batch) == 1 {
				run(i)
				continue
			}
			select {
			case e.places <- struct{}{}:
				others.Go(func() {
					defer func() { <-e.places }()
					run(i)
				})
			default:
				run(i)
			}
		}
		others.Wait()
	}
	return true
}

// patience is the part of an interval for which a failed query or write of a slot is tried again.
const patience = 2

// evaluateRule evaluates a rule for a slot, sends its alerts and stores its samples, in this order. It gives how many
// samples it had.
func (g *group) evaluateRule(ctx context.Context, e *engine, i int, slot time.Time, newest bool) int {
	r := g.rules[i]
	if why := r.disabled.Load(); why != nil {
		r.lib.SetHealth(rules.HealthBad)
		r.lib.SetLastError(why)
		return 0
	}
	began := time.Now()
	defer func() {
		took := time.Since(began)
		r.lib.SetEvaluationDuration(took)
		r.lib.SetEvaluationTimestamp(began)
		e.metrics.duration(took)
	}()
	e.metrics.evaluations.with(g).Inc()
	r.evals++
	log := g.log.With("rule", r.lib.Name(), "index", i)
	fail := func(what string, err error) {
		r.lib.SetHealth(rules.HealthBad)
		r.lib.SetLastError(err)
		e.metrics.failures.with(g).Inc()
		if ctx.Err() == nil && r.news(what+err.Error()) { // at the end of the process queries are broken off
			log.Warn(what, "slot", slot, "err", err)
		}
	}
	until := slot.Add(g.delay() + g.grid.interval/patience)
	if !newest {
		until = began.Add(g.grid.interval / patience)
	}
	whole := true
	ask := asker{
		from: e.querier, tenants: g.tenants, strategy: g.def.PartialResponse, until: until,
		wait: min(g.grid.interval/20, time.Second),
		incomplete: func(missing []string) {
			whole = false
			e.metrics.warnings.WithLabelValues(g.def.PartialResponse.String()).Inc()
			e.metrics.incomplete.with(g).Inc()
			if text := strings.Join(missing, "; "); r.news(text) {
				log.Warn("a rule uses answers that may be incomplete", "slot", slot, "missing", text)
			}
		},
		retried: e.metrics.retries.Inc,
	}
	var v promql.Vector
	err := g.mayRead()
	if err != nil {
		fail("rule not evaluated", err)
		return 0
	}
	if r.alert != nil {
		v, err = r.evalAlert(ctx, e.templates, g.offset, slot, ask.query, g.def.Limit)
	} else {
		v, err = r.lib.Eval(ctx, g.offset, slot, ask.query, nil, g.def.Limit)
	}
	if err != nil {
		if errors.As(err, new(errIncomplete)) {
			e.metrics.aborted.with(g).Inc()
		}
		fail("rule not evaluated", err)
		return 0
	}
	r.lib.SetHealth(rules.HealthGood)
	r.lib.SetLastError(nil)
	if r.alert != nil {
		g.announce(ctx, e, r, r.due(slot, g.opts.ResendDelay, g.grid.interval), newest)
	}
	if err := g.store(withDeadline(ctx, until), e, r, v, slot); err != nil {
		fail("results of a rule not stored, or not wholly", err)
		return len(v)
	}
	if whole && r.news("") {
		log.Info("a rule is well again", "slot", slot)
	}
	return len(v)
}

// announce sends alerts of a rule, and those that were held back, or holds them back.
func (g *group) announce(ctx context.Context, e *engine, r *rule, due []rules.Alert, newest bool) {
	g.mu.Lock()
	back := g.back[r]
	if !newest && len(due) > 0 {
		if back == nil {
			back = map[uint64]rules.Alert{}
		}
		if g.back == nil {
			g.back = map[*rule]map[uint64]rules.Alert{}
		}
		for _, a := range due {
			back[a.Labels.Hash()] = a
		}
		g.back[r] = back
	}
	if newest {
		delete(g.back, r)
	}
	g.mu.Unlock()
	if !newest {
		return
	}
	for _, a := range due {
		delete(back, a.Labels.Hash())
	}
	for _, a := range back {
		due = append(due, a)
	}
	if len(due) > 0 && e.notify != nil {
		e.notify(ctx, g.id.tenant, r.expr, due)
	}
}

// sendBack sends all alerts that were held back: their states say that they were sent.
func (g *group) sendBack(ctx context.Context, e *engine) {
	for _, r := range g.rules {
		g.announce(ctx, e, r, nil, true)
	}
}

// holdsBack reports whether alerts are held back.
func (g *group) holdsBack() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.back) > 0
}

// mayRead is the error of a group whose tenant may not read, or may no longer, what the rules read.
func (g *group) mayRead() error {
	if g.opts.Limits == nil {
		return nil
	}
	return g.def.CheckSources(g.opts.Limits(g.id.tenant))
}

// appendOptions: results of rules are in order, and one that is not is refused.
var appendOptions = storage.AOptions{RejectOutOfOrder: true}

// store stores the results of a rule, and stale markers for the series that it had before and no longer has. The series
// that it had stay as they were if the results are not stored.
func (g *group) store(ctx context.Context, e *engine, r *rule, v promql.Vector, slot time.Time) error {
	app := e.storage(g.id.tenant).AppenderV2(ctx)
	returned := make(map[string]labels.Labels, len(v))
	var refused error // the last one
	for _, s := range v {
		if _, err := app.Append(0, s.Metric, 0, s.T, s.F, nil, s.H, appendOptions); err != nil {
			refused = err
			e.metrics.refused(err)
			continue
		}
		returned[string(s.Metric.Bytes(nil))] = s.Metric
	}
	for key, ls := range r.previous {
		if _, has := returned[key]; !has {
			g.appendStale(app, ls, slot)
		}
	}
	err := app.Commit()
	var some *Refused
	switch {
	case errors.As(err, &some):
		for _, ls := range some.Series {
			delete(returned, string(ls.Bytes(nil)))
		}
	case err != nil:
		return err
	}
	r.previous = returned
	return errors.Join(refused, err)
}

// appendStale marks the end of a series. Its end is no loss when the storage refuses it: then another rule, or another
// process, has written the series.
func (g *group) appendStale(app storage.AppenderV2, ls labels.Labels, slot time.Time) {
	t := timestamp.FromTime(slot.Add(-g.offset))
	_, err := app.Append(0, ls, 0, t, math.Float64frombits(value.StaleNaN), nil, nil, appendOptions)
	if err != nil && !isOrder(err) {
		g.log.Warn("end of a series not stored", "series", ls.String(), "err", err)
	}
}

// isOrder reports whether a sample was refused since the series has a newer or another one.
func isOrder(err error) bool {
	return errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrTooOldSample) ||
		errors.Is(err, storage.ErrDuplicateSampleForTimestamp)
}

// endStale marks the end of the series of rules that the group no longer has.
func (g *group) endStale(ctx context.Context, e *engine, slot time.Time) {
	if len(g.stale) == 0 {
		return
	}
	ctx = withDeadline(ctx, time.Now().Add(g.grid.interval/patience))
	app := e.storage(g.id.tenant).AppenderV2(ctx)
	for _, ls := range g.stale {
		g.appendStale(app, ls, slot)
	}
	if err := app.Commit(); err != nil && !errors.As(err, new(*Refused)) {
		g.log.Warn("end of the series of earlier rules not stored", "err", err)
		return
	}
	g.stale = nil
}

// ownTenant is the tenant whose series the results are.
func (g *group) ownTenant() []tenant.ID { return []tenant.ID{g.id.tenant} }
