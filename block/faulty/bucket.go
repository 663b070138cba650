package faulty

import (
	"context"
	"errors"
	"io"

	"github.com/thanos-io/objstore"
)

// Err is the error of a request that fails.
var Err = errors.New("injected")

// Bucket is a bucket whose request number At fails, 1 being the first one: before it has an effect, or with Effect
// after it. With All so do those behind it.
type Bucket struct {
	objstore.Bucket
	N, At       int // N is how many requests there were
	All, Effect bool
}

func (b *Bucket) fails() bool { b.N++; return b.N == b.At || b.All && b.N > b.At }

// Iter implements objstore.BucketReader.
func (b *Bucket) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if b.fails() {
		return Err
	}
	return b.Bucket.Iter(ctx, dir, f, o...)
}

// Get implements objstore.BucketReader.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if b.fails() {
		return nil, Err
	}
	return b.Bucket.Get(ctx, name)
}

// GetRange implements objstore.BucketReader.
func (b *Bucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if b.fails() {
		return nil, Err
	}
	return b.Bucket.GetRange(ctx, name, off, length)
}

// Exists implements objstore.BucketReader.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	if b.fails() {
		return false, Err
	}
	return b.Bucket.Exists(ctx, name)
}

// Attributes implements objstore.BucketReader.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if b.fails() {
		return objstore.ObjectAttributes{}, Err
	}
	return b.Bucket.Attributes(ctx, name)
}

// Upload implements objstore.Bucket.
func (b *Bucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	return b.change(func() error { return b.Bucket.Upload(ctx, name, r, o...) })
}

// Delete implements objstore.Bucket.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	return b.change(func() error { return b.Bucket.Delete(ctx, name) })
}

func (b *Bucket) change(do func() error) error {
	fails := b.fails()
	if fails && !b.Effect {
		return Err
	}
	if err := do(); err != nil || !fails {
		return err
	}
	return Err
}
