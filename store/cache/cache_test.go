package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// object is a file in a bucket that counts how it is read.
type object struct {
	File
	data  []byte
	reads atomic.Int64
}

// newObject makes a file of size random bytes.
func newObject(rnd *rand.Rand, number, size int) *object {
	o := &object{File: File{Block: ulid.ULID{1}, Number: number, Size: int64(size)}, data: make([]byte, size)}
	for i := range o.data {
		o.data[i] = byte(rnd.Uint32())
	}
	return o
}

func (o *object) fetch(_ context.Context, off int64, into [][]byte) (got int64, err error) {
	o.reads.Add(1)
	for _, b := range into {
		if off+got < int64(len(o.data)) {
			got += int64(copy(b, o.data[off+got:]))
		}
	}
	return got, nil
}

// one reads the bytes [off, off+n) of a file.
func one(c *Cache, ctx context.Context, f File, off, n int64, fetch Fetch) ([]byte, error) {
	v, err := c.Read(ctx, f, Chunks, []index.Range{{Start: off, End: off + n}}, fetch)
	if err != nil {
		return nil, err
	}
	return v.At(off, n), nil
}

// check reads a range and compares it with the object.
func (o *object) check(t testing.TB, c *Cache, off, n int64) {
	t.Helper()
	got, err := one(c, t.Context(), o.File, off, n, o.fetch)
	want := o.data[min(off, int64(len(o.data))):min(off+n, int64(len(o.data)))]
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("file %d of %d bytes, [%d, +%d): %d bytes that differ: %v", o.Number, len(o.data), off, n, len(got), err)
	}
}

// TestReadIsTheObject reads random ranges through caches of several sizes, of objects whose size is known, not known,
// or wrong.
func TestReadIsTheObject(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var objects []*object
	for _, size := range []int{1, PageSize, 5*PageSize + 77, 40 * PageSize} {
		for wrong := int64(-2); wrong <= 2; wrong++ {
			o := newObject(rnd, len(objects), size)
			if o.Size += wrong * 1000; wrong == -2 {
				o.Size = -1
			}
			o.Size = max(o.Size, -1)
			objects = append(objects, o)
		}
	}
	for _, most := range []int64{0, 20 * PageSize, 4000 * PageSize} {
		c := New(Options{MaxBytes: most}, nil)
		for range 4000 {
			o := objects[rnd.IntN(len(objects))]
			off := rnd.Int64N(int64(len(o.data)) + 100)
			o.check(t, c, off, 1+rnd.Int64N(min(int64(len(o.data)), 4*PageSize)+100))
			if c.memory.size() > most {
				t.Fatalf("%d bytes of %d", c.memory.size(), most)
			}
		}
	}
}

func TestReadKeeps(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	o := newObject(rnd, 1, 20*PageSize+9)
	c := New(Options{MaxBytes: 4000 * PageSize}, nil)
	for _, p := range []int64{1, 3, 5, 7, 12} {
		o.check(t, c, p*PageSize, 10)
	}
	o.reads.Store(0)
	o.check(t, c, 0, o.Size) // six runs of pages are missing, which lie near each other
	if n := o.reads.Load(); n != 1 {
		t.Fatalf("%d reads of what is missing, want 1", n)
	}
	for range 2 {
		o.check(t, c, 3, o.Size-3)
	}
	if n := o.reads.Load(); n != 1 {
		t.Fatalf("%d reads though all is there", n-1)
	}
	if got := testutil.ToFloat64(c.metrics.bucketHits); got != 5+2*21 {
		t.Fatalf("%v hits", got)
	}
}

// TestReadFails: an error, and a body that ends early, are not kept.
func TestReadFails(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 4))
	o := newObject(rnd, 1, 3*PageSize)
	c := New(Options{MaxBytes: 4000 * PageSize}, nil)
	fault := errors.New("fault")
	if _, err := one(c, t.Context(), o.File, 0, 10,
		func(context.Context, int64, [][]byte) (int64, error) { return 0, fault }); err != fault {
		t.Fatal(err)
	}
	got, err := one(c, t.Context(), o.File, 0, 2*PageSize,
		func(_ context.Context, _ int64, into [][]byte) (int64, error) {
			return int64(copy(into[0], "cut")), nil
		})
	if err != nil || string(got) != "cut" {
		t.Fatalf("%q %v", got, err)
	}
	o.check(t, c, 0, 2*PageSize)
	if len(c.flights) != 0 {
		t.Fatal("pages are still being read")
	}
}

// TestReadTogether: pages that several readers miss at once are read once, and a reader whose caller goes away does not
// take others with it.
func TestReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObject(rand.New(rand.NewPCG(1, 5)), 1, 8*PageSize)
		c := New(Options{MaxBytes: 4000 * PageSize}, nil)
		release, first := make(chan struct{}), atomic.Bool{}
		slow := func(ctx context.Context, off int64, into [][]byte) (int64, error) {
			if first.CompareAndSwap(false, true) {
				select {
				case <-release:
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			}
			return o.fetch(ctx, off, into)
		}
		for _, cancels := range []bool{false, true} {
			first.Store(false)
			o.reads.Store(0)
			o.Number++ // pages that nobody has
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := one(c, ctx, o.File, 0, 4*PageSize, slow)
				if (err != nil) != cancels {
					t.Error(err)
				}
			})
			synctest.Wait()
			for range 5 {
				wg.Go(func() {
					got, err := one(c, t.Context(), o.File, 10, 3*PageSize, slow)
					if err != nil || !bytes.Equal(got, o.data[10:10+3*PageSize]) {
						t.Error("differs", err)
					}
				})
			}
			ended, end := context.WithCancel(t.Context())
			end()
			if _, err := one(c, ended, o.File, 0, 1, slow); errs.KindOf(err) != errs.Unavailable {
				t.Error(err)
			}
			synctest.Wait()
			if cancels {
				cancel()
			} else {
				release <- struct{}{}
			}
			wg.Wait()
			cancel()
			if n := o.reads.Load(); !cancels && n != 1 {
				t.Errorf("%d reads, want 1", n)
			}
			if len(c.flights) != 0 {
				t.Error("pages are still being read")
			}
		}
	})
}

// TestScan: a scan of far more than the memory leaves what is read again and again where it is.
func TestScan(t *testing.T) {
	c := New(Options{MaxBytes: 8 << 20}, nil)
	rnd := rand.New(rand.NewPCG(1, 6))
	hot, cold := newObject(rnd, 1, 200*PageSize), newObject(rnd, 2, 64*PageSize)
	for range 2 {
		hot.check(t, c, 0, 100*PageSize)
		hot.check(t, c, 100*PageSize, 100*PageSize)
	}
	hot.reads.Store(0)
	for cold.Number = 2; cold.Number < 60; cold.Number++ {
		cold.check(t, c, 0, cold.Size)
	}
	hot.check(t, c, 0, 100*PageSize)
	hot.check(t, c, 100*PageSize, 100*PageSize)
	if n := hot.reads.Load(); n != 0 {
		t.Fatalf("a scan has pushed out what is in use: %d reads", n)
	}
	// A range that is large beside the memory passes it by.
	was := testutil.ToFloat64(c.metrics.of[Chunks].added)
	large := newObject(rnd, 99, 300*PageSize)
	large.check(t, c, 0, large.Size)
	if now := testutil.ToFloat64(c.metrics.of[Chunks].added); now != was {
		t.Fatalf("%v pages of a large range are kept", now-was)
	}
}

// TestMemory plays random calls and compares with what was put, and with the budget.
func TestMemory(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	m := newMetrics(nil, 0)
	for _, most := range []int64{0, 1, 10_000, 100_000, 40 << 20} {
		c := newMemory(most, 5000, m)
		for range 20_000 {
			n := rnd.Uint64N(200)
			k := key{a: n}
			if rnd.IntN(3) == 0 {
				c.put(k, Kind(n%uint64(numKinds)), n, rnd.Int64N(6000))
			} else if got := c.get(k); got != nil && got != n {
				t.Fatalf("%v, want %d", got, n)
			}
			if size := c.size(); size > most {
				t.Fatalf("%d bytes of %d", size, most)
			}
		}
		for i := range c.shards {
			s := &c.shards[i]
			n, size := 0, int64(0)
			for _, l := range []*list{&s.once, &s.again} {
				for e := l.root.next; e != &l.root; e = e.next {
					if n++; s.entries[e.key] != e || e.again != (l == &s.again) {
						t.Fatal("an entry is not where it should be")
					}
					size += e.size
				}
			}
			if n != len(s.entries) || size != s.once.size+s.again.size {
				t.Fatalf("%d entries of %d, %d bytes of %d", n, len(s.entries), size, s.once.size+s.again.size)
			}
		}
	}
}

func TestExpanded(t *testing.T) {
	c := New(Options{MaxBytes: 32 << 20}, nil)
	block, other := ulid.ULID{1}, ulid.ULID{2}
	for i, refs := range [][]storage.SeriesRef{{}, {0}, {7}, {0, 1, 2, 1 << 40}, {1 << 63}} {
		text := []byte(fmt.Sprint("matchers ", i))
		if got := c.Expanded(t.Context(), block, text); got != nil {
			t.Fatal(got)
		}
		c.PutExpanded(block, text, NewSelection(uint64(i), refs))
		got := c.Expanded(t.Context(), block, text)
		late, decoded, ok := got.Decode()
		if !ok || late != uint64(i) || !slices.Equal(decoded, refs) || got.Len() != len(refs) {
			t.Fatal(late, decoded, ok)
		}
		if got := c.Expanded(t.Context(), other, text); got != nil {
			t.Fatal("another block's", got)
		}
	}
	c = New(Options{MaxBytes: 32 << 20, Disabled: []Kind{ExpandedPostings}}, nil)
	c.PutExpanded(block, nil, NewSelection(0, nil))
	if got := c.Expanded(t.Context(), block, nil); got != nil || c.memory.size() != 0 {
		t.Fatal("what is disabled is kept")
	}
}

// FuzzSelection: what Decode takes is in order, and encodes to the same.
func FuzzSelection(f *testing.F) {
	f.Add([]byte(NewSelection(0, nil)))
	f.Add([]byte(NewSelection(5, []storage.SeriesRef{1, 5, 1 << 40})))
	f.Add(binary.AppendUvarint([]byte{1}, 1<<60))
	f.Fuzz(func(t *testing.T, b []byte) {
		late, refs, ok := Selection(b).Decode()
		if !ok {
			return
		}
		for i := 1; i < len(refs); i++ {
			if refs[i] <= refs[i-1] {
				t.Fatal("not in order", refs)
			}
		}
		again := NewSelection(late, refs)
		if l, r, ok := again.Decode(); !ok || l != late || !slices.Equal(r, refs) || again.Len() != Selection(b).Len() {
			t.Fatal("differs", refs)
		}
	})
}

// FuzzUnseal: what unseal takes was sealed for that key.
func FuzzUnseal(f *testing.F) {
	f.Add("key", seal("key", []byte("content")))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, k string, b []byte) {
		if content := unseal(k, b); content != nil && !bytes.Equal(seal(k, content), b) {
			t.Fatalf("%q of %x", content, b)
		}
		if content := unseal(k, seal(k, b)); !bytes.Equal(content, b) {
			t.Fatalf("%x, want %x", content, b)
		}
		if content := unseal(k+"x", seal(k, b)); content != nil {
			t.Fatal("the value of another key is taken")
		}
	})
}

func BenchmarkPages(b *testing.B) {
	o := newObject(rand.New(rand.NewPCG(1, 8)), 1, 64*PageSize)
	run := func(name string, most, n int64, at func(i int64) (number int, off int64)) {
		b.Run(name, func(b *testing.B) {
			c := New(Options{MaxBytes: most}, nil)
			var next atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					f := o.File
					var off int64
					f.Number, off = at(next.Add(1))
					if _, err := one(c, b.Context(), f, off, n, o.fetch); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
	run("hit within a page", 250<<20, 4096, func(i int64) (int, int64) { return 1, i % 64 * PageSize })
	run("hit of 5 pages", 250<<20, 4*PageSize, func(i int64) (int, int64) { return 1, i%59*PageSize + 100 })
	run("miss", 2<<30, 4096, func(i int64) (int, int64) { return int(i / 64), i % 64 * PageSize })
	run("evict", 16<<20, 4096, func(i int64) (int, int64) { return int(i / 64), i % 64 * PageSize })
}
