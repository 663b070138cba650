package bench

import (
	"context"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb"
)

// store is the writer behind a receiver's port.
type store struct{ db *tsdb.DB }

func (s store) Write(ctx context.Context, shard wire.Shard) ([]wire.Failure, error) {
	return s.db.Append(ctx, shard)
}

// nothing takes shards and stores nothing.
type nothing struct{}

func (nothing) Write(context.Context, wire.Shard) ([]wire.Failure, error) { return nil, nil }

func openStore(b *testing.B, now func() time.Time) *tsdb.DB {
	b.Helper()
	opts := tsdb.DefaultOptions()
	opts.Dir, opts.Now = b.TempDir(), now
	db, err := tsdb.New(slog.New(slog.DiscardHandler), nil, opts)
	if err != nil {
		b.Fatal(err)
	}
	if err := db.Open(context.Background(), func(err error) { b.Error(err) }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return db
}

// receiver serves w on loopback and gives a client of it.
func receiver(b *testing.B, w rpc.Writer) *rpc.Client {
	b.Helper()
	opts := rpc.DefaultServerOptions()
	opts.Address = "127.0.0.1:0"
	s, err := rpc.NewServer(slog.New(slog.DiscardHandler), nil, opts)
	if err != nil {
		b.Fatal(err)
	}
	rpc.RegisterWrite(s, w, nil)
	if err := s.Open(context.Background(), func(err error) { b.Error(err) }); err != nil {
		b.Fatal(err)
	}
	c, err := rpc.Dial(s.Addr().String(), rpc.ClientOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return c
}

// cpu is what this process has used so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReplication takes requests from their uncompressed bytes to three members: the local one directly, the
// others over write streams on loopback, all in one process. One operation is one sample; CPU s/M is of everything per
// million.
// The members of "streams" store nothing, which leaves decoding and the two streams.
func BenchmarkReplication(b *testing.B) {
	now := time.Now()
	clock := func() time.Time { return now }
	b.Run("streams", func(b *testing.B) {
		replicate(b, &now, []rpc.Writer{nothing{}, receiver(b, nothing{}), receiver(b, nothing{})})
	})
	b.Run("stored", func(b *testing.B) {
		members := []rpc.Writer{store{openStore(b, clock)}}
		for range 2 {
			members = append(members, receiver(b, store{openStore(b, clock)}))
		}
		replicate(b, &now, members)
	})
}

func replicate(b *testing.B, now *time.Time, members []rpc.Writer) {
	known := wire.NewSeriesCache(1 << 20)
	var messages []*message
	for r := range requests {
		messages = append(messages, newMessage(r, now.UnixMilli()))
	}
	write := func(m *message) {
		batch, err := known.DecodeV1(tenant.Default, m.bytes, nil)
		if err != nil {
			b.Fatal(err)
		}
		shard := wire.All(batch)
		var wg sync.WaitGroup
		for _, member := range members {
			wg.Go(func() {
				if failed, err := member.Write(context.Background(), shard); err != nil || len(failed) > 0 {
					b.Error(err, failed)
				}
			})
		}
		wg.Wait()
		batch.Release()
	}
	for range 2 {
		*now = now.Add(15 * time.Second)
		for _, m := range messages {
			m.setTime(now.UnixMilli())
			write(m)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	for n := 0; n < b.N; n += perRequest {
		round := n / perRequest
		if round%requests == 0 {
			*now = now.Add(15 * time.Second)
		}
		m := messages[round%requests]
		m.setTime(now.UnixMilli())
		write(m)
	}
	samples := float64((b.N + perRequest - 1) / perRequest * perRequest)
	b.ReportMetric((cpu(b)-before).Seconds()/samples*1e6, "CPU-s/M")
}
