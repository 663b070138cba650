package series

import (
	"context"
	"sync/atomic"
)

// Life is how long samples may be read. Iterators look at it at each sample: the engine looks at its context once for
// each series, and a function over long windows of one series may go on for hours after that has ended.
type Life struct {
	ctx   context.Context
	ended atomic.Bool
	stop  func() bool
}

// NewLife returns a life that ends with ctx. Close it when nothing is read any more.
func NewLife(ctx context.Context) *Life {
	l := &Life{ctx: ctx}
	l.stop = context.AfterFunc(ctx, func() { l.ended.Store(true) })
	return l
}

// Close frees what the life holds in its context. It ends no reads.
func (l *Life) Close() error {
	l.stop()
	return nil
}

func (l *Life) over() bool { return l != nil && l.ended.Load() }

func (l *Life) err() error { return context.Cause(l.ctx) }
