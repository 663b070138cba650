package main

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/web"
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

// TestParts: the page tells what keeps the process from its work from what it works without.
func TestParts(t *testing.T) {
	p := &process{health: &httpx.Health{}}
	dark := errors.New("dark")
	p.health.AddCheck("tsdb", func() error { return nil })
	p.health.AddCheck("ring", func() error { return dark })
	p.health.AddAdvice("bucket", func() error { return dark })
	p.health.AddAdvice("tenants", func() error { return nil })
	want := []web.Part{{Name: "tsdb", State: "ready"}, {Name: "ring", State: "not ready", Detail: "dark"},
		{Name: "bucket", State: "impaired", Detail: "dark"}, {Name: "tenants", State: "ready"}}
	if got := p.parts(httptest.NewRequest("GET", "/ui/state", nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
