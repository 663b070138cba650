package store

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/thanos-io/objstore"
)

// watched is a bucket that may be slow, but not silent: a read that brings nothing for a time ends with an error.
type watched struct {
	objstore.BucketReader
	silence time.Duration
}

// Attributes implements objstore.BucketReader.
func (w watched) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	ctx, silent, end := w.watch(ctx)
	defer end()
	defer silent.Stop()
	attrs, err := w.BucketReader.Attributes(ctx, name)
	if err != nil {
		err = becauseOf(ctx, err)
	}
	return attrs, err
}

// Get implements objstore.BucketReader.
func (w watched) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return w.reader(ctx, func(ctx context.Context) (io.ReadCloser, error) { return w.BucketReader.Get(ctx, name) })
}

// GetRange implements objstore.BucketReader.
func (w watched) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	return w.reader(ctx, func(ctx context.Context) (io.ReadCloser, error) {
		return w.BucketReader.GetRange(ctx, name, off, n)
	})
}

func (w watched) reader(ctx context.Context,
	open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	ctx, silent, end := w.watch(ctx)
	r, err := open(ctx)
	if err != nil {
		err = becauseOf(ctx, err)
		silent.Stop()
		end()
		return nil, err
	}
	silent.Reset(w.silence)
	return &watchedReader{lively{r, silent, w.silence}, r, ctx, end}, nil
}

// watch returns a context that ends when the timer is not reset in time.
func (w watched) watch(ctx context.Context) (context.Context, *time.Timer, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	silent := time.AfterFunc(w.silence, func() { cancel(fmt.Errorf("the bucket sent nothing for %s", w.silence)) })
	return ctx, silent, func() { cancel(nil) }
}

// becauseOf is why ctx ended, or err if it did not.
func becauseOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// watchedReader reads one object.
type watchedReader struct {
	lively
	r   io.Closer
	ctx context.Context
	end func()
}

func (r *watchedReader) Read(b []byte) (int, error) {
	n, err := r.lively.Read(b)
	if err != nil && err != io.EOF {
		err = becauseOf(r.ctx, err)
	}
	return n, err
}

func (r *watchedReader) Close() error {
	r.timer.Stop()
	r.end()
	return r.r.Close()
}

// lively restarts a timer whenever something was read.
type lively struct {
	io.Reader
	timer *time.Timer
	by    time.Duration
}

func (l lively) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	l.timer.Reset(l.by)
	return n, err
}
