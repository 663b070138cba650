package series

import (
	"context"
	"sync/atomic"
)

// StopFlag tells iterators that a context has ended. They read it at each sample. The engine looks at its context only
// once for each series, so without the flag a function over long windows of one series could go on for hours after the
// query was canceled.
type StopFlag struct {
	ctx     context.Context
	ended   atomic.Bool
	release func() bool
}

// NewStopFlag returns a flag that is set when ctx ends. The caller closes it after the last read.
func NewStopFlag(ctx context.Context) *StopFlag {
	f := &StopFlag{ctx: ctx}
	f.release = context.AfterFunc(ctx, func() { f.ended.Store(true) })
	return f
}

// Close frees what the flag holds in its context. It stops no reads.
func (f *StopFlag) Close() error {
	f.release()
	return nil
}

// isSet is false for a nil flag.
func (f *StopFlag) isSet() bool { return f != nil && f.ended.Load() }

// err is the reason why the context ended.
func (f *StopFlag) err() error { return context.Cause(f.ctx) }
