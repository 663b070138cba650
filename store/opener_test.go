package store

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// indexless is a bucket that does not deliver indexes while without is set. Each other object is delivered.
type indexless struct {
	objstore.Bucket
	without atomic.Bool
	asked   atomic.Int64 // for indexes
}

func (b *indexless) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if strings.HasSuffix(name, "/index") {
		if b.asked.Add(1); b.without.Load() {
			return nil, errFault
		}
	}
	return b.Bucket.GetRange(ctx, name, off, n)
}

// since is a block of samples of a time.
func since(t *testing.T, bkt objstore.Bucket, at time.Time) ulid.ULID {
	one := few()[:1]
	one[0].Samples = []sourcetest.Sample{{T: at.UnixMilli(), V: 1}}
	return upload(t, bkt, makeBlock(t, one), ring(team, "r1"))
}

// TestServesWhatItOpened: a gateway says that it serves a block when it has opened it once, also one that replaces what
// it was asked about. What nobody asks about is not opened. Old blocks are closed again, and stay on local disk.
func TestServesWhatItOpened(t *testing.T) {
	bkt := &indexless{Bucket: inMemory(t)}
	now := time.Now()
	old, fresh, bad := since(t, bkt, now.Add(-72*time.Hour)), since(t, bkt, now), since(t, bkt, now.Add(-time.Hour))
	damage(t, bkt, block.Object(bad, block.IndexName), func(b []byte) []byte { return b[:60] })
	g := opened(t, bkt)
	for id, state := range map[ulid.ULID]series.BlockState{old: g.BlockStates([]ulid.ULID{old})[0],
		fresh: g.BlockStates([]ulid.ULID{fresh})[0]} {
		if !state.Known || state.Served || state.Owned {
			t.Errorf("%s was never opened, and the gateway says %+v", id, state)
		}
	}
	if got := servedOf(g, old, fresh, bad); !got[0] || !got[1] || got[2] {
		t.Errorf("served %v", got)
	}
	if st := g.Status(); len(st) != 3 {
		t.Errorf("%+v", st)
	}
	for _, l := range g.headers.opened() {
		if l.meta.ULID != fresh {
			t.Errorf("block %s is still open", l.meta.ULID)
		}
	}
	if _, err := os.Stat(filepath.Join(g.opts.Dir, old.String(), block.IndexHeaderName)); err != nil {
		t.Error(err)
	}
	asked := bkt.asked.Load()
	if got := servedOf(g, old, fresh); !got[0] || !got[1] || bkt.asked.Load() != asked {
		t.Errorf("served %v, after %d further reads of indexes", got, bkt.asked.Load()-asked)
	}

	bkt.without.Store(true)
	late := since(t, bkt, now)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if servedOf(g, late)[0] {
		t.Error("a block that the bucket does not deliver is served")
	}
	bkt.without.Store(false)
	again := opened(t, bkt)
	if bkt.asked.Store(0); again.Sync(t.Context()) != nil || bkt.asked.Load() > 0 {
		t.Error("indexes are read that nobody asked about")
	}
	if !servedOf(again, late)[0] {
		t.Error("the block is not served when the bucket delivers it")
	}
}

// TestHandOverWaits: the old owner keeps a block until the new one has opened it.
func TestHandOverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := &indexless{Bucket: inMemory(t)}
		var ids []ulid.ULID
		for range 8 {
			ids = append(ids, since(t, bkt, time.Now()))
		}
		all := map[string]*Gateway{}
		var names atomic.Pointer[[]string]
		join := func(name string) *Gateway {
			opts := DefaultOptions()
			opts.Dir, opts.Instance, opts.RetryAfter = t.TempDir(), name, time.Minute
			opts.Sharing = &Sharing{Self: name, ReplicationFactor: 1, Owners: byRing, Peers: func() (out []Peer, _ bool) {
				for _, other := range *names.Load() {
					out = append(out, Peer{Member: Member{ID: other},
						States: func(_ context.Context, ids []ulid.ULID) ([]series.BlockState, error) {
							return all[other].BlockStates(ids), nil
						}})
				}
				return out, true
			}}
			g, err := New(discard, nil, bkt, opts)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = g
			return g
		}
		a, b := join("a"), join("b")
		open := func(g *Gateway) {
			if err := errors.Join(g.Open(t.Context(), nil), g.Share(t.Context(), nil)); err != nil {
				t.Fatal(err)
			}
		}
		names.Store(&[]string{"a"})
		open(a)
		time.Sleep(time.Minute)
		bkt.without.Store(true)
		names.Store(&[]string{"a", "b"})
		open(b)
		kept := func() (n int) {
			for _, st := range a.Status() {
				if st.Kept {
					n++
				}
			}
			return n
		}
		time.Sleep(5 * time.Minute)
		moved := kept()
		if moved == 0 || moved == len(ids) || len(a.Status()) != len(ids) {
			t.Errorf("%d of %d blocks moved, %d are served", moved, len(ids), len(a.Status()))
		}
		bkt.without.Store(false)
		time.Sleep(5 * time.Minute)
		if n := kept(); n > 0 || len(a.Status()) != len(ids)-moved {
			t.Errorf("%d blocks are kept and %d served", n, len(a.Status()))
		}
		for _, g := range all {
			if err := errors.Join(g.Unshare(), g.Close()); err != nil {
				t.Error(err)
			}
		}
	})
}
