package query

import (
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// Shard is where a tenant's samples are: what arrived from Since on is on Size receivers only, those that ring.Shard
// picks of the members of that moment. Size 0: nothing is known, they may be on any.
type Shard struct {
	Tenant tenant.ID
	Size   int
	Since  time.Time
}

// settling is how long after a change of the ring processes may still place as before, clocks that differ included.
const settling = time.Minute

// mayHold reports whether receiver i may have taken samples of the tenant at time at. The shard is one of i and the
// members that were surely placed then: a member more in the ring only ever takes others out of a shard, so that
// whoever was in the shard that was used is in this one.
func (s Shard) mayHold(i ring.Incarnation, history []ring.Incarnation, at int64) bool {
	if s.Size <= 0 || at < s.Since.UnixMilli() {
		return true
	}
	members := []ring.Member{i.Member}
	for _, m := range history {
		if m.ID != i.ID && surelyPlaced(m, at) && !slices.ContainsFunc(members,
			func(o ring.Member) bool { return o.ID == m.ID }) {
			members = append(members, m.Member)
		}
	}
	return slices.Contains(ring.Shard(members, s.Tenant, s.Size), 0)
}

// surelyPlaced reports whether every process placed series on m at time at.
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

// placings are the moments at which surelyPlaced may change.
func placings(m ring.Incarnation) []int64 {
	return []int64{m.Placed.Add(settling).UnixMilli(), m.ReadOnly.Add(-settling).UnixMilli() + 1,
		m.Until.Add(-settling).UnixMilli() + 1}
}
