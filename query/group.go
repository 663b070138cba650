package query

import (
	"context"
	"errors"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
)

// groupSet is the series of a group: of its first endpoint, and from where that fails on, of the next.
// Its error is final; that all endpoints failed is for the collector.
type groupSet struct {
	ctx    context.Context
	q      *Querier
	req    *series.Request
	col    *collector
	left   group
	call   *call
	at     *endpoint
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
				continue // the endpoint before yielded it
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

// ended handles the end of the current endpoint's set and reports whether another one may go on.
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
