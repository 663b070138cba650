package distributor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// Result is what became of a batch.
type Result struct {
	// Tenant is "" when a request was for several: failures then name theirs.
	Tenant tenant.ID
	// Series is how many series the request had, the rejected ones included.
	Series int
	// Samples, Histograms and Exemplars are how many a quorum has stored. Exemplars that a quorum lacks are no failure.
	Samples, Histograms, Exemplars int
	// Dropped is what rules of this process took out of the request: neither stored nor a failure.
	Dropped Dropped
	// Duplicates is what came from replicas of HA pairs that are not elected: the elected one's is stored.
	Duplicates Dropped
	// Failures are the series that were not stored, or not wholly: the batch's rejected ones, those over a limit, then
	// others in the batch's order. A metadata entry that was not stored has Series -1. Only the first shownFailures reasons name the labels
	// of a series when the cause is not the series.
	Failures []wire.Failure

	wait time.Duration // for a sender that comes again; 0 = nothing is known of that
}

// Push replicates b and returns when the outcome of every series is certain and the members that keep up with the others
// have their copies, or after Options.WriteTimeout. The error
// tells that nothing was tried (kind TooLarge or Limited: the whole request is over a limit of the tenant); what happened to single series is in the Result, folded by Result.Err. The batch may be
// in use by slow members after Push returned: they hold references of their own.
func (d *Distributor) Push(ctx context.Context, b *wire.Batch) (Result, error) {
	if r := d.rules.Load(); r != nil {
		return d.pushRelabelled(ctx, b, r)
	}
	return d.pushTenants(ctx, b)
}

// pushTenants is Push for a batch whose series have their final labels, except the one that may name their tenant.
func (d *Distributor) pushTenants(ctx context.Context, b *wire.Batch) (Result, error) {
	if d.opts.SplitLabel != "" {
		return d.pushSplit(ctx, b)
	}
	return d.push(ctx, b)
}

// push is Push for a batch whose series are all of its tenant. Failures name the places that series had before b was
// rewritten.
func (d *Distributor) push(ctx context.Context, b *wire.Batch) (Result, error) {
	var a admission
	if err := d.admit(&a, b); err != nil {
		return Result{}, err
	}
	defer a.batch.Release()
	if a.nothing() {
		result := a.result()
		d.pairs.settle(&a, &result)
		d.observe(&a, &result)
		return result, nil
	}
	r, err := d.acquire()
	if err != nil {
		d.pairs.settle(&a, nil)
		return Result{}, err
	}
	w := d.begin(&a, r)
	defer w.release()
	start := time.Now()
	if w.dispatch(r) {
		w.startLocal()
	}
	ended := w.wait(ctx)
	if ended == nil {
		w.linger(ctx, r.peers, time.Since(start))
	}
	result := w.judge(ended)
	w.part()
	d.pairs.settle(&a, &result)
	d.observe(&a, &result)
	return result, nil
}

// dispatch hands out the shards by r, which it unlocks, and reports whether those of members in this process are left.
func (w *write) dispatch(r *route) (direct bool) {
	defer r.mu.RUnlock()
	w.place(ring.For(r.placement, w.batch.Tenant))
	direct = r.placement.ReplicationFactor() == 1
	w.start(r, direct)
	return direct
}

// quorum is how many good answers acknowledge a write.
func (d *Distributor) quorum(rf int) int {
	if rf == 2 && d.opts.ThanosRF2 {
		return 1
	}
	return ring.Quorum(rf)
}

// observe counts what became of a batch. Failures of the admission are the first ones.
func (d *Distributor) observe(a *admission, r *Result) {
	a.account.stored(r.Samples + r.Histograms)
	d.metrics.samples.Add(float64(r.Samples))
	d.metrics.histograms.Add(float64(r.Histograms))
	d.metrics.exemplars.Add(float64(r.Exemplars))
	here := len(a.batch.Rejected) + len(a.failures) // their limits are counted where they are kept
	for i, f := range r.Failures {
		d.metrics.failures.WithLabelValues(f.Kind.String()).Inc()
		if f.Kind == errs.Limited && i >= here {
			a.account.lost(tenant.LimitNamed(f.Reason), f.Samples+f.Histograms)
		}
	}
}

// place puts every item into the shards of its replicas. An item with fewer replicas than the quorum goes nowhere.
func (w *write) place(p ring.Placement) {
	b := w.batch
	w.placed = p
	for i := range b.Series {
		if w.skip != nil && w.skip[i] {
			continue
		}
		for _, m := range w.owners(p, i, b.Series[i].Hash) {
			s := &w.replicas[m].shard
			s.Series = append(s.Series, int32(i))
		}
	}
	for i := range b.Metadata {
		for _, m := range w.owners(p, len(b.Series)+i, w.familyHash(b.Metadata[i].Family)) {
			s := &w.replicas[m].shard
			s.Metadata = append(s.Metadata, int32(i))
		}
	}
}

// owners gives the members that item is to be sent to.
func (w *write) owners(p ring.Placement, item int, hash uint64) []int32 {
	w.owner = p.Replicas(w.owner[:0], w.batch.Tenant, hash)
	t := &w.tallies[item]
	t.replicas = uint8(len(w.owner))
	if len(w.owner) < w.need {
		t.decided = true
		w.undecided--
		return nil
	}
	return w.owner
}

// familyHash places a metric family's metadata: the hash of tenant Sep family.
func (w *write) familyHash(family string) uint64 {
	w.scratch = append(wire.AppendTenant(w.scratch[:0], w.batch.Tenant), family...)
	return xxhash.Sum64(w.scratch)
}

// judge ends the counting; ended, if not nil, is why answers are missing.
func (w *write) judge(ended error) Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.returned = true
	b := w.batch
	r := w.admission.result()
	for i := range w.tallies {
		if w.skip != nil && i < len(w.skip) && w.skip[i] {
			continue
		}
		kind, _ := w.tallies[i].outcome(w.need)
		var f wire.Failure
		if kind != errs.OK {
			f = w.failure(i, kind, ended, len(r.Failures) < shownFailures)
			r.Failures = append(r.Failures, f)
		}
		if i < len(b.Series) {
			s := &b.Series[i]
			r.Samples += len(s.Samples) - f.Samples
			r.Histograms += len(s.Histograms) - f.Histograms
			r.Exemplars += len(s.Exemplars) - f.Exemplars
		}
	}
	r.Exemplars -= w.forgone()
	return r
}

// forgone is how many exemplars of series that a quorum stored are not with a quorum: of each series, as many as are
// missing from the last of the answers that make its quorum, which are those from which the fewest are. With w.mu held.
func (w *write) forgone() (n int) {
	slices.SortFunc(w.thin, func(a, b thin) int { return cmp.Or(cmp.Compare(a.item, b.item), cmp.Compare(a.exemplars, b.exemplars)) })
	for rest := w.thin; len(rest) > 0; {
		t, all := &w.tallies[rest[0].item], 1
		for all < len(rest) && rest[all].item == rest[0].item {
			all++
		}
		if last := w.need - (int(t.ok) - all); int(t.ok) >= w.need && last > 0 {
			n += rest[last-1].exemplars
		}
		rest = rest[all:]
	}
	return n
}

// failure describes the item that ended with kind. With w.mu held.
func (w *write) failure(item int, kind errs.Kind, ended error, named bool) wire.Failure {
	t := &w.tallies[item]
	f := wire.Failure{Series: -1, Kind: kind}
	if item < len(w.batch.Series) {
		s := &w.batch.Series[item]
		f = wire.Failure{Series: w.batch.Origin(item), Kind: kind, Samples: len(s.Samples), Histograms: len(s.Histograms), Exemplars: len(s.Exemplars)}
	}
	if kind == errs.Conflict || kind == errs.Invalid {
		c := &w.causes[t.final-1]
		f.Reason = c.Reason
		if c.Series >= 0 { // the member stored the rest of the series
			f.Samples, f.Histograms, f.Exemplars = part(c.Samples, f.Samples), part(c.Histograms, f.Histograms), part(c.Exemplars, f.Exemplars)
			return f
		}
	} else {
		f.Reason = w.missedOnce(t, kind, ended)
	}
	if named {
		f.Reason = w.name(item) + ": " + f.Reason
	}
	return f
}

// part is n of all, whatever a member says.
func part(n, all int) int { return max(0, min(n, all)) }

// missedOnce is missed, which makes one text for all the series in a row that fared alike. With w.mu held.
func (w *write) missedOnce(t *tally, kind errs.Kind, ended error) string {
	if w.told == "" || w.toldOf != *t {
		w.told, w.toldOf = w.missed(t, kind, ended), *t
	}
	return w.told
}

// missed says why t has no quorum. With w.mu held.
func (w *write) missed(t *tally, kind errs.Kind, ended error) string {
	why := ""
	switch {
	case t.replicas == 0 && len(w.placed.Members()) == 0:
		return "the ring has no members yet"
	case t.replicas == 0:
		return "no member of the ring takes this tenant's series"
	case int(t.replicas) < w.need:
		return fmt.Sprintf("the ring has %d of the %d members that must store it", t.replicas, w.need)
	case t.lost > 0:
		c := &w.causes[t.lost-1]
		why = fmt.Sprintf(": member %s: %s", c.peer.id, c.Reason)
	case t.final > 0:
		c := &w.causes[t.final-1]
		why = fmt.Sprintf(": member %s: %s", c.peer.id, c.Reason)
	}
	if ended != nil && kind == errs.Unavailable {
		why += "; " + ended.Error()
	}
	return fmt.Sprintf("stored by %d replicas, needs %d%s", t.ok, w.need, why)
}

// name is what item is called in messages.
func (w *write) name(item int) string {
	if i := item - len(w.batch.Series); i >= 0 {
		return "metadata of " + w.batch.Metadata[i].Family
	}
	return w.batch.Series[item].Text()
}
