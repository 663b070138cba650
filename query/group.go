package query

import (
	"context"
	"errors"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
)

// groupSet is the series of a group. It reads the first endpoint, and goes on with the next one where that one fails.
// Its error ends the request. It is no error when all endpoints fail: the collector has recorded that.
type groupSet struct {
	asking
	ctx   context.Context
	lease *memory.Lease // of all groups of the selection
	spare int64         // bytes of it that are taken and not used yet
	sets  []series.Set  // opened so far, the last one is read
	open  bool          // the last one has not ended
	fresh bool          // the last one has not yielded a series
	last  labels.Labels
	found bool // last is set
	err   error
}

// prefetch begins to read s in a goroutine of its own.
func (s *groupSet) prefetch() series.Set {
	return prefetch(s.ctx, func(ctx context.Context) series.Set {
		s.ctx = ctx
		return s
	})
}

func (s *groupSet) Next() bool {
	if s.err != nil {
		return false
	}
	s.call.step()
	defer s.call.step()
	for {
		if !s.open {
			asked, ok := s.next(s.ctx)
			if !ok {
				return false
			}
			s.sets, s.open = append(s.sets, s.at.Source.Select(asked, s.request())), true
			s.fresh = true
		}
		set := s.sets[len(s.sets)-1]
		for set.Next() {
			if s.fresh {
				s.fresh = false
				s.begun()
			}
			l := set.At().Labels
			if s.found && len(s.sets) > 1 && labels.Compare(l, s.last) <= 0 {
				s.call.steps.Add(2)
				continue // an endpoint that failed later has already yielded it
			}
			s.last, s.found = l, true
			if s.err = s.hold(set.At()); s.err != nil {
				return false
			}
			return true
		}
		s.open = false
		var again bool
		if again, s.err = s.ended(s.ctx, set.Err()); !again {
			return false
		}
	}
}

// leaseStep is how many bytes are taken from the lease at a time, since each taking costs a lock.
const leaseStep = 64 << 10

// hold takes memory for a series, which is held until the set is closed. The chunks of a source in this process are not
// counted: they belong to that source, which counts them if they are in memory.
func (s *groupSet) hold(at series.Series) error {
	size := int64(at.Labels.ByteSize()) + int64(len(at.Chunks))*int64(unsafe.Sizeof(series.Chunk{}))
	if !s.at.Local {
		size += int64(at.ChunkBytes())
	}
	if s.spare -= size; s.spare >= 0 {
		return nil
	}
	more := -s.spare + leaseStep
	s.spare += more
	return s.lease.Grow(more)
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
