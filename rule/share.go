package rule

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/hearth-metrics/hearth/internal/rulestate"
)

// Sharing says how this ruler and others divide the groups.
type Sharing struct {
	// Self is this ruler, as the others know it.
	Self Member
	// Peers returns the other rulers that are alive, as far as this process knows. settled says that it knows who they
	// are. It is called a few times a second, and must not block.
	Peers func() (all []Peer, settled bool)
	// Owners says who of some members owns what: owners returns the places in of of the n that own a key, the first owner
	// first. It must be the same in every ruler and in every version (docs/format/owners.md).
	Owners func(of []Member) (owners func(key []byte, n int) []int32)
}

func (s *Sharing) validate() error {
	if s != nil && (s.Self.ID == "" || s.Peers == nil || s.Owners == nil) {
		return errors.New("rule: rulers that share groups need names, each must be able to find the others, and must " +
			"know who owns what")
	}
	return nil
}

// Member is a ruler, as far as it matters for who owns what. Its zone may be "".
type Member struct{ ID, Zone string }

// Peer is another ruler that is alive.
type Peer struct {
	Member
	rulestate.Keeper
}

// copies is how many rulers have the state of a group: its owner, which evaluates it, and one that stands by.
const copies = 2

// ringKey is by what the owners of a group are chosen (docs/format/owners.md).
func (id groupID) ringKey() []byte {
	return []byte(string(id.tenant) + "\xff" + id.namespace + "\xff" + id.name)
}

// ringHash stands for a group where rulers tell each other which ones they have.
func (id groupID) ringHash() uint64 { return xxhash.Sum64(id.ringKey()) }

// view is what a ruler knows of the others at one time. It never changes.
type view struct {
	self    string
	settled bool // it is known who the others are
	leaves  bool // this ruler is about to stop
	peers   []peerView
	among   func([]Member) func(key []byte, n int) []int32
	own     Member
	changed chan struct{} // closed when there is a newer view
}

// peerView is another ruler in a view.
type peerView struct {
	Peer
	leaves  bool
	version uint64          // of groups; 0 = it never said which ones it has
	groups  map[uint64]bool // by groupID.ringHash
}

// equal reports whether groups have the same owners in both views.
func (v *view) equal(o *view) bool {
	return v.settled == o.settled && v.leaves == o.leaves &&
		slices.EqualFunc(v.peers, o.peers, func(a, b peerView) bool {
			return a.Peer == b.Peer && a.leaves == b.leaves && a.version == b.version
		})
}

// owners are the ids of the rulers that should have the state of a group: the one that evaluates it comes first. Those
// that do not have the group, or are about to stop, own nothing: so rules run while their files reach one ruler after
// the other.
func (v *view) owners(id groupID) []string {
	members := make([]Member, 0, len(v.peers)+1)
	if v.settled && !v.leaves {
		members = append(members, v.own)
	}
	hash := id.ringHash()
	for i := range v.peers {
		if p := &v.peers[i]; !p.leaves && p.groups[hash] {
			members = append(members, p.Member)
		}
	}
	out := make([]string, 0, copies)
	for _, at := range v.among(members)(id.ringKey(), copies) {
		out = append(out, members[at].ID)
	}
	return out
}

// evaluates reports whether this ruler should evaluate a group.
func (v *view) evaluates(id groupID) bool {
	owners := v.owners(id)
	return len(owners) > 0 && owners[0] == v.self
}

// peer is another ruler by its id; nil = there is none.
func (v *view) peer(id string) *peerView {
	i, ok := slices.BinarySearchFunc(v.peers, id, func(p peerView, id string) int { return cmp.Compare(p.ID, id) })
	if !ok {
		return nil
	}
	return &v.peers[i]
}
