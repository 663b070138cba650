package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// A receiver keeps a write until its tenant's store has taken it, also when the sender has given up. A store that
// hangs (its disk does not respond) would therefore fill the budget of a stream, and then of the process, with the
// writes of one tenant. So each tenant may use a part. Writes beyond it wait as long as the tenant makes progress,
// which slows its senders down as a full budget does. When the tenant makes none, they are refused at once.

const (
	// tenantRatio leaves as much free as one tenant has: half of what there is for tenants, a third of it with two
	// that hang.
	tenantRatio memory.FairRatio = 1
	// hangsAfter is how long a tenant that uses its whole part may finish nothing before its writes count as hanging.
	// The other tenants of the stream wait for that long, once.
	hangsAfter = time.Second
)

// tenantMemory divides a budget among tenants.
type tenantMemory struct {
	total    int64
	least    int64 // that a claim counts for, however small it is
	patience time.Duration

	mu      sync.Mutex // guards what follows
	used    int64
	tenants map[tenant.ID]*tenantUse // that have any
	moved   chan struct{}            // closed when some is given back; nil = nobody waits
}

// tenantUse is what one tenant uses.
type tenantUse struct {
	bytes int64
	ended int  // claims that were given back
	hangs bool // a claim has waited in vain, and none was given back since
}

func newTenantMemory(total int64) *tenantMemory {
	return &tenantMemory{total: total, least: 1, patience: hangsAfter, tenants: map[tenant.ID]*tenantUse{}}
}

// claim counts n bytes as the tenant's, or as many as one tenant can have, until giveBack is called with their number.
func (s *tenantMemory) claim(ctx context.Context, id tenant.ID, n int64) (int64, error) {
	n = min(max(n, s.least), max(1, tenantRatio.Most(s.total)))
	var late *time.Timer // nil while nothing was waited for
	for ended := 0; ; {
		sh, moved, granted := s.try(id, n)
		switch {
		case granted:
			return n, nil
		case sh.hangs:
			return 0, s.refuse(id, sh.bytes)
		case late == nil:
			late = time.NewTimer(s.patience)
			defer late.Stop()
		case sh.ended != ended: // it makes progress
			late.Reset(s.patience)
		}
		ended = sh.ended
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, errs.E(errs.Unavailable, "tenant %q: waited for memory for a write: %w", id, ctx.Err())
		case <-late.C:
			s.hang(id)
			return 0, s.refuse(id, sh.bytes)
		}
	}
}

// try takes n bytes if the tenant may have them, or says what it has, and what is closed when somebody gives some back.
func (s *tenantMemory) try(id tenant.ID, n int64) (has tenantUse, moved <-chan struct{}, granted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.tenants[id]
	if sh != nil {
		has = *sh
	}
	if tenantRatio.Decide(n, 0, has.bytes, s.used, s.total) != memory.Granted {
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		return has, s.moved, false
	}
	if sh == nil {
		sh = new(tenantUse)
		s.tenants[id] = sh
	}
	sh.bytes += n
	s.used += n
	return *sh, nil, true
}

// hang makes the tenant's further claims fail at once, until one is given back.
func (s *tenantMemory) hang(id tenant.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh := s.tenants[id]; sh != nil {
		sh.hangs = true
	}
}

func (s *tenantMemory) refuse(id tenant.ID, has int64) error {
	return errs.WithRetryAfter(errs.E(errs.Exhausted,
		"tenant %q: writes that do not end take %d bytes of memory here, and the rest of %d is kept for other tenants",
		id, has, s.total), hangsAfter)
}

// giveBack ends a claim of n bytes.
func (s *tenantMemory) giveBack(id tenant.ID, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	sh := s.tenants[id]
	sh.hangs = false
	sh.ended++
	if sh.bytes -= n; sh.bytes == 0 {
		delete(s.tenants, id)
	}
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}
