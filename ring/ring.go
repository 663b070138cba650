package ring

import (
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Member is a process of the ring. A receiver owns series; a member of another role owns a part of its role's work.
type Member struct {
	ID   string // instance id, unique in a cluster; for a static ring the address
	Addr string // gRPC host:port
	Zone string // availability zone, "" = none
}

// Placement maps series to members. Members, their zones and their tokens never change: a change of the ring makes a
// new Placement. What NewShuffled returns asks at each call for the number of members in a tenant's shard. That
// number is a limit, so it may change while the placement is used, and Replicas may then answer differently. For
// gives the placement of one tenant, in which the number is fixed. Implementations are safe for concurrent use.
type Placement interface {
	// Members are all members, in an order that is fixed for this placement. The caller must not change the slice.
	Members() []Member
	// Replicas appends to dst the indexes (into Members) of the members that store a series of tenant id whose placement
	// hash is hash: ReplicationFactor of them, or fewer if fewer members can take series. The first one is the primary.
	// It allocates nothing if dst has the capacity and the tenant's part of the placement is cached. An empty result
	// means that no member serves this tenant.
	Replicas(dst []int32, id tenant.ID, hash uint64) []int32
	// ReplicationFactor is the number of replicas that the cluster wants, whatever the number of members. Quorum is
	// computed from it.
	ReplicationFactor() int
}

// Quorum is the number of replicas of rf that must store a sample before it is acknowledged.
func Quorum(rf int) int { return rf/2 + 1 }

// State is what a member says of itself, or what others conclude from its silence.
type State uint8

// The states. A member keeps its place in the ring while it is Active, Leaving or Down, so that a restart or a crash
// moves no series. A ReadOnly member has lost its place and takes no new series; it is still read. A Down member is
// assumed not to answer.
const (
	Active   State = iota // takes writes and answers reads
	ReadOnly              // takes no new series: it drains, or does not belong to this cluster; answers reads
	Leaving               // stopping, or stopped and expected back
	Down                  // no heartbeat of it came within the timeout
)

// String is the state's word on pages and in metrics.
func (s State) String() string {
	return [...]string{"active", "read-only", "leaving", "down"}[s]
}

// Status is what this process knows of one member of one role's ring.
type Status struct {
	Member
	State     State
	HTTPAddr  string    // advertised HTTP host:port, "" when unknown
	Bucket    string    // id of the object store that it uses, "" for none or when unknown
	Contents  string    // what a gateway found in a bucket without an id, as it says it; "" when unknown
	Heartbeat time.Time // when the last one came, by this process's clock
	Since     time.Time // when this incarnation of its data began: its disk holds nothing older
	Share     float64   // the part of all series of which it has a copy, 0 to 1; 0 for roles other than receive
}

// Incarnation is one disk of a member, and when it was part of the ring. A member that comes back with a new disk is
// a new incarnation. Whether an answer is complete is judged by all incarnations of the last retention period.
type Incarnation struct {
	Member
	Since time.Time // start of the data it can hold, by its own clock; id and Since together name the disk
	// Off reports that its clock was found to be wrong. Then Since is no bound: the disk may hold samples of any time
	// before Until.
	Off bool
	// Until is when it left for good, was forgotten or was replaced by another incarnation; zero while it is a member.
	Until time.Time
	// Placed is since when it has had a place for writes, in this zone and without interruption; zero if that is not
	// known.
	Placed time.Time
	// ReadOnly is when it became ReadOnly; zero if it is not.
	ReadOnly time.Time
	// Drained reports that it left after the store gateways served all its blocks, so nothing is missing without it.
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
