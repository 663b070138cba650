package distributor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// Whatever members do and however the ring changes, a series that is reported written is on a quorum at that moment,
// and every batch is let go of in the end.
func TestAcknowledgedIsOnAQuorum(t *testing.T) {
	opts := DefaultOptions()
	opts.WriteTimeout, opts.RetryMin, opts.RetryMax = 50*time.Millisecond, time.Millisecond, 5*time.Millisecond
	opts.MemberBatches, opts.MemberConcurrency = 16, 2
	rings := []*fakeRing{newFakeRing(3, "a", "b", "c", "d"), newFakeRing(3, "a", "b", "d"),
		newFakeRing(3, "a", "e", "c", "d")}
	c := newCluster(t, rings[0], opts)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		c.member(id).become(moody)
	}
	stop := make(chan struct{})
	var changes, pushes sync.WaitGroup
	changes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
				r := *rings[i%len(rings)]
				c.place.Store(&r)
			}
		}
	})
	var mu sync.Mutex
	outcomes := map[errs.Kind]int{}
	var batches []*wire.Batch
	for worker := range 8 {
		pushes.Go(func() {
			for n := range 60 {
				b := distinctBatch(worker, n)
				r, err := c.Push(context.Background(), b)
				if err != nil {
					t.Error(err)
					return
				}
				checkAcknowledged(t, c, b, r)
				mu.Lock()
				batches = append(batches, b)
				outcomes[errs.OK] += len(b.Series) - len(r.Failures)
				for _, f := range r.Failures {
					outcomes[f.Kind]++
				}
				mu.Unlock()
			}
		})
	}
	pushes.Wait()
	close(stop)
	changes.Wait()
	c.close()
	for _, b := range batches {
		freed(t, b)
	}
	if outcomes[errs.OK] == 0 || outcomes[errs.Unavailable] == 0 || outcomes[errs.Conflict] == 0 {
		t.Fatalf("outcomes %v: the test does not see all there is", outcomes)
	}
}

// moody is a member of which one never knows.
func moody(ctx context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
	switch rand.N(12) {
	case 0:
		return nil, errs.E(errs.Unavailable, "not now")
	case 1:
		return dark(ctx, s)
	case 2:
		time.Sleep(time.Duration(rand.N(5)) * time.Millisecond)
	}
	kinds := [...]errs.Kind{errs.Conflict, errs.Invalid, errs.Exhausted}
	for _, i := range s.Series {
		if (int(i)+rand.N(3))%7 == 0 {
			failures = append(failures, wire.Failure{Series: int(i), Kind: kinds[int(i)%len(kinds)], Samples: 1})
		}
	}
	return failures, nil
}

// distinctBatch has series that no other batch has.
func distinctBatch(worker, n int) *wire.Batch {
	like, b := batch(20), wire.NewBatch("acme")
	for i := range like.Series {
		s := &like.Series[i]
		b.AddCanonical(append(s.Labels(), fmt.Sprintf("z\xff%d-%d\xff", worker, n)...)).Samples = s.Samples
	}
	return b
}

func checkAcknowledged(t *testing.T, c *cluster, b *wire.Batch, r Result) {
	t.Helper()
	failed := map[int]bool{}
	for _, f := range r.Failures {
		failed[f.Series] = true
	}
	for i := range b.Series {
		copies := 0
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			if c.member(id).has(b.Series[i].Labels()) {
				copies++
			}
		}
		if !failed[i] && copies < ring.Quorum(3) {
			t.Errorf("series %d is reported written and has %d copies", i, copies)
		}
	}
	if r.Samples != len(b.Series)-len(r.Failures) {
		t.Errorf("%d samples reported of %d, with %d failures", r.Samples, len(b.Series), len(r.Failures))
	}
}
