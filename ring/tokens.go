package ring

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TokenMember is a member of a token ring. Its tokens are points on the circle of 32-bit numbers.
type TokenMember struct {
	Member
	// Tokens are the points that this member owns, in any order. A member without tokens gets no series.
	Tokens []uint32
	// ReadOnly says that the member is listed and gets no series.
	ReadOnly bool
}

// placed reports whether series may be placed on m: it has tokens and is not read-only.
func (m TokenMember) placed() bool { return !m.ReadOnly && len(m.Tokens) > 0 }

// tokenRing is a placement by tokens. A key is the upper half of a series' placement hash. The owner of a token is
// the primary of every key that is above the token before it and not above the token itself.
type tokenRing struct {
	rf      int
	members []Member
	tokens  []uint32 // sorted
	// first[b] is the index of the first token whose upper bits are b or more. The search for a token looks only between
	// first[b] and first[b+1].
	first []int32
	shift int
	// sets holds width indexes of members for each token: the replicas of the keys up to it.
	sets  []int32
	width int
}

// NewTokens compiles members, whose ids must be distinct, into a placement with rf replicas. Members returns them
// sorted by id; the order of the input has no effect. A hundred members with 512 tokens each take some milliseconds.
//
// The replicas of a key are found by walking the circle from the key's token. The member that comes k-th among the
// members of its zone has rank k. Replicas are the rf members of lowest rank; of equal ranks the one that is met
// first is taken. So every zone is used once before any is used twice. When a member joins, the only member that
// enters any set of replicas is the new one, and at most one leaves.
func NewTokens(members []TokenMember, rf int) Placement { return newTokens(sorted(members), rf) }

// sorted is a copy of members, by id.
func sorted(members []TokenMember) []TokenMember {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b TokenMember) int { return strings.Compare(a.ID, b.ID) })
	return members
}

func newTokens(members []TokenMember, rf int) *tokenRing {
	r := &tokenRing{rf: rf, members: make([]Member, len(members))}
	for i, m := range members {
		r.members[i] = m.Member
	}
	circle := newCircle(members)
	r.width = min(rf, circle.placed)
	r.tokens = make([]uint32, len(circle.points))
	r.sets = make([]int32, 0, len(circle.points)*r.width)
	w := circle.walker(r.width)
	for i, p := range circle.points {
		r.tokens[i] = p.token
		r.sets = w.walk(r.sets, i)
	}
	r.index()
	return r
}

// index fills first with about two entries for each token.
func (r *tokenRing) index() {
	log := min(bits.Len(uint(len(r.tokens)))+1, 31)
	r.shift = 32 - log
	r.first = make([]int32, 1<<log+1)
	t := 0
	for b := range r.first {
		for t < len(r.tokens) && int(r.tokens[t]>>r.shift) < b {
			t++
		}
		r.first[b] = int32(t)
	}
}

// placed returns the members that own tokens, ascending.
func (r *tokenRing) placed() []int32 {
	var all []int32
	for at := 0; at < len(r.sets); at += r.width { // the first replica of a token owns it
		all = append(all, r.sets[at])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Members returns all members by id, the read-only ones too.
func (r *tokenRing) Members() []Member { return r.members }

// ReplicationFactor is the rf that was given.
func (r *tokenRing) ReplicationFactor() int { return r.rf }

// Replicas appends the members of the token that owns the hash. It allocates nothing (BenchmarkReplicas).
func (r *tokenRing) Replicas(dst []int32, _ tenant.ID, hash uint64) []int32 {
	if r.width == 0 {
		return dst
	}
	key := uint32(hash >> 32)
	bucket := key >> r.shift
	low, high := r.first[bucket], r.first[bucket+1]
	for low < high {
		if mid := (low + high) / 2; r.tokens[mid] < key {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if int(low) == len(r.tokens) {
		low = 0
	}
	at := int(low) * r.width
	return append(dst, r.sets[at:at+r.width]...)
}

// Shares returns, by member id, the part of all keys (0 to 1) that each member has a copy of. Members that are not
// placed have 0. The sum is rf, or the number of placed members if that is less.
func Shares(members []TokenMember, rf int) map[string]float64 {
	r := newTokens(sorted(members), rf)
	shares := make(map[string]float64, len(members))
	for _, m := range r.members {
		shares[m.ID] = 0
	}
	for i, token := range r.tokens {
		before := r.tokens[(i+len(r.tokens)-1)%len(r.tokens)]
		length := float64(token - before) // modulo 2^32: this is right across the end of the circle too
		if i == 0 && token == before {
			length = math.MaxUint32 + 1
		}
		for _, replica := range r.sets[i*r.width : (i+1)*r.width] {
			shares[r.members[replica].ID] += length / (math.MaxUint32 + 1)
		}
	}
	return shares
}

// circle holds the tokens of the members that may be placed.
type circle struct {
	points []point // sorted by token, then member
	zone   []int32 // of each member
	zones  []int   // number of placed members of each zone
	placed int     // number of placed members
}

type point struct {
	token  uint32
	member int32
}

func newCircle(members []TokenMember) *circle {
	c := &circle{zone: make([]int32, len(members))}
	zones := map[string]int32{}
	for i, m := range members {
		if !m.placed() {
			continue
		}
		z, ok := zones[m.Zone]
		if !ok {
			z = int32(len(zones))
			zones[m.Zone] = z
			c.zones = append(c.zones, 0)
		}
		c.zone[i] = z
		c.zones[z]++
		c.placed++
		for _, t := range m.Tokens {
			c.points = append(c.points, point{t, int32(i)})
		}
	}
	slices.SortFunc(c.points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.token, b.token), cmp.Compare(a.member, b.member))
	})
	return c
}

// walker finds sets of replicas. Its slices are used again for each walk.
type walker struct {
	*circle
	width int
	full  int // every zone gives all its members up to this rank, and
	rest  int // this many members come from the next rank: the first ones met

	seen  []int32 // by member: the number of the last walk that met it
	walks int32
	ranks []int // by zone: the number of members met in this walk
}

// walker decides how many replicas each rank gives.
func (c *circle) walker(width int) *walker {
	w := &walker{circle: c, width: width, rest: width, seen: make([]int32, len(c.zone)), ranks: make([]int, len(c.zones))}
	for w.rest > 0 {
		inRank := 0
		for _, n := range c.zones {
			if n > w.full {
				inRank++
			}
		}
		if inRank > w.rest {
			break
		}
		w.full++
		w.rest -= inRank
	}
	return w
}

// walk appends the replicas of the keys that the token at start owns, in the order in which they are met.
func (w *walker) walk(dst []int32, start int) []int32 {
	w.walks++
	clear(w.ranks)
	rest := w.rest
	for i, want := start, len(dst)+w.width; len(dst) < want; i++ {
		m := w.points[i%len(w.points)].member
		if w.seen[m] == w.walks {
			continue
		}
		w.seen[m] = w.walks
		w.ranks[w.zone[m]]++
		switch rank := w.ranks[w.zone[m]]; {
		case rank == w.full+1 && rest > 0:
			rest--
			dst = append(dst, m)
		case rank <= w.full:
			dst = append(dst, m)
		}
	}
	return dst
}
