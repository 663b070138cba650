package receive

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Ring is this member's place among the others, as a drain needs it.
type Ring interface {
	// Spare is the error that says why writes would fail without this member, nil when the others suffice.
	Spare() error
	// Consequence says what the next failure does once this member has left, "" when it does no more than before.
	Consequence() string
	// SetReadOnly tells the others to place no more series here.
	SetReadOnly(ctx context.Context) error
	// Leave takes the member off the ring; drained says that nothing is missing without it.
	Leave(ctx context.Context, drained bool) error
}

// Gateway is a live store gateway of another process.
type Gateway struct {
	Name string
	// Draining gateways still answer queries, and will leave.
	Draining bool
	// States returns for each block whether the gateway knows and serves it now.
	States func(ctx context.Context, ids []ulid.ULID) ([]series.BlockState, error)
}

// drainable is the part of a Receiver that a drain uses.
type drainable interface {
	Flush(ctx context.Context) error
	localBlocks() (shipped []ulid.ULID, pending int, err error)
	traffic() *seal
}

func (r *Receiver) traffic() *seal { return &r.seal }

// Drainer takes a member out of the cluster without losing a sample. The function next, in drain.go, says in which
// order. It does nothing until Begin.
type Drainer struct {
	log      *slog.Logger
	r        drainable
	ring     Ring
	gateways func() []Gateway // the live ones
	opts     DrainOptions
	m        *drainMetrics

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	fail func(error)
	wg   sync.WaitGroup // the drain

	mu      sync.Mutex // guards what follows
	open    bool
	phase   Phase
	started time.Time // zero = no drain
	state   drainState
	flushed uint64             // writes that had passed when the last complete flush began
	blocks  []ulid.ULID        // the blocks that were shipped then
	served  map[ulid.ULID]bool // by the gateways
	asked   int                // how many gateways were asked last, -1 = none was asked yet
	err     error              // of the last step
	logged  time.Time          // when progress was logged last
	warning string             // what the next failure does once this member has left, "" = nothing new
}

// NewDrainer makes a drainer of r. gateways returns the live ones of other processes, at the time of its call. reg
// may be nil.
func NewDrainer(log *slog.Logger, reg prometheus.Registerer, r *Receiver, ring Ring, gateways func() []Gateway,
	opts DrainOptions) (*Drainer, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return newDrainer(log, newDrainMetrics(reg), r, ring, gateways, opts), nil
}

func newDrainer(log *slog.Logger, m *drainMetrics, r drainable, ring Ring, gateways func() []Gateway,
	opts DrainOptions) *Drainer {
	d := &Drainer{log: log, m: m, r: r, ring: ring, gateways: gateways, opts: opts, served: map[ulid.ULID]bool{},
		asked: -1}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.enter(Serving)
	return d
}

// Open makes Begin work. fail is called when a drain ends without this member having left.
func (d *Drainer) Open(_ context.Context, fail func(error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open, d.fail = true, fail
	return nil
}

// Close ends a drain that is under way. Then the member keeps its place and its data, and that is the error.
func (d *Drainer) Close() error {
	d.mu.Lock()
	d.open = false
	d.mu.Unlock()
	d.stop()
	d.wg.Wait()
	if p := d.at(); slices.Contains([]Phase{Settling, Shipping, Waiting}, p) {
		return errs.E(errs.Unavailable, "the drain was interrupted (%s): this member keeps its place and its data", p)
	}
	return nil
}

// Begin starts a drain, unless one has begun. It fails (Unavailable) where the process is starting or stopping.
func (d *Drainer) Begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.open:
		return errs.E(errs.Unavailable, "the process is starting or stopping")
	case !d.started.IsZero():
		return nil
	}
	d.started = time.Now()
	d.logged = d.started
	d.state = drainState{deadline: d.started.Add(d.opts.Timeout), quiet: d.opts.Quiet,
		patience: min(d.opts.Patience, d.opts.Timeout/4)}
	d.m.deadline.Set(float64(d.state.deadline.Unix()))
	d.log.Info("drain begins", "deadline", d.state.deadline.Format(time.RFC3339))
	if err := d.ring.Spare(); err != nil {
		d.log.Warn("writes will fail without this member", "err", err)
	}
	if d.warning = d.ring.Consequence(); d.warning != "" {
		d.log.Warn("this drain leaves fewer members than copies", "consequence", d.warning)
	}
	d.wg.Go(d.run)
	return nil
}

// run takes step after step until the end.
func (d *Drainer) run() {
	for d.ctx.Err() == nil {
		s := d.observe()
		st := next(s)
		if st == doGiveUp {
			d.giveUp()
			return
		}
		d.enter(st.phase(d.at()))
		err := d.do(st, s)
		d.note(err)
		d.progress()
		switch {
		case err == nil && (st == doLeave || st == doLeaveLate):
			d.wait(d.opts.Linger)
			if d.opts.Left != nil {
				d.opts.Left()
			}
			return
		case err != nil || st == doSettle || st == doAsk && d.observe().unserved > 0:
			d.wait(d.opts.Poll)
		}
	}
}

func (d *Drainer) wait(t time.Duration) {
	select {
	case <-time.After(t):
	case <-d.ctx.Done():
	}
}

// observe is the state at present.
func (d *Drainer) observe() drainState {
	g := d.r.traffic()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.now, s.lastWrite, s.late = time.Now(), g.lastWrite(), g.passed.Load() != d.flushed
	s.unserved = len(d.unserved())
	d.m.unserved.Set(float64(s.unserved))
	return s
}

// unserved are the shipped blocks that the gateways are not known to serve. d.mu is held.
func (d *Drainer) unserved() (ids []ulid.ULID) {
	for _, b := range d.blocks {
		if !d.served[b] {
			ids = append(ids, b)
		}
	}
	return ids
}

// sealTimeout bounds the wait for writes under way.
const sealTimeout = 10 * time.Second

// do takes step st.
func (d *Drainer) do(st step, s drainState) error {
	switch st {
	case doAnnounce:
		if err := d.ring.SetReadOnly(d.ctx); err != nil {
			return err
		}
		d.change(func(s *drainState) { s.announced = time.Now() })
	case doShip:
		ctx, cancel := context.WithDeadline(d.ctx, s.deadline)
		defer cancel()
		return d.ship(ctx)
	case doSeal:
		ctx, cancel := context.WithTimeout(d.ctx, sealTimeout)
		defer cancel()
		if err := d.r.traffic().close(ctx); err != nil {
			d.change(func(s *drainState) { s.shipped = false }) // the samples of writes that hang are not in the bucket
			return errs.E(errs.Unavailable, "writes that are under way do not end: %w", err)
		}
		d.change(func(s *drainState) { s.sealed = true })
	case doAsk:
		d.ask()
	case doLeave:
		return d.leave(Left)
	case doLeaveLate:
		return d.leave(Unserved)
	}
	return nil
}

func (d *Drainer) change(f func(*drainState)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.state)
}

// ship brings all samples that were written so far into the bucket.
func (d *Drainer) ship(ctx context.Context) error {
	before := d.r.traffic().passed.Load()
	if err := d.r.Flush(ctx); err != nil {
		return err
	}
	blocks, pending, err := d.r.localBlocks()
	if err == nil && pending > 0 {
		err = errs.E(errs.Unavailable, "%d blocks are still to be shipped", pending)
	}
	if err != nil {
		return err
	}
	d.change(func(s *drainState) { s.shipped, d.flushed, d.blocks = true, before, blocks })
	return nil
}

// leave takes the member off the ring.
func (d *Drainer) leave(as Phase) error {
	if err := d.ring.Leave(d.ctx, as == Left); err != nil {
		return err
	}
	d.enter(as)
	if as == Unserved {
		s := d.Status()
		d.log.Warn("left before store gateways were seen to serve all blocks: answers may be called partial",
			"unserved", s.Unserved, "gateways", s.Gateways, "after", d.opts.Timeout)
	}
	return nil
}

// giveUp ends a drain whose member may not leave.
func (d *Drainer) giveUp() {
	d.enter(Failed)
	d.mu.Lock()
	last, fail := d.err, d.fail
	d.mu.Unlock()
	if last == nil {
		last = errors.New("there was not enough time")
	}
	fail(errs.E(errs.Unavailable, "the drain failed: after %s not everything is in the bucket; this member keeps its "+
		"place and its data on disk: %w", d.opts.Timeout, last))
}

// enter logs and shows a new phase.
func (d *Drainer) enter(p Phase) {
	d.mu.Lock()
	was, took := d.phase, time.Since(d.started)
	d.phase = p
	d.mu.Unlock()
	if was == p {
		return
	}
	for _, other := range phases {
		d.m.phase.WithLabelValues(string(other)).Set(0)
	}
	d.m.phase.WithLabelValues(string(p)).Set(1)
	if was != "" {
		d.log.Info("drain", "phase", string(p), "was", string(was), "after", took.Round(time.Millisecond))
	}
}

// note keeps how the last step went, and logs when that is new.
func (d *Drainer) note(err error) {
	d.mu.Lock()
	was := d.err
	d.err = err
	d.mu.Unlock()
	if err != nil && was == nil && d.ctx.Err() == nil {
		d.log.Warn("drain cannot go on, trying again", "phase", string(d.at()), "err", err)
	}
}

const progressEvery = 30 * time.Second

// progress logs from time to time.
func (d *Drainer) progress() {
	d.mu.Lock()
	due := time.Since(d.logged) >= progressEvery
	if due {
		d.logged = time.Now()
	}
	d.mu.Unlock()
	if !due {
		return
	}
	s := d.Status()
	d.log.Info("draining", "phase", string(s.Phase), "deadline", s.Deadline.Format(time.RFC3339),
		"blocks_to_ship", s.Pending, "blocks_not_served", s.Unserved, "blocks_shipped", s.Blocks,
		"gateways", s.Gateways, "err", s.Error)
}

func (d *Drainer) begun() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.started.IsZero()
}

func (d *Drainer) at() Phase {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase
}

// DrainStatus is the progress of a drain.
type DrainStatus struct {
	Phase    Phase     `json:"phase"`
	Started  time.Time `json:"started,omitzero"`
	Deadline time.Time `json:"deadline,omitzero"`
	// Pending is how many local blocks are not in the bucket. Samples that are still in heads are not counted.
	Pending int `json:"blocks_to_ship"`
	// Unserved is how many of the Blocks that were shipped the gateways do not serve yet.
	Unserved int `json:"blocks_not_served"`
	Blocks   int `json:"blocks_shipped"`
	// Gateways is how many store gateways were asked last.
	Gateways int `json:"gateways"`
	// Sealed says that all writes are refused.
	Sealed bool `json:"refuses_writes"`
	// Warning says what the next failure does once this member has left.
	Warning string `json:"warning,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Status is the progress now.
func (d *Drainer) Status() DrainStatus {
	_, pending, err := d.r.localBlocks()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := DrainStatus{
		Phase: d.phase, Started: d.started, Deadline: d.state.deadline, Pending: pending, Blocks: len(d.blocks),
		Gateways: max(d.asked, 0), Sealed: d.state.sealed, Warning: d.warning,
	}
	s.Unserved = len(d.unserved())
	if d.err != nil {
		err = d.err
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}
