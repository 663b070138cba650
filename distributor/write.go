package distributor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.opentelemetry.io/otel/trace"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

const (
	// waitStep is the longest time between two looks of a waiting request whether the members keep up.
	waitStep = 25 * time.Millisecond
	// tooSilent bounds for how long a member may answer nothing before requests stop waiting for it, as a multiple of the
	// time that the quorum took. Under little load a member that stops answering is found within milliseconds.
	tooSilent = 16
)

// maxReplicas is the largest replication factor a tally can count.
const maxReplicas = 255

// write is the writing of one part to its members: a batch, its shards, and the answers so far. It is pooled, and lives
// until Push and every shard are done with it.
//
// Its items are the series of the batch, then its metadata entries. Each item needs a quorum of its own.
type write struct {
	d       *Distributor
	batch   *wire.Batch
	skip    []bool // series of batch that are not to be placed; nil = none
	shown   int    // failures of the request that are known already
	need    int    // good answers that make a quorum
	placed  ring.Placement
	shards  []queuedShard
	owner   []int32 // scratch of place
	scratch []byte
	span    trace.Span // of the push; the writes to members are below it, also those that outlive the push

	refs atomic.Int32

	mu           sync.Mutex // guards what follows
	tallies      []tally    // by item
	causes       []cause
	exemplarLoss []exemplarLoss
	undecided    int           // items whose outcome is open
	open         int           // shards that have no answer
	returned     bool          // the outcome is taken: later answers do not count
	changed      chan struct{} // undecided or open has become 0
	lastReason   string        // the newest text of reasonOnce
	lastReasonOf tally         // the answers that lastReason is about
}

// cause is why a member did not store some items: what it said of one series, or (Series = -1) of a whole shard.
type cause struct {
	wire.Failure
	member *member
}

// exemplarLoss says that an item was stored but some of its exemplars were not: exemplars counts these.
type exemplarLoss struct{ item, exemplars int }

// begin prepares a write of what was let in of p, by r. It has one reference, the caller's.
func (d *Distributor) begin(p *part, r *route) *write {
	w := d.writes.Get().(*write)
	b := p.batch
	w.d, w.batch, w.skip, w.shown = d, b, p.skip, len(b.Rejected)+len(p.refused)
	b.Retain()
	w.refs.Store(1)
	w.need = d.quorum(r.placement.ReplicationFactor())
	w.shards = slices.Grow(w.shards[:0], len(r.members))[:len(r.members)]
	items := len(b.Series) + len(b.Metadata)
	w.tallies = slices.Grow(w.tallies[:0], items)[:items]
	clear(w.tallies)
	w.undecided, w.open, w.returned = items-p.skipped, 0, false
	return w
}

// release gives up one reference. The last one releases the batch and returns w to the pool.
func (w *write) release() {
	if w.refs.Add(-1) > 0 {
		return
	}
	w.batch.Release()
	w.batch, w.skip, w.placed, w.span = nil, nil, nil, nil
	for i := range w.shards {
		r := &w.shards[i]
		*r = queuedShard{shard: wire.Shard{Series: r.shard.Series[:0], Metadata: r.shard.Metadata[:0]}}
	}
	w.lastReason = ""
	clear(w.causes)
	w.causes, w.exemplarLoss = w.causes[:0], w.exemplarLoss[:0]
	select {
	case <-w.changed:
	default:
	}
	w.d.writes.Put(w)
}

// dispatch queues the shards by r, which it unlocks. It reports whether shards of members in this process are left for
// startLocal.
func (w *write) dispatch(r *route) (direct bool) {
	defer r.mu.RUnlock()
	w.place(ring.For(r.placement, w.batch.Tenant))
	direct = r.placement.ReplicationFactor() == 1
	w.start(r, direct)
	return direct
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
			s := &w.shards[m].shard
			s.Series = append(s.Series, int32(i))
		}
	}
	for i := range b.Metadata {
		for _, m := range w.owners(p, len(b.Series)+i, w.familyHash(b.Metadata[i].Family)) {
			s := &w.shards[m].shard
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

// familyHash places the metadata of a metric family: the hash of tenant Sep family.
func (w *write) familyHash(family string) uint64 {
	w.scratch = append(wire.AppendTenant(w.scratch[:0], w.batch.Tenant), family...)
	return xxhash.Sum64(w.scratch)
}

// start hands every shard to its member's queue. With direct, shards of members in this process are left to startLocal.
func (w *write) start(r *route, direct bool) {
	now, bytes := time.Now(), sizeOf(w.batch)
	for i, p := range r.members {
		s := &w.shards[i]
		if s.empty() {
			continue
		}
		s.write, s.member, s.bytes, s.since = w, p, bytes, now
		s.shard.Batch, s.shard.Copies = w.batch, s
		w.mu.Lock()
		w.open++
		w.mu.Unlock()
		if direct && p.local {
			continue
		}
		w.refs.Add(1)
		if err := p.enqueue(s); err != nil {
			w.answer(s, nil, err)
			w.release()
		}
	}
}

// startLocal writes the shards that start left, on this goroutine. The other shards belong to their workers by now, so
// it reads nothing of them except the member. An empty shard has no member.
func (w *write) startLocal() {
	for i := range w.shards {
		if s := &w.shards[i]; s.member != nil && s.member.local {
			failures, err := s.member.send(s, func() {})
			w.answer(s, failures, err)
		}
	}
}

// sizeOf is about how many bytes b keeps in memory.
func sizeOf(b *wire.Batch) int64 {
	n, texts := 0, 0
	for i := range b.Series {
		s := &b.Series[i]
		n += 160 + 24*len(s.Samples) + 512*len(s.Histograms) + 128*len(s.Exemplars)
		texts += s.LabelsSize()
	}
	for i := range b.Metadata {
		m := &b.Metadata[i]
		n += 128 + len(m.Family) + len(m.Help) + len(m.Unit)
	}
	return int64(n) + max(int64(texts), b.Buffered()) // labels are in the body, or beside it
}

// answer counts what the member of r said at the first try. err may also come from a shard that was sent before r.
func (w *write) answer(r *queuedShard, failures []wire.Failure, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.returned || r.answered {
		return
	}
	r.answered = true
	w.open--
	if err == nil {
		err = r.check(failures)
	}
	if err != nil {
		failures = nil
	}
	kind, said := errs.KindOf(err), int32(0)
	if err != nil {
		said = w.addCause(r.member, wire.Failure{Series: -1, Kind: kind, Reason: err.Error()})
	}
	for _, f := range failures {
		if f.Kind == errs.OK {
			if f.Samples+f.Histograms == 0 {
				all := len(w.batch.Series[f.Series].Exemplars)
				w.exemplarLoss = append(w.exemplarLoss, exemplarLoss{f.Series, atMost(f.Exemplars, all)})
				continue
			}
			f.Kind = errs.Internal
		}
		if t := &w.tallies[f.Series]; !t.marked {
			t.marked = true
			w.count(t, f.Kind, w.addCause(r.member, f))
		}
	}
	for _, i := range r.shard.Series {
		t := &w.tallies[i]
		if !t.marked {
			w.count(t, kind, said)
		}
		t.marked = false
	}
	for _, i := range r.shard.Metadata {
		w.count(&w.tallies[len(w.batch.Series)+int(i)], kind, said)
	}
	if w.undecided == 0 || w.open == 0 {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// addCause keeps a cause and gives its position plus one. w.mu is held.
func (w *write) addCause(p *member, f wire.Failure) int32 {
	w.causes = append(w.causes, cause{f, p})
	return int32(len(w.causes))
}

// count adds an answer to t. w.mu is held.
func (w *write) count(t *tally, kind errs.Kind, cause int32) {
	t.add(kind, cause)
	if t.decided {
		return
	}
	if _, certain := t.outcome(w.need); certain {
		t.decided = true
		w.undecided--
	}
}

// wait returns when every outcome is certain, ctx ends, or the write timeout is over. The error says which of the last
// two.
func (w *write) wait(ctx context.Context) error {
	if w.isDecided() {
		return nil
	}
	timeout := time.NewTimer(w.d.opts.WriteTimeout)
	defer timeout.Stop()
	for !w.isDecided() {
		select {
		case <-w.changed:
		case <-ctx.Done():
			return fmt.Errorf("the request ended: %w", ctx.Err())
		case <-timeout.C:
			return errors.New("the others did not answer in time")
		}
	}
	return nil
}

// isDecided reports whether every outcome is certain.
func (w *write) isDecided() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.undecided == 0
}

// needed reports whether some item of r is acknowledged, or may still be, so that it matters that the member lacks it.
func (w *write) needed(r *queuedShard) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	needed := func(item int) bool {
		kind, certain := w.tallies[item].outcome(w.need)
		return kind == errs.OK || !certain && !w.returned
	}
	for _, i := range r.shard.Series {
		if needed(int(i)) {
			return true
		}
	}
	for _, i := range r.shard.Metadata {
		if needed(len(w.batch.Series) + int(i)) {
			return true
		}
	}
	return false
}

// waitForCopies waits, after the quorum, for the members that make progress as the others do. A sender that is answered
// earlier sends its next request earlier. Where all members are at their limit, the late shards would then grow without
// end. members are all members, and took is how long the quorum took.
func (w *write) waitForCopies(ctx context.Context, members []*member, took time.Duration) {
	if !w.stored() {
		return
	}
	var tick *time.Ticker
	end := time.Now().Add(max(0, w.d.opts.WriteTimeout-took))
	for w.lacks() && w.worthWaiting(members, took) && time.Now().Before(end) {
		if tick == nil {
			tick = time.NewTicker(min(waitStep, max(time.Millisecond, tooSilent*took)))
			defer tick.Stop()
		}
		select {
		case <-w.changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// stored reports whether a quorum has some item.
func (w *write) stored() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.tallies, func(t tally) bool { return int(t.ok) >= w.need })
}

// lacks reports whether some member has not answered.
func (w *write) lacks() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open > 0
}

// worthWaiting reports whether the request should wait for some shard.
func (w *write) worthWaiting(members []*member, took time.Duration) bool {
	for i := range w.shards {
		if r := &w.shards[i]; r.member != nil && r.member.holdsUp(r, members, took) {
			return true
		}
	}
	return false
}

// handOver gives the shards that are left to their members. No request waits for them any more.
func (w *write) handOver() {
	for i := range w.shards {
		if r := &w.shards[i]; r.member != nil {
			r.member.keepLate(r)
		}
	}
}

// judge ends the counting, and gives what was stored and the failures, by their index in the batch, in order. ended, if
// not nil, is why answers are missing.
func (w *write) judge(ended error) (stored Counts, lost []wire.Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.returned = true
	b := w.batch
	for i := range w.tallies {
		if w.skip != nil && i < len(w.skip) && w.skip[i] {
			continue
		}
		kind, _ := w.tallies[i].outcome(w.need)
		var f wire.Failure
		if kind != errs.OK {
			f = w.failure(i, kind, ended, w.shown+len(lost) < shownFailures)
			lost = append(lost, f)
		}
		if i < len(b.Series) {
			s := &b.Series[i]
			stored.Samples += len(s.Samples) - f.Samples
			stored.Histograms += len(s.Histograms) - f.Histograms
			stored.Exemplars += len(s.Exemplars) - f.Exemplars
		}
	}
	stored.Exemplars -= w.missingExemplars()
	return stored, lost
}

// missingExemplars is how many exemplars of stored series a quorum lacks. Of each series these are the exemplars that
// are missing from the last of the answers that make its quorum. The answers that lack the fewest are counted first.
// w.mu is held.
func (w *write) missingExemplars() (n int) {
	slices.SortFunc(w.exemplarLoss, func(a, b exemplarLoss) int {
		return cmp.Or(cmp.Compare(a.item, b.item), cmp.Compare(a.exemplars, b.exemplars))
	})
	for rest := w.exemplarLoss; len(rest) > 0; {
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

// failure describes the item that ended with kind. w.mu is held.
func (w *write) failure(item int, kind errs.Kind, ended error, named bool) wire.Failure {
	t := &w.tallies[item]
	f := wire.Failure{Series: -1, Kind: kind}
	if item < len(w.batch.Series) {
		f = failureOf(&w.batch.Series[item], item, kind, "")
	}
	if kind == errs.Conflict || kind == errs.Invalid {
		c := &w.causes[t.final-1]
		f.Reason = c.Reason
		if c.Series >= 0 { // the member stored the rest of the series
			f.Samples, f.Histograms = atMost(c.Samples, f.Samples), atMost(c.Histograms, f.Histograms)
			f.Exemplars = atMost(c.Exemplars, f.Exemplars)
			return f
		}
	} else {
		f.Reason = w.reasonOnce(t, kind, ended)
	}
	if named {
		f.Reason = w.name(item) + ": " + f.Reason
	}
	return f
}

// atMost is n, but never more than all, whatever a member says.
func atMost(n, all int) int { return max(0, min(n, all)) }

// reasonOnce is reason. It makes one text for all series in a row that have the same answers. w.mu is held.
func (w *write) reasonOnce(t *tally, kind errs.Kind, ended error) string {
	if w.lastReason == "" || w.lastReasonOf != *t {
		w.lastReason, w.lastReasonOf = w.reason(t, kind, ended), *t
	}
	return w.lastReason
}

// reason says why t has no quorum. w.mu is held.
func (w *write) reason(t *tally, kind errs.Kind, ended error) string {
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
		why = fmt.Sprintf(": member %s: %s", c.member.id, c.Reason)
	case t.final > 0:
		c := &w.causes[t.final-1]
		why = fmt.Sprintf(": member %s: %s", c.member.id, c.Reason)
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
