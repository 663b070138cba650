package series

import (
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
)

// View names one numbered state of a bucket: which blocks it has, and which of them are replaced by others.
type View struct {
	// Number grows with each new state. 0 is a state that a gateway found by listing the bucket itself. Nobody can tell
	// which of two such states is newer.
	Number uint64
	// Hash is the hash of the content. Two writers at the same time may give the same number to two contents.
	Hash string
}

// Digest stands for a set of blocks. Equal sets have equal digests; the order in which blocks are added does not
// matter. Processes send digests to each other, so all versions must compute the same ones.
type Digest struct {
	// Blocks is the number of blocks in the set.
	Blocks int
	// Sums are the sums of two hashes of each id, modulo 2^64.
	Sums [2]uint64
}

// DigestOf returns the digest of ids. An id that occurs several times counts once.
func DigestOf(ids ...ulid.ULID) (d Digest) {
	seen := make(map[ulid.ULID]bool, len(ids))
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			d.add(id)
		}
	}
	return d
}

func (d *Digest) add(id ulid.ULID) {
	var salted [len(id) + 1]byte // the second hash is that of the id and a zero byte
	copy(salted[:], id[:])
	d.Blocks++
	d.Sums[0] += xxhash.Sum64(salted[:len(id)])
	d.Sums[1] += xxhash.Sum64(salted[:])
}

// Holding says which blocks a gateway serves. The gateway says so in its Info, before a query.
type Holding struct {
	// Bucket is the id of the bucket. "" is a source without a bucket, or whose bucket has no id; no other source can
	// stand in for it. A querier gives a bucket without an id a name of its own, which no other process hears.
	Bucket string
	// Contents stand for a bucket that has no id.
	Contents Contents
	// View is the state of the bucket that the gateway has loaded.
	View View
	// Whole says that the gateway serves every block of that state. Such gateways stand in for each other. A gateway that
	// serves only its share, or only a range of times, must not set it: an answer without its blocks would look complete.
	Whole bool
}

// Coverage says which blocks the response of one gateway covers: which blocks the request needs, in the state of the
// bucket that the gateway used, and which of these it served.
type Coverage struct {
	// Holding is that of the time of the response. With Whole the gateway served all needed blocks, and the other fields
	// are empty.
	Holding
	// Needed is the digest of the blocks of Holding.View that a complete answer needs: those of the tenant, the time
	// range and the resolution. All gateways find the same blocks for the same view and request. Blocks that the request
	// names count as well if the response has them though the view does not need them any more.
	Needed Digest
	// Served are the needed blocks whose series this response has.
	Served []ulid.ULID
	// Others are the needed blocks that it left to other gateways: all of them, or none where they are too many to send.
	Others []Block
}

// Block is a block that a request needs.
type Block struct {
	ID ulid.ULID
	// Replaces are the blocks that it was made of. All of them together have its samples. Gateways with an older view
	// serve them instead.
	Replaces []ulid.ULID
}

// Gap says what part of a bucket no response covers.
type Gap struct {
	Bucket string
	View   View
	// Missing are the known ids of blocks that nobody served, sorted. Unnamed is the least number of missing blocks whose
	// ids no response named.
	Missing []ulid.ULID
	Unnamed int
	// Unheard says that some gateway has this view, but none of those that responded. Which blocks are needed in this
	// view is then not known.
	Unheard bool
}

// Uncovered decides what responses left out of one bucket. heard are the coverages of the responses to one request.
// seen are the holdings of all gateways as of before, including those that did not respond. Both may have entries of
// other buckets.
//
// The newest view among all of them counts. If two contents have its number, both count. proven says that every block
// needed in it was served; then it does not matter which gateway failed. gaps are the blocks known to be missing.
// Without a numbered view and without a response that says what it covers, proven is false and there are no gaps.
//
// Views with the number 0 cannot be compared. So each of them in heard must be covered. Once a numbered view is known,
// they prove nothing.
func Uncovered(bucket string, heard []Coverage, seen []Holding) (gaps []Gap, proven bool) {
	var newest uint64
	var here []Coverage
	for _, c := range heard {
		if c.Bucket == bucket {
			here = append(here, c)
			newest = max(newest, c.View.Number)
		}
	}
	for _, h := range seen {
		if h.Bucket == bucket {
			newest = max(newest, h.View.Number)
		}
	}
	for i, c := range here {
		first := slices.IndexFunc(here, func(o Coverage) bool { return sameNeed(o, c) })
		if c.View.Number != newest || first < i {
			continue
		}
		proven = true
		if gap, found := gapOf(c, here); found {
			gaps = append(gaps, gap)
		}
	}
	for _, h := range seen {
		heard := func(c Coverage) bool { return c.View == h.View }
		gap := Gap{Bucket: bucket, View: h.View, Unheard: true}
		if h.Bucket == bucket && newest > 0 && h.View.Number == newest && !slices.ContainsFunc(here, heard) &&
			!slices.ContainsFunc(gaps, func(g Gap) bool { return g.Unheard && g.View == gap.View }) {
			gaps = append(gaps, gap)
		}
	}
	return gaps, proven && len(gaps) == 0
}

// sameNeed reports whether a and b have the same view and the same needed blocks. Views with the number 0 are equal
// also where the listings differed; then the digests differ.
func sameNeed(a, b Coverage) bool {
	return a.View == b.View && a.Needed == b.Needed && a.Whole == b.Whole
}

// gapOf returns the blocks needed in the view of c that none of the responses here served. A response with another view
// counts for the blocks whose ids some response names as needed in this one.
func gapOf(c Coverage, here []Coverage) (Gap, bool) {
	served, same := map[ulid.ULID]bool{}, map[ulid.ULID]bool{}
	var others []Block
	listed := false
	for _, o := range here {
		if o.Whole && o.servesAllOf(c) {
			return Gap{}, false
		}
		for _, id := range o.Served {
			served[id] = true
		}
		if !sameNeed(o, c) {
			continue
		}
		for _, id := range o.Served {
			same[id] = true
		}
		if !listed && o.lists() {
			others, listed = o.Others, true
		}
	}
	switch {
	case DigestOfSet(same) == c.Needed:
		return Gap{}, false
	case !listed:
		return Gap{Bucket: c.Bucket, View: c.View, Unnamed: max(1, c.Needed.Blocks-len(same))}, true
	}
	gap := Gap{Bucket: c.Bucket, View: c.View}
	for _, b := range others {
		if !served[b.ID] && !b.replacedBy(served) {
			gap.Missing = append(gap.Missing, b.ID)
		}
	}
	slices.SortFunc(gap.Missing, ulid.ULID.Compare)
	return gap, len(gap.Missing) > 0
}

// servesAllOf reports whether a response that has all that its gateway found has all that c needs. What two gateways
// listed may differ, unless they say that it is the same set. It is not said of a bucket with an id; there two gateways
// that list it both count as whole.
func (o Coverage) servesAllOf(c Coverage) bool {
	switch {
	case c.Contents != "":
		return o.Contents.Now() == c.Contents.Now()
	case c.View.Number == 0:
		return o.View == c.View && c.Whole
	}
	return o.View == c.View
}

// lists reports whether Served and Others together are all needed blocks.
func (c Coverage) lists() bool {
	all := slices.Clone(c.Served)
	for _, b := range c.Others {
		all = append(all, b.ID)
	}
	return DigestOf(all...) == c.Needed
}

// replacedBy reports whether all blocks that b was made of were served.
func (b Block) replacedBy(served map[ulid.ULID]bool) bool {
	return len(b.Replaces) > 0 && !slices.ContainsFunc(b.Replaces, func(id ulid.ULID) bool { return !served[id] })
}

// StandsFor reports whether the gateways that responded with heard stand in for a gateway that failed. failed is the
// last known holding of that one. proven is the result of Uncovered for its bucket. Of two gateways that listed the
// bucket themselves, and that serve all blocks they found, one stands in for the other: neither can know whether the
// other found more. If the bucket has no id, one that responded must know all blocks that the one that failed was last
// known to have.
func StandsFor(failed Holding, heard []Coverage, proven bool) bool {
	if failed.Bucket == "" {
		return false
	}
	if failed.Contents != "" {
		return proven && slices.ContainsFunc(heard, func(c Coverage) bool {
			return c.Bucket == failed.Bucket && c.Contents.Know(failed.Contents)
		})
	}
	return proven || failed.View.Number == 0 && slices.ContainsFunc(heard, func(c Coverage) bool {
		return c.Bucket == failed.Bucket && c.Whole && c.View.Number == 0
	})
}

// Buckets returns the ids of all buckets in heard and seen, sorted, each once.
func Buckets(heard []Coverage, seen []Holding) []string {
	var all []string
	for _, c := range heard {
		all = append(all, c.Bucket)
	}
	for _, h := range seen {
		all = append(all, h.Bucket)
	}
	return SortedUnique(slices.DeleteFunc(all, func(b string) bool { return b == "" }), 0)
}
