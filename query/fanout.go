package query

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
)

// collector gathers what the sources of one selection reported.
type collector struct {
	mu       sync.Mutex // guards what follows
	answered []series.Info
	failed   []failure
	heard    map[*member]series.Identity // whose data their answers say they are from
}

func (c *collector) answer(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = append(c.answered, c.about(m))
}

// hear notes whose data an answer of m says it is from.
func (c *collector) hear(m *member, id series.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard == nil {
		c.heard = map[*member]series.Identity{}
	}
	c.heard[m] = id
}

// about is the Info of m, with the identity that its answer has. The last poll may be of before a restart with an empty
// disk, or of another process that had the address. mu is held.
func (c *collector) about(m *member) series.Info {
	info := m.info
	if id, ok := c.heard[m]; ok {
		info.Instance, info.Since = id.Instance, id.Since
	}
	return info
}

func (c *collector) fail(m *member, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, failure{m.label(), m.info, err})
}

// clone is what was gathered so far.
func (c *collector) clone() *collector {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &collector{answered: slices.Clone(c.answered), failed: slices.Clone(c.failed), heard: maps.Clone(c.heard)}
}

// final reports whether err ends the query: it asks for too much, and would of any source.
func final(err error) bool {
	kind := errs.KindOf(err)
	return kind == errs.Limited || kind == errs.TooLarge
}

// own is a copy of r for one source. Prometheus's index sorts matchers in place, so no two sources may share them.
func own(r *series.Request) *series.Request {
	c := *r
	c.Matchers = slices.Clone(r.Matchers)
	return &c
}

// groupSet is the series of a group: of its first member, and from where that fails on, of the next.
// Its error is final; that all members failed is for the collector.
type groupSet struct {
	ctx    context.Context
	q      *Querier
	req    *series.Request
	col    *collector
	left   group
	call   *call
	at     *member
	asking context.Context // of at
	lease  *memory.Lease   // of all groups of the selection
	spare  int64           // bytes of it that are taken and not used yet
	sets   []series.Set    // opened so far, the last one is read
	last   labels.Labels
	found  bool // last is set
	err    error
}

func (s *groupSet) Next() bool {
	if s.err != nil {
		return false
	}
	s.call.step()
	defer s.call.step()
	for {
		if s.at == nil {
			if len(s.left) == 0 {
				return false
			}
			s.at, s.left = s.left[0], s.left[1:]
			s.q.m.asked.WithLabelValues(s.at.role()).Inc()
			s.asking = s.call.begin(s.ctx, s.q, s.col, s.at, len(s.left))
			s.sets = append(s.sets, s.at.Source.Select(s.asking, own(s.req)))
		}
		set := s.sets[len(s.sets)-1]
		for set.Next() {
			l := set.At().Labels
			if s.found && len(s.sets) > 1 && labels.Compare(l, s.last) <= 0 {
				s.call.steps.Add(2)
				continue // the member before yielded it
			}
			s.last, s.found = l, true
			if s.err = s.hold(set.At()); s.err != nil {
				return false
			}
			return true
		}
		if !s.ended(outcome(s.ctx, s.asking, set.Err())) {
			return false
		}
	}
}

// leaseStep is how many bytes are taken at a time.
const leaseStep = 64 << 10

// hold counts what a series takes in this process until the set is closed. The chunks of a source of this process are its
// own, which counts them if they are in memory.
func (s *groupSet) hold(at series.Series) error {
	size := int64(at.Labels.ByteSize()) + int64(len(at.Chunks))*int64(unsafe.Sizeof(series.Chunk{}))
	if !s.at.Local {
		size += chunkBytes(at)
	}
	if s.spare -= size; s.spare >= 0 {
		return nil
	}
	more := -s.spare + leaseStep
	s.spare += more
	return s.lease.Grow(more)
}

// ended handles the end of the current member's set and reports whether another one may go on.
func (s *groupSet) ended(err error) bool {
	m := s.at
	s.at = nil
	switch {
	case err == nil:
		s.col.answer(m)
		s.left = nil
	case s.ctx.Err() != nil:
		s.err = s.ctx.Err()
	case final(err):
		s.err = err
	default:
		s.col.fail(m, err)
		s.q.m.failed.WithLabelValues(m.role()).Inc()
		if len(s.left) > 0 {
			s.q.m.stoodIn.Inc()
			return true
		}
	}
	return false
}

func (s *groupSet) At() series.Series { return s.sets[len(s.sets)-1].At() }
func (s *groupSet) Err() error        { return s.err }

func (s *groupSet) Warnings() series.Warnings {
	if len(s.sets) == 0 {
		return nil
	}
	return s.sets[len(s.sets)-1].Warnings()
}

func (s *groupSet) Close() error {
	all := make([]error, len(s.sets))
	for i, set := range s.sets {
		all[i] = set.Close()
	}
	return errors.Join(all...)
}

// Series travel from a prefetching goroutine in batches, so that handing them over costs little: the first batch is
// small so that the merge can begin.
const (
	firstBatch = 16
	batchSize  = 256
	batches    = 4
)

// prefetchSet reads a set ahead in its own goroutine.
type prefetchSet struct {
	series.Set
	ctx    context.Context
	cancel context.CancelFunc
	ch     chan []series.Series
	batch  []series.Series
	at     int  // 1-based
	ended  bool // ch was found closed: Set is ours
}

// prefetch starts to read the set that open returns. Reading stops when the context handed to open ends.
func prefetch(ctx context.Context, open func(context.Context) series.Set) series.Set {
	ctx, cancel := context.WithCancel(ctx)
	s := &prefetchSet{Set: open(ctx), ctx: ctx, cancel: cancel, ch: make(chan []series.Series, batches)}
	go s.read(ctx)
	return s
}

// read owns the inner set until it closes ch. Close waits for that.
func (s *prefetchSet) read(ctx context.Context) {
	defer close(s.ch)
	batch := make([]series.Series, 0, firstBatch)
	for s.Set.Next() {
		if batch = append(batch, s.Set.At()); len(batch) < cap(batch) {
			continue
		}
		select {
		case s.ch <- batch:
		case <-ctx.Done():
			return
		}
		batch = make([]series.Series, 0, batchSize)
	}
	select {
	case s.ch <- batch:
	case <-ctx.Done():
	}
}

func (s *prefetchSet) Next() bool {
	for s.at >= len(s.batch) {
		batch, ok := <-s.ch
		if !ok {
			s.batch, s.at, s.ended = nil, 0, true
			return false
		}
		s.batch, s.at = batch, 0
	}
	s.at++
	return true
}

func (s *prefetchSet) At() series.Series { return s.batch[s.at-1] }

func (s *prefetchSet) Err() error {
	if !s.ended {
		return nil
	}
	if err := s.Set.Err(); err != nil {
		return err
	}
	return s.ctx.Err() // reading may have ended early
}

func (s *prefetchSet) Warnings() series.Warnings {
	if !s.ended {
		return nil
	}
	return s.Set.Warnings()
}

func (s *prefetchSet) Close() error {
	s.cancel()
	for range s.ch {
	}
	s.ended = true
	return s.Set.Close()
}
