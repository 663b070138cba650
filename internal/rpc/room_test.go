package rpc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Many senders whose writes are slow have no more in work at a process than it has room for; in the end all are stored.
func TestWriteStreamsShareRoom(t *testing.T) {
	const (
		series  = 100
		senders = 6
		writes  = 8
		fit     = 4 // shards at a time
	)
	var now, most, stored atomic.Int64
	leave := make(chan struct{})
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		s.writing = newRoom(fit * (series*seriesCost + 10_000))
		RegisterWrite(s, writerFunc(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
			for n := now.Add(1); n > most.Load(); n = now.Load() {
				most.Store(n)
			}
			<-leave
			now.Add(-1)
			stored.Add(int64(len(s.Series)))
			return nil, nil
		}), nil)
	})
	var all sync.WaitGroup
	for range senders {
		c := dial(t, s.Addr().String(), ClientOptions{})
		for i := range writes {
			all.Go(func() {
				// Tenants of their own: shards of one tenant and stream are stored one after the other.
				if _, err := c.Write(t.Context(), shard(tenant.ID(fmt.Sprint("t", i)), series)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	eventually(t, "the room is full", func() bool { return now.Load() >= fit })
	close(leave)
	all.Wait()
	if most.Load() > 2*fit { // the frames are smaller than they may be
		t.Errorf("%d shards were in work at a time, there is room for %d", most.Load(), fit)
	}
	if stored.Load() != senders*writes*series {
		t.Errorf("%d series stored, want %d", stored.Load(), senders*writes*series)
	}
	if !s.writing.free.TryAcquire(s.writing.all) {
		t.Error("some room was not given back")
	}
}

// A shard that is too large is refused for good, and does not hurt others of its stream.
func TestShardTooLarge(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	c := dial(t, addr, ClientOptions{})
	c.maxShard = 10_000
	if _, err := c.Write(t.Context(), shard("acme", 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(t.Context(), shard("acme", 1000)); errs.KindOf(err) != errs.TooLarge {
		t.Fatalf("%v, want too large", err)
	}
	if _, err := c.Write(t.Context(), shard("acme", 10)); err != nil {
		t.Fatal(err)
	}
}
