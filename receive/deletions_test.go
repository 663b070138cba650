package receive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb"
)

// deleting is a receiver whose clock, and that of its requests, is ahead of the machine's.
type deleting struct {
	*Receiver
	t     *testing.T
	dir   string
	bkt   objstore.Bucket
	ahead atomic.Int64
	stop  func()
}

func startDeleting(t *testing.T) *deleting {
	d := &deleting{t: t, dir: t.TempDir(), bkt: objstore.NewInMemBucket()}
	d.open()
	return d
}

func (d *deleting) open() {
	d.Receiver, d.stop = start(d.t, d.dir, d.bkt, func(_ *tsdb.Options, o *Options) {
		o.DeletionInterval = time.Hour // tests look themselves
		o.Now = func() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }
	})
}

// ask asks for the deletion of a tenant, as of an hour ago, due in that time.
func (d *deleting) ask(id tenant.ID, due time.Duration) deletion.Request {
	d.t.Helper()
	q := deletion.New(id, d.opts.Now().Add(-time.Hour), due+time.Hour)
	if err := deletion.Put(d.t.Context(), d.bkt, q); err != nil {
		d.t.Fatal(err)
	}
	return q
}

// settle lets a second pass for the receiver, and as much for the file system as it may round times by.
func (d *deleting) settle() {
	time.Sleep(20 * time.Millisecond)
	d.ahead.Add(int64(time.Second))
}

// try writes a sample and returns the error.
func (d *deleting) try(id tenant.ID) error {
	b := wire.NewBatch(id)
	b.Add(labels.FromStrings("a", "b")).Samples = []wire.Sample{{T: time.Now().UnixMilli(), V: 1}}
	failures, err := d.Write(d.t.Context(), wire.All(b))
	if err == nil && len(failures) > 0 {
		d.t.Fatal(failures)
	}
	return err
}

// reads is how many series reads find, by each way.
func (d *deleting) reads(id tenant.ID) (n int) {
	d.t.Helper()
	req := &series.Request{Tenant: id, MinTime: 0, MaxTime: time.Now().Add(time.Hour).UnixMilli()}
	set := d.Select(d.t.Context(), req)
	defer set.Close()
	for set.Next() {
		n++
	}
	names, _, err := d.LabelNames(d.t.Context(), req)
	if err != nil || set.Err() != nil || (len(names) > 0) != (n > 0) || (len(d.Streams(id)) > 0) != (n > 0) {
		d.t.Errorf("%d series, labels %v, %v %v", n, names, err, set.Err())
	}
	return n
}

// TestDeleteTenant: writes are refused at once, reads go on until it is due, and then head, blocks and directory go.
// The other tenant is untouched.
func TestDeleteTenant(t *testing.T) {
	d := startDeleting(t)
	now := time.Now().Add(-time.Minute)
	write(t, d.Receiver, team, labels.FromStrings("a", "b"), now, 1, 2)
	write(t, d.Receiver, "other", labels.FromStrings("a", "b"), now, 1)
	if err := d.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, d.Receiver, team, labels.FromStrings("a", "c"), now, 1, 2)
	q := d.ask(team, time.Hour)
	if err := d.try(team); err != nil {
		t.Errorf("before the look: %v", err)
	}
	d.followDeletions(t.Context())
	err := d.try(team)
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), q.ID.String()) {
		t.Errorf("refusal: %v", err)
	}
	if d.try("other") != nil || d.reads(team) != 2 || d.reads("other") != 1 {
		t.Error("reads while it waits")
	}
	if err := d.shipAll(t.Context(), true); err != nil || len(blocksIn(t, d.bkt)) != 2 {
		t.Errorf("shipped while it waits: %v", err)
	}
	// Undone and asked again.
	if err := deletion.PutUndo(t.Context(), d.bkt, deletion.NewChange(q.ID, d.opts.Now())); err != nil {
		t.Fatal(err)
	}
	d.followDeletions(t.Context())
	if err := d.try(team); err != nil || d.reads(team) != 2 {
		t.Errorf("undone: %v", err)
	}
	second := d.ask(team, -time.Second)
	list, err := deletion.NewReader(d.bkt).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.asked.Store(list) // heard of, and not removed yet
	if d.reads(team) != 0 || errs.KindOf(d.try(team)) != errs.Invalid {
		t.Error("due: it is still read or written")
	}
	if err := d.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.shipAll(t.Context(), true); err != nil || len(blocksIn(t, d.bkt)) != 3 { // that of the other tenant
		t.Errorf("due: it is shipped, %v", err)
	}
	d.followDeletions(t.Context())
	if d.db.Has(team) || d.reads(team) != 0 || d.reads("other") != 1 {
		t.Error("not removed")
	}
	if _, err := os.Stat(d.db.TenantDir(team)); !os.IsNotExist(err) {
		t.Error(err)
	}
	// It may be made anew.
	if err := deletion.PutRenewal(t.Context(), d.bkt, deletion.NewChange(second.ID, d.opts.Now())); err != nil {
		t.Fatal(err)
	}
	d.followDeletions(t.Context())
	if errs.KindOf(d.try(team)) != errs.Invalid {
		t.Error("it takes writes at once")
	}
	d.settle()
	if err := d.try(team); err != nil || d.reads(team) != 1 {
		t.Errorf("anew: %v", err)
	}
	d.followDeletions(t.Context())
	if d.reads(team) != 1 {
		t.Error("what is new was deleted")
	}
}

// TestDeletionWhileAway: a receiver that was away while its tenant was deleted, and made anew, ships and serves
// nothing of what it had.
func TestDeletionWhileAway(t *testing.T) {
	for _, anew := range []bool{false, true} {
		d := startDeleting(t)
		write(t, d.Receiver, team, labels.FromStrings("a", "b"), time.Now().Add(-time.Minute), 1, 2)
		if err := d.db.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, d.Receiver, team, labels.FromStrings("a", "c"), time.Now().Add(-time.Minute), 1, 2)
		d.stop()
		d.settle()
		q := d.ask(team, -time.Millisecond)
		if anew {
			if err := deletion.PutRenewal(t.Context(), d.bkt, deletion.NewChange(q.ID, d.opts.Now())); err != nil {
				t.Fatal(err)
			}
		}
		d.open()
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(blocksIn(t, d.bkt)); n != 0 || d.reads(team) != 0 || d.db.Has(team) {
			t.Errorf("anew %v: %d blocks, %d series", anew, n, d.reads(team))
		}
		d.settle()
		if err := d.try(team); (err == nil) != anew {
			t.Errorf("anew %v: %v", anew, err)
		}
	}
}

// TestDeletionWrongClock: a receiver whose clock is ahead hides the tenant and deletes nothing of it.
func TestDeletionWrongClock(t *testing.T) {
	d := startDeleting(t)
	write(t, d.Receiver, team, labels.FromStrings("a", "b"), time.Now().Add(-time.Minute), 1, 2)
	d.ask(team, 24*time.Hour)
	d.ahead.Store(int64(48 * time.Hour))
	d.followDeletions(t.Context())
	if !d.db.Has(team) || d.reads(team) != 0 {
		t.Error("deleted by a wrong clock")
	}
	d.ahead.Store(0)
	d.followDeletions(t.Context())
	if d.reads(team) != 1 {
		t.Error("it is not there any more")
	}
}

// TestDeletionOfUnknownAge: a directory of which nobody knows when it was made goes when its tenant's deletion is
// due, and not before.
func TestDeletionOfUnknownAge(t *testing.T) {
	d := startDeleting(t)
	write(t, d.Receiver, team, labels.FromStrings("a", "b"), time.Now().Add(-time.Minute), 1, 2)
	mark := filepath.Join(d.db.TenantDir(team), "hearth-tenant.json")
	if err := errors.Join(os.Remove(mark), os.Symlink(mark, mark)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.db.Made(team); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	d.ask(team, time.Hour)
	d.followDeletions(t.Context())
	if !d.db.Has(team) || d.reads(team) != 1 {
		t.Fatal("deleted before it was due")
	}
	d.ask(team, -time.Minute)
	d.followDeletions(t.Context())
	if d.db.Has(team) || d.reads(team) != 0 {
		t.Error("not deleted")
	}
}

// TestDeletionUnknown: while the bucket does not say which tenants are deleted, writes go on and nothing is shipped.
func TestDeletionUnknown(t *testing.T) {
	d := startDeleting(t)
	write(t, d.Receiver, team, labels.FromStrings("a", "b"), time.Now().Add(-time.Minute), 1, 2)
	if err := d.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.asked.Store(nil)
	if err := d.shipAll(t.Context(), true); errs.KindOf(err) != errs.Unavailable || d.try(team) != nil {
		t.Errorf("shipped: %v", err)
	}
	d.followDeletions(t.Context())
	if err := d.shipAll(t.Context(), true); err != nil || len(blocksIn(t, d.bkt)) != 1 {
		t.Error(err)
	}
	// What cannot be read has no effect.
	for _, text := range []string{"", "{", `{"version":7,"tenant":"team"}`} {
		name := deletion.Folder + deletion.New(team, time.Now(), 0).ID.String() + ".json"
		if err := d.bkt.Upload(t.Context(), name, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	d.followDeletions(t.Context())
	if err := d.try(team); err != nil || d.reads(team) != 1 || d.toldDeletions == "" {
		t.Errorf("%v, told %q", err, d.toldDeletions)
	}
	told := d.toldDeletions
	for range 5 {
		if d.followDeletions(t.Context()); d.toldDeletions != told {
			t.Errorf("the same faults are told anew: %q, before %q", d.toldDeletions, told)
		}
	}
}
