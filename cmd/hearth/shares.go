package main

import (
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// shares remembers for some seconds which part of the cluster's limits this process keeps. Every write asks for it, and
// the ring would take a tenth of a millisecond each time. What the parts are is decided in ring (ring.SeriesPart,
// ring.RateDivisor).
type shares struct {
	cluster *cluster
	// self says which member of the ring this process is.
	self func(ring.Member) bool
	// open is closed when the ring is known.
	open <-chan struct{}

	mu      sync.Mutex // guards what follows
	series  map[tenant.ID]seriesShare
	takers  int
	counted time.Time // when takers was
}

type seriesShare struct {
	part float64
	at   time.Time
}

// shareAge is how old an answer may be.
const shareAge = 5 * time.Second

func newShares(p *process, c *cluster, localEndpoint string) *shares {
	return &shares{
		cluster: c, open: p.serving, series: map[tenant.ID]seriesShare{},
		self: func(m ring.Member) bool { return m.ID == c.self.ID || m.Addr != "" && m.Addr == localEndpoint },
	}
}

func (s *shares) opened() bool {
	select {
	case <-s.open:
		return true
	default:
		return false
	}
}

// ofSeries is ring.SeriesPart of a tenant, 1 until the ring is known.
func (s *shares) ofSeries(id tenant.ID) float64 {
	if !s.opened() {
		return 1
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.series[id]
	if ok && now.Sub(known.at) < shareAge {
		return known.part
	}
	part := ring.SeriesPart(s.cluster.placement(), id, s.self)
	s.series[id] = seriesShare{part, now}
	return part
}

// distributors is among how many processes a tenant's rate is divided, 1 until the ring is known.
func (s *shares) distributors() int {
	if !s.opened() {
		return 1
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.counted) >= shareAge/5 {
		s.takers, s.counted = s.count(), now
	}
	return s.takers
}

func (s *shares) count() int {
	if s.cluster.static != nil {
		return ring.StaticRateDivisor(s.cluster.placement().Members(), s.self)
	}
	return ring.RateDivisor(s.cluster.members(series.RoleDistributor), s.cluster.members(series.RoleReceive))
}
