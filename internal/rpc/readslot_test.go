package rpc

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// countedSource knows how many of its sets worked at the same time.
type countedSource struct {
	*sourcetest.Memory
	working, most atomic.Int32
}

type countedSet struct {
	series.Set
	source *countedSource
}

func (s *countedSource) Select(ctx context.Context, r *series.Request) series.Set {
	return &countedSet{s.Memory.Select(ctx, r), s}
}

func (s *countedSet) Next() bool {
	now := s.source.working.Add(1)
	defer s.source.working.Add(-1)
	for most := s.source.most.Load(); now > most && !s.source.most.CompareAndSwap(most, now); {
		most = s.source.most.Load()
	}
	for range 20 {
		runtime.Gosched()
	}
	return s.Set.Next()
}

func bigSource() *countedSource {
	m := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{}}
	for i := range 4000 {
		m.Data["a"] = append(m.Data["a"], sourcetest.Series{
			Labels:  labels.FromStrings("__name__", "up", "n", fmt.Sprint(i), "pad", strings.Repeat("x", 1000)),
			Samples: []sourcetest.Sample{{T: 1000, V: 1}},
		})
	}
	return &countedSource{Memory: m}
}

func TestReadersTakeTurns(t *testing.T) {
	src := bigSource()
	c := dialThanos(t, serve(t, func(s *Server) {
		RegisterStore(s, Store{
			Sources: map[string]series.Source{"receive": src},
			Tenants: Tenants{All: true},
			Readers: map[string]int{"receive": 2},
		})
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if frames, err := c.series(seriesRequest()); err != nil || len(frames) != 4000 {
				t.Errorf("%d frames, %v", len(frames), err)
			}
		})
	}
	wg.Wait()
	if most := src.most.Load(); most != 2 {
		t.Errorf("%d reads worked at the same time, want 2", most)
	}
}

// A reader that does not take what is sent keeps nobody else from reading.
func TestStalledReaderGivesTurn(t *testing.T) {
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{
			Sources: map[string]series.Source{"receive": bigSource()},
			Tenants: Tenants{All: true},
			Readers: map[string]int{"receive": 1},
		})
	})
	stalled, stop := context.WithCancel(t.Context())
	defer stop()
	s, err := dialThanos(t, addr).conn.NewStream(stalled, &grpc.StreamDesc{ServerStreams: true}, "/thanos.Store/Series")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(seriesRequest()); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(thanospb.SeriesResponse)); err != nil { // it is under way; 4 MB do not fit any window
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := dialThanos(t, addr).series(seriesRequest())
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the other reader waits for the stalled one")
	}
}
