package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
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
	b := newBucket(broken, slog.New(slog.DiscardHandler), bucketUse{})
	f := func(err error, want string) {
		t.Helper()
		broken.err = err
		_ = b.look(t.Context()) // answers has the error
		if got := b.answers(); (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
			t.Errorf("after %v: %v, want %q", err, got, want)
		}
	}
	f(nil, "") // empty, and there
	f(errors.New("connection refused"), "connection refused")
	f(errors.New("access denied"), "access denied")
	f(nil, "")
}

// slowBucket never ends an upload.
type slowBucket struct{ objstore.Bucket }

func (slowBucket) Upload(ctx context.Context, _ string, _ io.Reader, _ ...objstore.ObjectUploadOption) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestStartAlone: a process that is alone does not wait until the bucket has an identity.
func TestStartAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(slowBucket{objstore.NewInMemBucket()}, slog.New(slog.DiscardHandler),
			bucketUse{cluster: "c", writes: true})
		b.own = block.Owner{Cluster: "c", TenantLabel: "t", ReplicaLabel: "r"}
		start := time.Now()
		if err := b.open(t.Context(), func(err error) { t.Errorf("the process fails: %v", err) }); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > 0 { // by the clock of the bubble
			t.Errorf("waited for %s", waited)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
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
