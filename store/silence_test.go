package store

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// tardy is a bucket whose answers begin after a time, and send a byte every so often; some bytes never come.
type tardy struct {
	objstore.BucketReader
	begin, each time.Duration
	sent        int
}

func (b *tardy) GetRange(ctx context.Context, _ string, _, _ int64) (io.ReadCloser, error) {
	if err := sleep(ctx, b.begin); err != nil {
		return nil, err
	}
	return io.NopCloser(&drip{ctx, b.each, b.sent}), nil
}

func (*tardy) IsObjNotFoundErr(error) bool { return false }

type drip struct {
	ctx  context.Context
	each time.Duration
	left int
}

func (d *drip) Read(b []byte) (int, error) {
	wait := d.each
	if d.left--; d.left < 0 {
		wait = time.Hour
	}
	if err := sleep(d.ctx, wait); err != nil {
		return 0, err
	}
	return copy(b, "x"), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// TestSilentBucket: a bucket may be slow, but not silent.
func TestSilentBucket(t *testing.T) {
	f := func(what string, b *tardy, want string) {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &objects{bkt: watched{b, 10 * time.Second}, metrics: newMetrics(nil, 1)}
				got := make([]byte, 3)
				_, err := o.fetch(t.Context(), file{object: "object"}, 0, [][]byte{got})
				if want == "" {
					if err != nil || string(got) != "xxx" {
						t.Errorf("%q, error %v", got, err)
					}
					return
				}
				if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), want) {
					t.Errorf("%q, error %v, want %s", got, err, want)
				}
			})
		})
	}
	f("slow", &tardy{begin: 9 * time.Second, each: 9 * time.Second, sent: 3}, "")
	f("no answer", &tardy{begin: time.Hour}, "object: the bucket sent nothing for 10s")
	f("an answer that stops", &tardy{begin: time.Second, each: time.Second, sent: 2},
		"object: the bucket sent nothing for 10s")
}
