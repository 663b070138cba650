package main

import (
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
	"github.com/hearth-metrics/hearth/ring/gossip"
)

// shares tells how much of a cluster's limits this process answers for. It is asked all the time, and looks at the ring
// now and then.
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

// ofSeries is the part of a tenant's series that this process stores, 0 to 1. A process that the ring does not name
// cannot know, and takes a limit for itself.
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
	part := ring.Share(s.cluster.placement(), id, s.self)
	if part == 0 {
		part = 1
	}
	s.series[id] = seriesShare{part, now}
	return part
}

// distributors is among how many live processes a tenant's rate is divided: the distributors where gossip knows some,
// else the receivers that gossip or a hashring file with this process names.
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
		members := s.cluster.placement().Members()
		for _, m := range members {
			if s.self(m) {
				return len(members)
			}
		}
		return 1
	}
	for _, role := range []string{gossip.RoleDistributor, gossip.RoleReceive} {
		live := 0
		for _, m := range s.cluster.members(role) {
			if m.State == ring.Active {
				live++
			}
		}
		if live > 0 {
			return live
		}
	}
	return 1
}
