package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"
)

// brokenBucket answers every Get with err, unless that is nil.
type brokenBucket struct {
	objstore.Bucket
	err error
}

func (b *brokenBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Bucket.Get(ctx, name)
}

// TestBucketAnswers: readiness says of the bucket what the last look at it found.
func TestBucketAnswers(t *testing.T) {
	broken := &brokenBucket{Bucket: objstore.NewInMemBucket()}
	b := &bucket{Bucket: broken}
	f := func(err error, want string) {
		t.Helper()
		broken.err = err
		b.look(t.Context())
		if got := b.answers(); (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
			t.Errorf("after %v: %v, want %q", err, got, want)
		}
	}
	f(nil, "") // empty, and there
	f(errors.New("connection refused"), "connection refused")
	f(errors.New("access denied"), "access denied")
	f(nil, "")
}
