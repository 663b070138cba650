package rpc

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestPanicWhileEncoding: a shard that cannot be encoded, which is a fault of ours, fails alone. The stream goes on,
// with all numbers that it needs, by each version of frames.
func TestPanicWhileEncoding(t *testing.T) {
	for _, versions := range [][]uint32{{2, 1}, {1}} {
		t.Run("", func(t *testing.T) {
			defer func(was []uint32) { writeVersions = was }(writeVersions)
			writeVersions = versions
			a := &auditor{t: t}
			addr := serve(t, func(s *Server) { RegisterWrite(s, a, nil) })
			var log bytes.Buffer
			c := dial(t, addr, ClientOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
			good := func(numbers ...int) {
				t.Helper()
				if failures, err := c.Write(context.Background(), told("a", numbers...)); err != nil || failures != nil {
					t.Fatal(failures, err)
				}
			}
			good(1, 2, 3)
			stream := c.write
			bad := told("a", 4, 5)
			bad.Series = append(bad.Series, 1<<30) // to the stream itself: Client.Write would ask for its size first
			ws, err := c.writeStream()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ws.write(context.Background(), bad, func() {}); errs.KindOf(err) != errs.Internal ||
				!strings.Contains(err.Error(), "panic") {
				t.Fatalf("a shard that cannot be encoded: %v", err)
			}
			if !strings.Contains(log.String(), "panic in a gRPC client") {
				t.Errorf("the log says %q", log.String())
			}
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					if i%4 == 3 {
						worse := told("a", 100+i)
						worse.Series = append(worse.Series, 1<<30)
						if _, err := ws.write(context.Background(), worse, func() {}); errs.KindOf(err) != errs.Internal {
							t.Errorf("a shard that cannot be encoded: %v", err)
						}
						return
					}
					if failures, err := c.Write(context.Background(), told("a", i, i+1, 4)); err != nil || failures != nil {
						t.Error(failures, err)
					}
				})
			}
			all.Wait()
			good(4, 5)
			good(1, 2, 3)
			if c.write != stream {
				t.Error("the stream was given up")
			}
		})
	}
}
