package distributor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// fakeRing puts a series on rf members in a row.
type fakeRing struct {
	members []ring.Member
	rf      int
}

func newFakeRing(rf int, ids ...string) *fakeRing {
	r := &fakeRing{rf: rf}
	for _, id := range ids {
		r.members = append(r.members, ring.Member{ID: id, Addr: id + ":10901"})
	}
	return r
}

func (r *fakeRing) Members() []ring.Member { return r.members }
func (r *fakeRing) ReplicationFactor() int { return r.rf }
func (r *fakeRing) Replicas(dst []int32, _ tenant.ID, hash uint64) []int32 {
	for i := range min(r.rf, len(r.members)) {
		dst = append(dst, int32((hash%1024+uint64(i))%uint64(len(r.members))))
	}
	return dst
}

// fakeMember remembers what it stored. Its behaviour may be replaced.
type fakeMember struct {
	mu       sync.Mutex
	behave   func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) // nil: stores all
	series   map[string]int                                                  // times stored, by labels
	metadata map[string]int
	writes   int
	closed   int
}

func (m *fakeMember) Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	m.mu.Lock()
	behave := m.behave
	m.writes++
	m.mu.Unlock()
	var failures []wire.Failure
	if behave != nil {
		var err error
		if failures, err = behave(ctx, s); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range s.Series {
		if !slices.ContainsFunc(failures, func(f wire.Failure) bool { return f.Series == int(i) && f.Kind != errs.OK }) {
			m.series[string(s.Batch.Series[i].Labels())]++
		}
	}
	for _, i := range s.Metadata {
		m.metadata[s.Batch.Metadata[i].Family]++
	}
	return failures, nil
}

func (m *fakeMember) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed++
	return nil
}

func (m *fakeMember) become(behave func(ctx context.Context, s wire.Shard) ([]wire.Failure, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behave = behave
}

// count is how often the member stored something, whatever it was.
func (m *fakeMember) count() (series, writes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.series {
		series += n
	}
	return series, m.writes
}

// hungUp is how often the writer was closed.
func (m *fakeMember) hungUp() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

func (m *fakeMember) has(labels []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.series[string(labels)] > 0
}

// The behaviours of members that are not well.
func dark(ctx context.Context, _ wire.Shard) ([]wire.Failure, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func down(context.Context, wire.Shard) ([]wire.Failure, error) {
	return nil, errs.E(errs.Unavailable, "connection refused")
}

// refusing fails the series with these indexes, one sample each.
func refusing(kind errs.Kind, series ...int) func(context.Context, wire.Shard) ([]wire.Failure, error) {
	return func(_ context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
		for _, i := range s.Series {
			if slices.Contains(series, int(i)) {
				failures = append(failures,
					wire.Failure{Series: int(i), Kind: kind, Samples: 1, Reason: fmt.Sprintf("series %d refused", i)})
			}
		}
		return failures, nil
	}
}

// cluster is a Distributor over fake members.
type cluster struct {
	*Distributor
	t       testing.TB
	place   atomic.Pointer[fakeRing]
	mu      sync.Mutex
	members map[string]*fakeMember
}

func newCluster(t testing.TB, r *fakeRing, opts Options) *cluster {
	t.Helper()
	c := &cluster{t: t, members: map[string]*fakeMember{}}
	c.place.Store(r)
	placement := func() ring.Placement { return c.place.Load() }
	d, err := New(slog.New(slog.DiscardHandler), prometheus.NewPedanticRegistry(), placement, c.dial, opts)
	if err != nil {
		t.Fatal(err)
	}
	c.Distributor = d
	for _, m := range r.members {
		c.member(m.ID)
	}
	if err := d.Open(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) dial(m ring.Member) (Writer, error) { return c.member(m.ID), nil }

func (c *cluster) member(id string) *fakeMember {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[id]
	if m == nil {
		m = &fakeMember{series: map[string]int{}, metadata: map[string]int{}}
		c.members[id] = m
	}
	return m
}

func (c *cluster) close() {
	c.t.Helper()
	if err := c.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// push pushes b, which stays the caller's.
func (c *cluster) push(b *wire.Batch) Result {
	c.t.Helper()
	r, err := c.Push(context.Background(), b)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// freed checks that nobody but the test has a reference to b.
func freed(t *testing.T, b *wire.Batch) {
	t.Helper()
	b.Release()
	defer func() {
		if recover() == nil {
			t.Fatal("somebody still holds the batch")
		}
	}()
	b.Release()
}

// batch has n series of one sample each.
func batch(n int) *wire.Batch {
	b := wire.NewBatch("acme")
	for i := range n {
		s := b.Add(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)))
		s.Samples = []wire.Sample{{T: 1000, V: 1}}
	}
	return b
}

// labelsText is canonical label bytes for people.
func labelsText(canonical []byte) string {
	var b labels.ScratchBuilder
	return wire.LabelsOf(&b, canonical).String()
}
