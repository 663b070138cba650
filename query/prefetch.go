package query

import (
	"context"

	"github.com/hearth-metrics/hearth/internal/series"
)

// Series are handed over from a prefetching goroutine in batches, since handing over single series costs more. The
// first batch is small, so that the merge can begin early.
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
	ended  bool // ch is closed: the goroutine does not use Set any more
}

// prefetch starts to read the set that open returns. Reading stops when the context handed to open ends.
func prefetch(ctx context.Context, open func(context.Context) series.Set) series.Set {
	ctx, cancel := context.WithCancel(ctx)
	s := &prefetchSet{Set: open(ctx), ctx: ctx, cancel: cancel, ch: make(chan []series.Series, batches)}
	go s.read(ctx)
	return s
}

// read owns the inner set until it closes ch. Only after that may the reader of s use the inner set.
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
