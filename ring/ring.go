package ring

import (
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Member is a process that owns data.
type Member struct {
	ID   string // instance id, unique in a cluster; for a static ring the address
	Addr string // gRPC host:port
	Zone string // availability zone, "" = none
}

// Placement maps series to members. Its members, their zones and what they own never change: a change of the ring makes a
// new Placement. With shuffle sharding (NewShuffled) the number of members of a tenant's shard is a limit that may be
// reloaded meanwhile; For gives the placement of one tenant, in which that number is fixed too. Implementations are safe
// for concurrent use.
type Placement interface {
	// Members are all members, in an order that is fixed for this placement. The caller must not change the slice.
	Members() []Member
	// Replicas appends to dst the indexes (into Members) of the members that store a series of tenant id whose placement
	// hash is hash: ReplicationFactor of them, fewer when the ring has fewer. The first one is the primary. It allocates
	// nothing when dst has the capacity. An empty result means that no member serves this tenant.
	Replicas(dst []int32, id tenant.ID, hash uint64) []int32
	// ReplicationFactor is the configured number of replicas, whatever the number of members; quorum is computed from it.
	ReplicationFactor() int
}

// Quorum is the number of replicas of rf that must store a sample before it is acknowledged.
func Quorum(rf int) int { return rf/2 + 1 }

// State is what a member says of itself, or what others conclude from its silence.
type State uint8

// The states. A member keeps its place in the ring while it is Active, Leaving or Down, so that a restart or a crash moves
// no series. A ReadOnly member has lost its place and takes no new series; it is still read. Down members cannot be read.
const (
	Active   State = iota // takes writes and answers reads
	ReadOnly              // draining: answers reads
	Leaving               // stopping, or stopped and expected back
	Down                  // its heartbeat is older than the timeout
)

// String is the state's word on pages and in metrics.
func (s State) String() string {
	return [...]string{"active", "read-only", "leaving", "down"}[s]
}

// Status is a member as its role's ring sees it now.
type Status struct {
	Member
	State     State
	HTTPAddr  string    // advertised HTTP host:port, "" when unknown
	Heartbeat time.Time // last one seen
	Since     time.Time // when this incarnation of its data began: its disk holds nothing older
	Share     float64   // the part of all series of which it has a copy, 0 to 1
}

// Incarnation is one disk of a member, and when it was part of the ring. A member that lost its disk and came back is a new
// incarnation. The completeness of a query is judged over all incarnations of the last retention period.
type Incarnation struct {
	Member
	Since time.Time // start of the data it can hold; with the id it names the disk, whatever the clock was
	// Off reports that its clock was found to be wrong. It may then hold samples of any time before Until.
	Off bool
	// Until is when it left for good or was forgotten; zero while it is a member.
	Until time.Time
	// Placed is since when it has had a place for writes without interruption, and in this zone; zero when not known.
	Placed time.Time
	// ReadOnly is when it was taken out of the placement, to drain; zero when it was not.
	ReadOnly time.Time
	// Drained reports that it left after the store gateways served all its blocks: nothing is missing without it.
	Drained bool
}

// Single is the placement of a process that is alone: every series belongs to self, once.
type Single struct{ Self Member }

// Members is self.
func (s Single) Members() []Member { return []Member{s.Self} }

// Replicas is always member 0.
func (s Single) Replicas(dst []int32, _ tenant.ID, _ uint64) []int32 { return append(dst, 0) }

// ReplicationFactor is 1.
func (s Single) ReplicationFactor() int { return 1 }
