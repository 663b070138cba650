package compact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

var errDead = errors.New("the process is dead")

// mortal is a bucket whose process dies at a call: nothing has an effect from then on.
type mortal struct {
	objstore.Bucket
	mu    sync.Mutex
	left  int  // calls until it dies; negative = it lives
	after bool // the last call has its effect
	reads bool // reads count, too
	calls int
	die   func()
	dead  bool
}

// step counts a call. effect says whether it takes place, err what the caller gets.
func (b *mortal) step(write bool) (effect bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return false, errDead
	}
	if !write && !b.reads {
		return true, nil
	}
	b.calls++
	if b.left != 0 {
		b.left--
		return true, nil
	}
	b.dead = true
	if b.die != nil {
		b.die()
	}
	return b.after, errDead
}

func (b *mortal) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	effect, err := b.step(true)
	if effect {
		return errors.Join(b.Bucket.Upload(context.WithoutCancel(ctx), name, r, o...), err)
	}
	return err
}

func (b *mortal) Delete(ctx context.Context, name string) error {
	effect, err := b.step(true)
	if effect {
		return errors.Join(b.Bucket.Delete(context.WithoutCancel(ctx), name), err)
	}
	return err
}

func (b *mortal) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if _, err := b.step(false); err != nil {
		return nil, err
	}
	return b.Bucket.Get(ctx, name)
}

func (b *mortal) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if _, err := b.step(false); err != nil {
		return nil, err
	}
	return b.Bucket.GetRange(ctx, name, off, length)
}

func (b *mortal) Exists(ctx context.Context, name string) (bool, error) {
	if _, err := b.step(false); err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

func (b *mortal) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if _, err := b.step(false); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

func (b *mortal) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if _, err := b.step(false); err != nil {
		return err
	}
	return b.Bucket.Iter(ctx, dir, f, o...)
}

// crashBlocks are few, and yet have all kinds of jobs.
func crashBlocks() []made { return slices.Concat(replicas("a", 5), long("bb", 7)) }

// points are the calls at which tests break a process off: all of them with HEARTH_SLOW, else some.
func points(calls int) (all []int) {
	each := 1
	if os.Getenv("HEARTH_SLOW") == "" {
		each = max(calls/9, 1)
	}
	for k := 0; k < calls; k += each {
		all = append(all, k)
	}
	return all
}

// TestKilled ends the process before and after each write to the bucket, and at reads. At every point a reader finds
// each sample once, and another process makes the same bucket of it.
func TestKilled(t *testing.T) {
	blocks := crashBlocks()
	start, want := putAll(t, blocks), wanted(blocks)
	undisturbed := &mortal{Bucket: clone(start), left: -1, reads: true}
	o := testOptions(t, "one")
	o.DeleteDelay = 0 // so that deletions are among the calls
	once(t, newCompactor(t, undisturbed, o))
	end := content(t, undisturbed.Bucket.(*objstore.InMemBucket))
	got, twice := samplesOf(t, undisturbed)
	if sameSamples(t, got, want); twice > 0 {
		t.Fatalf("%d samples are there twice", twice)
	}
	calls := undisturbed.calls
	for _, kind := range []string{"before", "after", "read"} {
		for _, k := range points(calls) {
			bkt := clone(start)
			ctx, cancel := context.WithCancel(t.Context())
			m := &mortal{Bucket: bkt, left: k, after: kind == "after", reads: kind == "read", die: cancel}
			err := newCompactor(t, m, o).Once(ctx)
			cancel()
			if !m.dead {
				break // there are no more calls of this kind
			}
			if err == nil && kind != "after" {
				t.Errorf("%s call %d: no error", kind, k)
			}
			got, _ := samplesOf(t, bkt)
			sameSamples(t, got, want)
			again := newCompactor(t, bkt, o)
			once(t, again)
			once(t, again) // what a first pass found half deleted
			sameContent(t, content(t, bkt), end)
			if t.Failed() {
				t.Fatalf("%s call %d of %d", kind, k, calls)
			}
		}
	}
}

// TestBucketFails: single calls fail, and the process goes on. Jobs are tried again, and the bucket becomes the same.
func TestBucketFails(t *testing.T) {
	blocks := crashBlocks()
	start, want := putAll(t, blocks), wanted(blocks)
	undisturbed := &flaky{Bucket: clone(start), fail: -1}
	o := testOptions(t, "one")
	once(t, newCompactor(t, undisturbed, o))
	end := content(t, undisturbed.Bucket.(*objstore.InMemBucket))
	for _, k := range points(undisturbed.calls) {
		bkt := clone(start)
		o, now := testOptions(t, "one"), time.Now()
		o.Now = func() time.Time { return now }
		c := newCompactor(t, &flaky{Bucket: bkt, fail: k}, o)
		_ = c.Once(t.Context())
		got, _ := samplesOf(t, bkt)
		sameSamples(t, got, want)
		now = now.Add(2 * time.Minute) // the wait of a job that failed
		once(t, c)
		sameContent(t, content(t, bkt), end)
		if s := c.Status(); len(s.Failed) > 0 {
			t.Errorf("%+v", s.Failed)
		}
		if t.Failed() {
			t.Fatalf("call %d of %d", k, undisturbed.calls)
		}
	}
}

// flaky is a bucket of which one call fails.
type flaky struct {
	objstore.Bucket
	mu    sync.Mutex
	fail  int
	calls int
	panic string // the object whose upload panics
}

func (b *flaky) step() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls++; b.calls-1 == b.fail {
		return errors.New("injected fault")
	}
	return nil
}

func (b *flaky) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

func (b *flaky) Delete(ctx context.Context, name string) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, name)
}

func (b *flaky) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := b.step(); err != nil {
		return nil, err
	}
	return b.Bucket.Get(ctx, name)
}

func (b *flaky) Exists(ctx context.Context, name string) (bool, error) {
	if b.panic != "" && strings.HasPrefix(name, b.panic) {
		panic("injected")
	}
	if err := b.step(); err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

func (b *flaky) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if err := b.step(); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

func (b *flaky) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Bucket.Iter(ctx, dir, f, o...)
}

// TestQuarantine: a corrupt block in each of several tenants is named, marked and left out; everything else compacts.
func TestQuarantine(t *testing.T) {
	blocks := replicas("a", 3)
	tenants := []string{"t1", "t22", "t333"}
	for _, tenant := range tenants {
		blocks = append(blocks, replicas(tenant, 2)...)
	}
	bkt := putAll(t, blocks)
	bad, whole := map[ulid.ULID]string{}, map[string][]byte{}
	for i, tenant := range tenants {
		for _, m := range viewOf(t, bkt).Select() {
			if m.Thanos.Labels["tenant_id"] == tenant && m.Thanos.Labels["receive_replica"] == "r2" && m.MinTime == oldest {
				name := block.Object(m.ULID, []string{"index", "chunks/000001", "index"}[i])
				b := slices.Clone(bkt.Objects()[name])
				whole[name] = slices.Clone(b)
				if b[len(b)/2] ^= 0xff; i == 0 {
					b = b[:len(b)/2]
				}
				if i == 2 { // it is not there at all
					_ = bkt.Delete(t.Context(), name)
				} else {
					_ = bkt.Upload(t.Context(), name, bytes.NewReader(b))
				}
				bad[m.ULID] = tenant
			}
		}
	}
	c := newCompactor(t, bkt, testOptions(t, "one"))
	err := c.Once(t.Context())
	if err == nil || errs.KindOf(err) != errs.Invalid && !strings.Contains(err.Error(), "block ") {
		t.Errorf("error of the pass: %v", err)
	}
	failed := c.Status().Failed
	if len(failed) != len(bad) {
		t.Fatalf("%d of %d: %+v", len(failed), len(bad), failed)
	}
	for _, f := range failed {
		if f.Kind != failedBlock || bad[f.ID] == "" || f.Error == "" || f.Next != 0 {
			t.Errorf("%+v", f)
		}
		if _, ok := bkt.Objects()[quarantineName(f.ID)]; !ok {
			t.Errorf("block %s has no mark", f.ID)
		}
	}
	for _, m := range visible(viewOf(t, bkt)) {
		if bad[m.ULID] == "" && m.Thanos.Source != block.SourceCompactor {
			t.Errorf("block %s of %v was left alone", m.ULID, m.Thanos.Labels)
		}
	}
	// Another process knows it from the marks, and one that finds no mark tries again.
	other := newCompactor(t, bkt, testOptions(t, "two"))
	once(t, other)
	if n := len(other.Status().Failed); n != len(bad) {
		t.Errorf("another process knows of %d", n)
	}
	for name, b := range whole { // somebody repairs them
		_ = bkt.Upload(t.Context(), name, bytes.NewReader(b))
	}
	for id := range bad {
		_ = bkt.Delete(t.Context(), quarantineName(id))
	}
	once(t, other)
	got, twice := samplesOf(t, bkt)
	sameSamples(t, got, wanted(blocks))
	if n := len(other.Status().Failed); n != 0 || twice != 0 {
		t.Errorf("after the repair %d are known, and %d samples are there twice", n, twice)
	}
}

// TestPanic: a job that panics is marked and tried again later; all others are done at once.
func TestPanic(t *testing.T) {
	bkt := putAll(t, slices.Concat(replicas("a", 2), replicas("bb", 2)))
	victim := ""
	for _, m := range viewOf(t, bkt).Select() {
		if m.Thanos.Labels["tenant_id"] == "a" && m.MinTime == oldest {
			victim = m.ULID.String()
			break
		}
	}
	f := &flaky{Bucket: bkt, fail: -1, panic: victim}
	o, now := testOptions(t, "one"), time.Now()
	o.Now = func() time.Time { return now }
	c := newCompactor(t, f, o)
	err := c.Once(t.Context())
	if err == nil || !strings.Contains(err.Error(), "panic: injected") {
		t.Errorf("error of the pass: %v", err)
	}
	failed := c.Status().Failed
	if len(failed) != 1 || failed[0].Kind != failedJob || failed[0].Next == 0 {
		t.Fatalf("%+v", failed)
	}
	if n := len(visible(viewOf(t, bkt))); n != 3+3 {
		t.Errorf("%d blocks are visible", n)
	}
	f.panic = ""
	_ = c.Once(t.Context())
	if n := len(visible(viewOf(t, bkt))); n != 3+3 {
		t.Errorf("it was tried again at once: %d blocks are visible", n)
	}
	now = now.Add(2 * time.Minute)
	once(t, c)
	if n := len(visible(viewOf(t, bkt))); n != 4 || len(c.Status().Failed) != 0 {
		t.Errorf("%d blocks are visible, %+v", n, c.Status().Failed)
	}
	if _, there := bkt.Objects()[quarantineName(failed[0].ID)]; there {
		t.Error("the mark of a job that is done is still there")
	}
}

// TestTwoCompactors: two processes with other settings of memory do one job at once. One writes an object whenever the
// other is about to.
func TestTwoCompactors(t *testing.T) {
	blocks := crashBlocks()
	start, want := putAll(t, blocks), wanted(blocks)
	alone := clone(start)
	once(t, newCompactor(t, alone, testOptions(t, "one")))
	end := content(t, alone)
	for round := range 4 {
		bkt := clone(start)
		turns := &turns{Bucket: bkt, cond: sync.NewCond(new(sync.Mutex)), turn: round % 2, run: round/2 + 1,
			live: [2]bool{true, true}}
		var wg sync.WaitGroup
		for i := range 2 {
			o := testOptions(t, fmt.Sprint(i))
			o.Jobs.Memory <<= i
			c := newCompactor(t, turnsOf{turns, i}, o)
			wg.Go(func() {
				defer turns.leave(i)
				if err := c.Once(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, twice := samplesOf(t, bkt)
		if sameSamples(t, got, want); twice > 0 {
			t.Errorf("%d samples are there twice", twice)
		}
		once(t, newCompactor(t, bkt, testOptions(t, "three")))
		sameContent(t, content(t, bkt), end)
	}
}

// turns lets two processes write to a bucket in turn, each run writes.
type turns struct {
	objstore.Bucket
	cond      *sync.Cond
	turn, run int
	did       int
	live      [2]bool
}

func (b *turns) leave(i int) {
	b.cond.L.Lock()
	defer b.cond.L.Unlock()
	b.live[i] = false
	b.cond.Broadcast()
}

func (b *turns) wait(i int) {
	b.cond.L.Lock()
	defer b.cond.L.Unlock()
	for b.turn != i && b.live[1-i] {
		b.cond.Wait()
	}
	if b.did++; b.did >= b.run {
		b.did, b.turn = 0, 1-i
		b.cond.Broadcast()
	}
}

type turnsOf struct {
	*turns
	i int
}

func (b turnsOf) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	b.wait(b.i)
	return b.Bucket.Upload(ctx, name, r, o...)
}
