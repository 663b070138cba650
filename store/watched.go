package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// silent is the error of a bucket that sent nothing for a time.
type silent time.Duration

func (s silent) Error() string {
	return fmt.Sprintf("the bucket sent nothing for %s", time.Duration(s))
}

// passing reports whether err is a fault of the bucket that may be over by now. Who waited for a silent bucket does not
// wait for as long again.
func passing(err error) bool {
	return errs.KindOf(err) == errs.Unavailable && !errors.As(err, new(silent))
}

// watched is a bucket that may be slow, but not silent: a read that brings nothing for a time ends with an error.
type watched struct {
	objstore.BucketReader
	silence time.Duration
}

// Attributes implements objstore.BucketReader.
func (w watched) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	ctx, _, end := w.watch(ctx)
	defer end()
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
	ctx, timer, end := w.watch(ctx)
	r, err := open(ctx)
	if err != nil {
		err = becauseOf(ctx, err)
		end()
		return nil, err
	}
	timer.Reset(w.silence)
	return &watchedReader{r, ctx, timer, w.silence, end}, nil
}

// watch returns a context that ends when the timer is not reset in time, or by end.
func (w watched) watch(ctx context.Context) (_ context.Context, timer *time.Timer, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer = time.AfterFunc(w.silence, func() { cancel(silent(w.silence)) })
	return ctx, timer, func() {
		timer.Stop()
		cancel(nil)
	}
}

// becauseOf is why ctx ended, or err if it did not.
func becauseOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// watchedReader reads one object, and restarts the timer whenever something came.
type watchedReader struct {
	io.ReadCloser
	ctx     context.Context
	timer   *time.Timer
	silence time.Duration
	end     func()
}

func (r *watchedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.timer.Reset(r.silence)
	if err != nil && err != io.EOF {
		err = becauseOf(r.ctx, err)
	}
	return n, err
}

func (r *watchedReader) Close() error {
	r.end()
	return r.ReadCloser.Close()
}
