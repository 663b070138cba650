package receive

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb"
)

// threeBlocks makes blocks of a tenant that are not in the bucket.
func threeBlocks(t *testing.T, r *Receiver, id tenant.ID) []tsdb.LocalBlock {
	t.Helper()
	for i := range 3 {
		write(t, r, id, labels.FromStrings("__name__", "up"), time.Now().Add(time.Duration(i-10)*time.Minute), 1)
		if err := r.db.Cut(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	blocks, err := r.db.Blocks(id)
	if err != nil || len(blocks) != 3 {
		t.Fatalf("%d blocks: %v", len(blocks), err)
	}
	return blocks
}

// TestShipFaultyBlock has a block that is wrong in the middle of good ones, of this tenant and of another: all others
// are shipped, and the gauges tell of the one that is not.
func TestShipFaultyBlock(t *testing.T) {
	truncate := func(name string, n int64) func(string) error {
		return func(dir string) error { return os.Truncate(filepath.Join(dir, name), n) }
	}
	unreadable := func(name string) func(string) error {
		return func(dir string) error {
			p := filepath.Join(dir, name)
			return errors.Join(os.RemoveAll(p), os.Symlink(p, p))
		}
	}
	for name, fault := range map[string]func(dir string) error{
		"meta.json empty":      truncate("meta.json", 0),
		"meta.json missing":    func(dir string) error { return os.Remove(filepath.Join(dir, "meta.json")) },
		"meta.json garbage":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "meta.json"), []byte("]"), 0o666) },
		"meta.json unreadable": unreadable("meta.json"),
		"version of meta.json": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "meta.json"), []byte(`{"version":2}`), 0o666)
		},
		"index empty":           truncate("index", 0),
		"index truncated":       truncate("index", 100),
		"index unreadable":      unreadable("index"),
		"chunks missing":        func(dir string) error { return os.RemoveAll(filepath.Join(dir, "chunks")) },
		"a file of chunks gone": func(dir string) error { return os.Remove(filepath.Join(dir, "chunks", "000001")) },
		"chunks truncated":      truncate("chunks/000001", 8),
		"chunks unreadable":     unreadable("chunks/000001"),
	} {
		t.Run(name, func(t *testing.T) {
			bkt := objstore.NewInMemBucket()
			start, stop := start(t, t.TempDir(), bkt, func(_ *tsdb.Options, o *Options) { o.Retry = time.Hour })
			defer stop()
			r := start
			blocks := threeBlocks(t, r, team)
			threeBlocks(t, r, "zz")
			// Sizes and contents are looked at by a process that has not seen the block before.
			aside := filepath.Join(t.TempDir(), "whole")
			if err := errors.Join(os.CopyFS(aside, os.DirFS(blocks[1].Dir)), fault(blocks[1].Dir)); err != nil {
				t.Fatal(err)
			}
			stop()
			opened := time.Now().Add(-time.Second)
			r, stop = again(t, r, bkt)
			defer stop()
			eventually(t, func() bool { return testutil.ToFloat64(r.shipMetrics.Pending) == 1 }) // the first look at the start
			if n := testutil.ToFloat64(r.shipMetrics.Failures); n != 1 {
				t.Errorf("%v failures, want 1", n)
			}
			if err := r.shipAll(t.Context(), true); errs.KindOf(err) != errs.Invalid ||
				!strings.Contains(err.Error(), blocks[1].ID.String()) {
				t.Fatalf("ship: %v", err)
			}
			if n := len(blocksIn(t, bkt)); n != 5 {
				t.Fatalf("%d blocks in the bucket, want 5", n)
			}
			told := func(pending int) {
				t.Helper()
				if n := testutil.ToFloat64(r.shipMetrics.Pending); n != float64(pending) {
					t.Errorf("unshipped blocks %v, want %d", n, pending)
				}
				oldest := 0.0
				if pending > 0 {
					oldest = float64(ulid.Time(blocks[1].ID.Time()).Unix())
				}
				if at := testutil.ToFloat64(r.shipMetrics.Oldest); at != oldest {
					t.Errorf("the oldest is of %v, want %v", at, oldest)
				}
			}
			told(1)
			if at := testutil.ToFloat64(r.shipMetrics.Success); at < float64(opened.Unix()) {
				t.Errorf("an alert would count from %v", at)
			}
			if err := r.shipAll(t.Context(), false); err != nil { // it has to wait
				t.Errorf("ship again: %v", err)
			}
			told(1)
			write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
			if err := r.db.Cut(t.Context(), team); err != nil {
				t.Fatal(err)
			}
			if err := r.shipAll(t.Context(), false); err != nil || len(blocksIn(t, bkt)) != 6 {
				t.Errorf("a new block waits for the faulty one: %v, %d in the bucket", err, len(blocksIn(t, bkt)))
			}
			answer := httptest.NewRecorder()
			r.HandleFlush(answer, httptest.NewRequest(http.MethodPost, "/", nil))
			if answer.Code != http.StatusInternalServerError || !strings.Contains(answer.Body.String(), blocks[1].ID.String()) {
				t.Errorf("flush: %d %s", answer.Code, answer.Body)
			}
			if _, pending, err := r.localBlocks(); pending != 1 || err != nil {
				t.Errorf("a drain sees %d blocks to ship, %v", pending, err)
			}
			where := blocks[1].Dir
			if f := r.db.Faults(team); len(f) == 1 {
				where = f[0].Dir
			}
			if err := errors.Join(os.RemoveAll(where), os.CopyFS(where, os.DirFS(aside))); err != nil {
				t.Fatal(err)
			}
			stop()
			r, stop = again(t, r, bkt)
			defer stop()
			if err := r.shipAll(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			told(0)
			if n := len(blocksIn(t, bkt)); n != 7 {
				t.Errorf("%d blocks in the bucket, want 7", n)
			}
		})
	}
}

// again starts another receiver on the directory of one that was stopped.
func again(t *testing.T, r *Receiver, bkt objstore.Bucket) (*Receiver, func()) {
	t.Helper()
	return start(t, filepath.Dir(r.db.TenantDir(team)), bkt, func(_ *tsdb.Options, o *Options) { o.Retry = time.Hour })
}

// TestFaultyBlockInBucket has a local block that cannot be read, and is whole in the bucket, but on no list.
func TestFaultyBlockInBucket(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	r, stop := start(t, t.TempDir(), bkt, nil)
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	blocks, _ := r.db.Blocks(team)
	stop()
	if err := errors.Join(os.Truncate(filepath.Join(blocks[0].Dir, "index"), 10),
		os.Remove(filepath.Join(r.db.TenantDir(team), ship.RecordName))); err != nil {
		t.Fatal(err)
	}
	r, _ = again(t, r, bkt)
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.Shipped(team, blocks[0].ID) || testutil.ToFloat64(r.shipMetrics.Pending) != 0 {
		t.Fatalf("shipped %v, %v unshipped", r.Shipped(team, blocks[0].ID), testutil.ToFloat64(r.shipMetrics.Pending))
	}
}

// TestShipUnlistedTenant has a tenant whose directory cannot be listed.
func TestShipUnlistedTenant(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	r, _ := start(t, t.TempDir(), bkt, nil)
	for _, id := range []tenant.ID{"a", "b"} {
		write(t, r, id, labels.FromStrings("__name__", "up"), time.Now(), 1)
	}
	if err := r.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := r.db.TenantDir("a")
	if err := errors.Join(os.Rename(dir, dir+".aside"), os.Symlink(dir, dir)); err != nil {
		t.Fatal(err)
	}
	failures := testutil.ToFloat64(r.shipMetrics.Failures)
	if err := r.shipAll(t.Context(), false); err == nil || !strings.Contains(err.Error(), `tenant "a"`) {
		t.Errorf("ship: %v", err)
	}
	if testutil.ToFloat64(r.shipMetrics.Failures) == failures {
		t.Error("nothing counts it")
	}
	if n := len(blocksIn(t, bkt)); n != 1 {
		t.Errorf("%d blocks in the bucket, want that of the other tenant", n)
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".aside", dir), r.shipAll(t.Context(), false)); err != nil {
		t.Fatal(err)
	}
	if n := len(blocksIn(t, bkt)); n != 2 {
		t.Errorf("%d blocks in the bucket, want 2", n)
	}
}

// darkBucket takes uploads and never answers.
type darkBucket struct {
	objstore.Bucket
	began chan struct{}
}

func (b *darkBucket) Upload(ctx context.Context, _ string, _ io.Reader, _ ...objstore.ObjectUploadOption) error {
	b.began <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// TestShipInTurn has two who want to ship one tenant's blocks: the second holds no slot while it waits.
func TestShipInTurn(t *testing.T) {
	bkt := &darkBucket{objstore.NewInMemBucket(), make(chan struct{}, 10)}
	r, _ := start(t, t.TempDir(), bkt, func(_ *tsdb.Options, o *Options) { o.ShipConcurrency = 2 })
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	if err := r.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 {
		go func() { ended <- r.shipAll(ctx, true) }()
	}
	<-bkt.began
	eventually(t, func() bool { return len(r.slots) == 1 })
	if err := r.shipAll(t.Context(), false); err != nil { // the others do it
		t.Errorf("ship: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-ended; errs.KindOf(err) != errs.Unavailable {
			t.Errorf("ship: %v", err)
		}
	}
	if err := r.shipperOf(team).WaitIdle(t.Context()); err != nil || len(r.slots) != 0 {
		t.Errorf("%d slots are held, %v", len(r.slots), err)
	}
}

// TestForgetsRemovedTenants forgets what was shipped of a tenant that is gone.
func TestForgetsRemovedTenants(t *testing.T) {
	r, _ := start(t, t.TempDir(), objstore.NewInMemBucket(), nil)
	r.shipperOf("gone")
	if err := r.shipAll(t.Context(), false); err != nil || len(r.shippers) != 0 {
		t.Fatalf("%v, %d are known", err, len(r.shippers))
	}
}

// pickyBucket does not take the objects of one block, as one that allows no overwriting does when an upload ended
// half-way.
type pickyBucket struct {
	objstore.Bucket
	not string
}

func (b *pickyBucket) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if b.not != "" && strings.HasPrefix(name, b.not) {
		return errFault
	}
	return b.Bucket.Upload(ctx, name, r, opts...)
}

// TestShipBlockTheBucketRefuses has a bucket that does not take the oldest block: the others come into it.
func TestShipBlockTheBucketRefuses(t *testing.T) {
	bkt := &pickyBucket{Bucket: objstore.NewInMemBucket(), not: "0"}
	r, _ := start(t, t.TempDir(), bkt, nil)
	blocks := threeBlocks(t, r, team)
	bkt.not = blocks[0].ID.String()
	for try := range 3 {
		if err := r.shipAll(t.Context(), true); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("try %d: %v", try, err)
		}
	}
	if n := len(blocksIn(t, bkt)); n != 2 {
		t.Fatalf("%d blocks in the bucket, want the other 2", n)
	}
}

// TestShipChunksGoneMeanwhile loses chunks of a block between two tries: without them it must not count as shipped.
func TestShipChunksGoneMeanwhile(t *testing.T) {
	bkt := &faultBucket{Bucket: objstore.NewInMemBucket(), failAt: 1}
	r, _ := start(t, t.TempDir(), bkt, nil)
	write(t, r, team, labels.FromStrings("__name__", "up"), time.Now(), 1)
	if err := r.Flush(t.Context()); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("flush: %v", err)
	}
	blocks, err := r.db.Blocks(team)
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	if err := os.RemoveAll(filepath.Join(blocks[0].Dir, "chunks")); err != nil {
		t.Fatal(err)
	}
	if err := r.shipAll(t.Context(), true); errs.KindOf(err) != errs.Invalid || r.Shipped(team, blocks[0].ID) ||
		len(blocksIn(t, bkt)) != 0 {
		t.Fatalf("ship: %v; %d blocks in the bucket", err, len(blocksIn(t, bkt)))
	}
}
