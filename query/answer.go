package query

import (
	"context"
	"slices"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
)

// answerSet is the merged series of a selection. It enforces limits while it is read, and judges completeness at its
// end.
type answerSet struct {
	series.Set
	ctx    context.Context
	cancel context.CancelFunc
	sel    *selection
	lease  *memory.Lease // for what this process holds of the set

	yielded int
	done    bool
	missing []string
	err     error
}

func (s *answerSet) Next() bool {
	if s.done {
		return false
	}
	if early := s.sel.req.Limit > 0 && s.yielded >= s.sel.req.Limit; early || !s.Set.Next() {
		s.finish(early)
		return false
	}
	s.yielded++
	if s.err = s.sel.charge(s.Set.At()); s.err != nil {
		s.done = true
		return false
	}
	return true
}

// charge counts the series at towards the limits of the query.
func (s *selection) charge(at series.Series) error {
	if n := s.p.series.Add(1); s.q.opts.MaxSeries > 0 && n > int64(s.q.opts.MaxSeries) {
		return errs.E(errs.Limited, "the query selects more than %d series (limit on series per query)", s.q.opts.MaxSeries)
	}
	if s.q.opts.MaxBytes <= 0 {
		return nil
	}
	if s.p.bytes.Add(int64(at.ChunkBytes())) > s.q.opts.MaxBytes {
		return errs.E(errs.Limited, "the query reads more than %d bytes of chunks (limit on bytes per query)",
			s.q.opts.MaxBytes)
	}
	return nil
}

func (s *answerSet) finish(early bool) {
	s.done = true
	s.sel.watch.stop()
	if s.Set.Err() != nil {
		return
	}
	if s.err = s.ctx.Err(); s.err != nil {
		return
	}
	s.missing, s.err = s.sel.judge(s.Set.Warnings(), early)
}

func (s *answerSet) Err() error {
	err := s.err
	if err == nil {
		err = s.Set.Err()
	}
	s.sel.p.fail(err)
	return err
}

func (s *answerSet) Warnings() series.Warnings {
	return withMissing(slices.Clone(s.Set.Warnings()), s.missing)
}

func (s *answerSet) Close() error {
	s.sel.watch.stop()
	s.cancel()
	err := s.Set.Close()
	s.lease.Close()
	return err
}
