package distributor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// maxReplicas is the largest replication factor a tally can count.
const maxReplicas = 255

// write is one Push: a batch, its shards, and the answers so far. It is pooled, and lives until Push and every replica
// are done with it.
//
// Its items are the batch's series, then its metadata entries; each needs its own quorum.
type write struct {
	d *Distributor
	admission
	need     int // good answers that make a quorum
	placed   ring.Placement
	replicas []replica
	owner    []int32 // scratch of place
	scratch  []byte

	refs atomic.Int32

	mu        sync.Mutex // guards what follows
	tallies   []tally    // by item
	causes    []cause
	thin      []thin
	undecided int           // items whose outcome is open
	open      int           // replicas that have not answered
	returned  bool          // Push has judged: answers that come now count no more
	changed   chan struct{} // undecided or open has become 0
	told      string        // the newest text of missedOnce
	toldOf    tally         // what it is of
}

// cause is why a member did not store some items: what it said of one series, or (Series = -1) of a whole shard.
type cause struct {
	wire.Failure
	peer *peer
}

// thin: an item was stored, but some of its exemplars were not; thin counts them.
type thin struct{ item, exemplars int }

// begin prepares a write of what a lets in by r, with one reference, the caller's.
func (d *Distributor) begin(a *admission, r *route) *write {
	w := d.writes.Get().(*write)
	w.d, w.admission = d, *a
	b := w.batch
	b.Retain()
	w.refs.Store(1)
	w.need = d.quorum(r.placement.ReplicationFactor())
	w.replicas = slices.Grow(w.replicas[:0], len(r.peers))[:len(r.peers)]
	items := len(b.Series) + len(b.Metadata)
	w.tallies = slices.Grow(w.tallies[:0], items)[:items]
	clear(w.tallies)
	w.undecided, w.open, w.returned = items-a.skipped, 0, false
	return w
}

// release gives up one reference; the last one lets go of the batch and returns w to the pool.
func (w *write) release() {
	if w.refs.Add(-1) > 0 {
		return
	}
	w.batch.Release()
	w.admission, w.placed = admission{}, nil
	for i := range w.replicas {
		r := &w.replicas[i]
		*r = replica{shard: wire.Shard{Series: r.shard.Series[:0], Metadata: r.shard.Metadata[:0]}}
	}
	w.told = ""
	clear(w.causes)
	w.causes, w.thin = w.causes[:0], w.thin[:0]
	select {
	case <-w.changed:
	default:
	}
	w.d.writes.Put(w)
}

// start hands every shard to its member's queue. With direct, those of members in this process are left to startLocal.
func (w *write) start(r *route, direct bool) {
	now, bytes := time.Now(), sizeOf(w.batch)
	for i, p := range r.peers {
		s := &w.replicas[i]
		if s.empty() {
			continue
		}
		s.write, s.peer, s.bytes, s.since = w, p, bytes, now
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

// startLocal writes the shards that start left, on this goroutine. Those of others are their workers' by now: nothing of
// them may be read but the peer, which an empty shard has none of.
func (w *write) startLocal() {
	for i := range w.replicas {
		if s := &w.replicas[i]; s.peer != nil && s.peer.local {
			failures, err := s.peer.send(s, func() {})
			w.answer(s, failures, err)
		}
	}
}

// CopyOf implements wire.Copies. It is found again when it is asked for, which only members of a Thanos ring make anybody do.
func (r *replica) CopyOf(i int32) int {
	w := r.write
	for n, m := range w.placed.Replicas(nil, w.batch.Tenant, w.batch.Series[i].Hash) {
		if &w.replicas[m] == r {
			return n
		}
	}
	return 0 // a series that is not in this shard
}

func (r *replica) empty() bool { return r.items() == 0 }

// items is how many series and metadata entries the shard has.
func (r *replica) items() int { return len(r.shard.Series) + len(r.shard.Metadata) }

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

// answer counts what r's member said at the first try, or (err) of what was sent before r.
func (w *write) answer(r *replica, failures []wire.Failure, err error) {
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
		said = w.because(r.peer, wire.Failure{Series: -1, Kind: kind, Reason: err.Error()})
	}
	for _, f := range failures {
		if f.Kind == errs.OK {
			if f.Samples+f.Histograms == 0 {
				w.thin = append(w.thin, thin{f.Series, part(f.Exemplars, len(w.batch.Series[f.Series].Exemplars))})
				continue
			}
			f.Kind = errs.Internal
		}
		if t := &w.tallies[f.Series]; !t.marked {
			t.marked = true
			w.count(t, f.Kind, w.because(r.peer, f))
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

// check finds answers about series that were not asked for.
func (r *replica) check(failures []wire.Failure) error {
	for _, f := range failures {
		if _, asked := slices.BinarySearch(r.shard.Series, int32(f.Series)); !asked {
			return errs.E(errs.Internal, "answer about series %d, which was not in the write", f.Series)
		}
	}
	return nil
}

// narrow leaves in the shard only the series that failed in a way that may pass, and returns such a failure, if any.
func (r *replica) narrow(failures []wire.Failure) (err error) {
	missing := r.shard.Series[:0]
	for _, f := range failures {
		if retryable(f.Kind) {
			missing = append(missing, int32(f.Series))
			err = errs.E(f.Kind, "%s", f.Reason)
		}
	}
	if err != nil {
		slices.Sort(missing)
		r.shard.Series, r.shard.Metadata = slices.Compact(missing), r.shard.Metadata[:0]
	}
	return err
}

// because keeps a cause and gives its position plus one. With w.mu held.
func (w *write) because(p *peer, f wire.Failure) int32 {
	w.causes = append(w.causes, cause{f, p})
	return int32(len(w.causes))
}

// count adds an answer to t. With w.mu held.
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

// wait returns when every outcome is certain, ctx ends, or the write timeout is over; the error says which of the latter.
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

func (w *write) isDecided() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.undecided == 0
}

// relied reports whether some item of r is acknowledged, or may still be, so that a missing copy of it matters.
func (w *write) relied(r *replica) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	relied := func(item int) bool {
		kind, certain := w.tallies[item].outcome(w.need)
		return kind == errs.OK || !certain && !w.returned
	}
	for _, i := range r.shard.Series {
		if relied(int(i)) {
			return true
		}
	}
	for _, i := range r.shard.Metadata {
		if relied(len(w.batch.Series) + int(i)) {
			return true
		}
	}
	return false
}
