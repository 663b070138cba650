package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/series"
)

// Sharing says how this gateway and others divide the blocks of a bucket.
type Sharing struct {
	// Self is the id of this gateway, by which the others know it.
	Self string
	// ReplicationFactor is how many gateways own each block. All gateways of a bucket should have the same.
	ReplicationFactor int
	// Peers returns the live gateways of the bucket, as far as this process knows them, this one among them. settled says
	// that it is known who they are. It is called every second, and must not block.
	Peers func() (all []Peer, settled bool)
	// Owners says who of some members owns what: owners returns the places in of of the n that own a key, the first owner
	// first. It must be the same on every gateway of the bucket, and in every version (docs/format/owners.md).
	Owners func(of []Member) (owners func(key []byte, n int) []int32)
}

func (s *Sharing) validate() error {
	switch {
	case s == nil:
		return nil
	case s.ReplicationFactor < 1:
		return fmt.Errorf("store: replication factor %d: must be at least 1", s.ReplicationFactor)
	case s.Self == "" || s.Peers == nil:
		return errors.New("store: gateways that share a bucket need names, and each must be able to find the others")
	case s.Owners == nil:
		return errors.New("store: gateways that share a bucket must know who owns which block")
	}
	return nil
}

// Member is a gateway, as far as it matters for who owns what. Its zone may be "".
type Member struct{ ID, Zone string }

// Peer is a live gateway of the same bucket.
type Peer struct {
	Member
	// Leaves says that it is about to leave: it goes on to serve what it has, and owns nothing.
	Leaves bool
	// States returns what it says of blocks. It is nil for this gateway itself.
	States func(ctx context.Context, ids []ulid.ULID) ([]series.BlockState, error)
}

// owners says who owns each block. The zero value is a gateway that is alone and owns all.
type owners struct {
	self    string
	members []Member // those that own blocks, by id
	copies  int
	// among is Sharing.Owners of members.
	among func(key []byte, n int) []int32
}

// ownersOf are those of peers that own blocks.
func ownersOf(s *Sharing, peers []Peer) owners {
	o := owners{self: s.Self, copies: s.ReplicationFactor}
	for _, p := range peers {
		if !p.Leaves {
			o.members = append(o.members, p.Member)
		}
	}
	slices.SortFunc(o.members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	o.among = s.Owners(o.members)
	return o
}

// alone reports whether this gateway owns everything, since there is no other, as far as is known.
func (o owners) alone() bool {
	return len(o.members) == 0 || len(o.members) == 1 && o.members[0].ID == o.self
}

func (o owners) equal(other owners) bool {
	return o.self == other.self && o.copies == other.copies && slices.Equal(o.members, other.members)
}

// place is why this gateway serves a block, or does not.
type place uint8

const (
	elsewhere place = iota // others own the block
	kept                   // others own it, and have not said yet that they serve it
	owned                  // this gateway is one of its owners
	first                  // this gateway is the first of its owners
)

// place is that of a block by the ring alone.
func (o owners) place(id ulid.ULID) place {
	if o.alone() {
		return first
	}
	for i, at := range o.among(id[:], o.copies) {
		switch {
		case o.members[at].ID != o.self:
		case i == 0:
			return first
		default:
			return owned
		}
	}
	return elsewhere
}

// of returns the ids of the owners of a block, the first one first.
func (o owners) of(id ulid.ULID) (ids []string) {
	for _, at := range o.among(id[:], o.copies) {
		ids = append(ids, o.members[at].ID)
	}
	return ids
}

// pending is a block that this gateway serves only until others serve its samples.
type pending struct {
	id ulid.ULID
	// by are the blocks that replace it. Without them the block has moved to other owners.
	by []ulid.ULID
	// moved says that others own the block. It may also be replaced.
	moved bool
}

// said is what gateways said of blocks. ok is false for a gateway that did not answer.
type said func(member string, id ulid.ULID) (state series.BlockState, ok bool)

// mayLetGo decides whether a block need not be served here any more: because each of its owners serves it, or because
// all live gateways know the blocks that replace it, and their owners serve these. late says that the gateways that do
// not answer had time enough.
func (o owners) mayLetGo(p pending, live []string, heard said, late bool) bool {
	if p.moved && o.taken(p.id, heard, late) {
		return true
	}
	for _, id := range p.by {
		for _, member := range live {
			if state, ok := heard(member, id); ok && !state.Known || !ok && !late {
				return false
			}
		}
		if !o.taken(id, heard, late) {
			return false
		}
	}
	return len(p.by) > 0
}

// taken reports whether each owner of a block said that it serves it as its owner. If late is set, the silence of some
// of them does not matter.
func (o owners) taken(id ulid.ULID, heard said, late bool) bool {
	serves := false
	for _, member := range o.of(id) {
		switch state, ok := heard(member, id); {
		case ok && !state.Owned, !ok && !late:
			return false
		case ok:
			serves = true
		}
	}
	return serves
}

const (
	// askInterval is the time between questions to other gateways about blocks that are to be let go.
	askInterval = 5 * time.Second
	// linger is for how long responses must allow to let go of a block before it is done. A querier that heard where a
	// block is may ask for it a moment later.
	linger = 30 * time.Second
	// silenceCounts is how long a gateway that does not answer holds blocks at others. It is longer than a start with a
	// large bucket, and than gossip takes to see that a process is dead. What is at stake is a second copy.
	silenceCounts = 10 * time.Minute
)

// handover is for how long responses allowed this gateway to let go of blocks. It is valid for one ring.
type handover struct {
	began    time.Time               // when the ring came
	safe     map[ulid.ULID]time.Time // since when responses allow it, without a break
	released map[ulid.ULID]bool      // blocks that were let go
	order    []ulid.ULID             // the same, in the order in which they were
}

func newHandover(now time.Time) *handover {
	return &handover{began: now, safe: map[ulid.ULID]time.Time{}, released: map[ulid.ULID]bool{}}
}

// late reports whether gateways that never answered had time enough.
func (h *handover) late(now time.Time) bool { return now.Sub(h.began) >= silenceCounts }

// note records which of the pending blocks responses allow to let go now, and returns how many were let go.
func (h *handover) note(all []pending, may func(pending) bool, now time.Time) (n int) {
	safe := map[ulid.ULID]time.Time{}
	for _, p := range all {
		if !may(p) {
			continue
		}
		since, was := h.safe[p.id]
		switch {
		case !was:
			safe[p.id] = now
		case now.Sub(since) < linger:
			safe[p.id] = since
		default:
			if !h.released[p.id] {
				h.order = append(h.order, p.id)
			}
			h.released[p.id] = true
			n++
		}
	}
	h.safe = safe
	return n
}

// settling decides when a gateway that starts takes the ring that it sees: when the same gateways were seen for a
// while, or when it has waited long enough.
type settling struct {
	began, since time.Time // when it began to wait, and since when it sees seen
	sure         time.Time // since when it is known who the others are; zero = it is not
	seen         owners
}

const (
	stableFor  = 3 * time.Second
	stableSure = time.Second // what a member that was met just now knows of others comes a moment later
	stableMost = 15 * time.Second
)

// done reports whether now, with the members of o, the wait is over.
func (s *settling) done(o owners, settled bool, now time.Time) bool {
	if s.began.IsZero() {
		s.began = now
	}
	if s.since.IsZero() || !o.equal(s.seen) {
		s.seen, s.since = o, now
	}
	switch {
	case !settled:
		s.sure = time.Time{}
	case s.sure.IsZero():
		s.sure = now
	}
	stable := !s.sure.IsZero() && now.Sub(s.since) >= stableFor && now.Sub(s.sure) >= stableSure
	return stable || now.Sub(s.began) >= stableMost
}
