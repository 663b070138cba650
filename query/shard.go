package query

import (
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// Shard says on which receivers a tenant's samples are. Samples that arrived at Since or later are on Size receivers
// only: on those that ring.Shard picks of the members at that moment. Size 0 = nothing is known; they may be on any
// receiver.
type Shard struct {
	Tenant tenant.ID
	Size   int
	Since  time.Time
}

// settling is how long after a change of the ring some processes may still place series as before. It includes the
// difference between their clocks.
const settling = time.Minute

// mayHold reports whether receiver i may have taken samples of the tenant at time at (Unix ms). It computes the shard
// from i and the members that were surely placed at that time. More members in a ring can only take i out of the shard,
// never put it in. So if i was in the shard that was used, it is in this one.
func (s Shard) mayHold(i ring.Incarnation, history []ring.Incarnation, at int64) bool {
	if s.Size <= 0 || at < s.Since.UnixMilli() {
		return true
	}
	members := []ring.Member{i.Member}
	for _, m := range history {
		isKnown := slices.ContainsFunc(members, func(o ring.Member) bool { return o.ID == m.ID })
		if !isKnown && surelyPlaced(m, at) {
			members = append(members, m.Member)
		}
	}
	return slices.Contains(ring.Shard(members, s.Tenant, s.Size), 0)
}

// surelyPlaced reports whether every process placed series on m at time at (Unix ms).
func surelyPlaced(m ring.Incarnation, at int64) bool {
	if m.Placed.IsZero() || at < m.Placed.Add(settling).UnixMilli() || m.Drained && m.ReadOnly.IsZero() {
		return false
	}
	end := m.ReadOnly
	if end.IsZero() || !m.Until.IsZero() && m.Until.Before(end) {
		end = m.Until
	}
	return end.IsZero() || at <= end.Add(-settling).UnixMilli()
}

// placings are the moments, in Unix ms, at which surelyPlaced may change.
func placings(m ring.Incarnation) []int64 {
	return []int64{
		m.Placed.Add(settling).UnixMilli(),
		m.ReadOnly.Add(-settling).UnixMilli() + 1,
		m.Until.Add(-settling).UnixMilli() + 1,
	}
}
