package series

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
)

// View names one state of a bucket: which blocks it has, and which of them are replaced by others.
type View struct {
	// Number is larger the newer the state is. 0 is a state that a gateway found by looking into the bucket itself: two
	// such states cannot be compared.
	Number uint64
	// Hash is of the content. Two writers that raced may have given one number to two contents.
	Hash string
}

// Digest stands for a set of blocks. Equal sets have equal digests, in whatever order blocks were added. It is the same
// in all processes and versions, since it is sent between them.
type Digest struct {
	// Blocks is how many there are.
	Blocks int
	// Sums are of two hashes of each id, modulo 2^64.
	Sums [2]uint64
}

// DigestOf returns the digest of ids, of which each counts once.
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
	var salted [len(id) + 1]byte // the second hash is of one byte more
	copy(salted[:], id[:])
	d.Blocks++
	d.Sums[0] += xxhash.Sum64(salted[:len(id)])
	d.Sums[1] += xxhash.Sum64(salted[:])
}

// Holding is which blocks a gateway answers for, as it says before anything is asked of it.
type Holding struct {
	// Bucket is the id of the bucket, "" for a source that has none: nobody stands in for it.
	Bucket string
	// View is the state of the bucket that the gateway has now.
	View View
	// Whole says that it serves every block of that state: gateways that do so stand in for each other. One that serves
	// its share only, or a range of times, must not say it.
	Whole bool
}

// Coverage is which blocks the response of one gateway covers: what was needed for the request, in the state of the
// bucket that the gateway answered from, and what it served of that.
type Coverage struct {
	// Holding is that of the moment of the response. With Whole it served all that was needed, and what follows is empty.
	Holding
	// Needed is of all blocks of Holding.View that a complete answer has: those of the tenant, the range and the
	// resolution. All gateways find the same blocks for the same view and request.
	Needed Digest
	// Served are the needed blocks that this response has.
	Served []ulid.ULID
	// Others are the needed blocks that it left to others, all of them or, where they are too many to send, none.
	Others []Block
}

// Block is a block that is needed.
type Block struct {
	ID ulid.ULID
	// Replaces are the blocks that it was made of. All of them together have its samples. Gateways with an older view
	// serve these.
	Replaces []ulid.ULID
}

// Gap is what of a bucket no response covers.
type Gap struct {
	Bucket string
	View   View
	// Missing are blocks that nobody served, sorted. Unnamed is how many more there are at least: of these no response had
	// the ids.
	Missing []ulid.ULID
	Unnamed int
	// Unheard says that somebody has this view, and nobody who answered: what it needs is not known.
	Unheard bool
}

// Uncovered judges what responses covered of one bucket. heard are the coverages of responses to one request, seen what
// gateways said before, those included that did not answer. Of other buckets both may have entries.
//
// The newest view of all of them counts, and where two contents have its number both do. proven says that every block
// it needs was served: then it does not matter which gateway failed. gaps are the blocks known to be missing. Without a
// numbered view, and without a response that says what it covers, nothing is proven and nothing known to be missing.
//
// Views of number 0 cannot be compared: each of them that was heard must be covered, and proves nothing once a numbered
// view is known.
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

// sameNeed reports whether a and b are of one view and agree about what it needs. States that gateways found by
// themselves are one only if they need the same.
func sameNeed(a, b Coverage) bool {
	return a.View == b.View && a.Needed == b.Needed && a.Whole == b.Whole
}

// gapOf is what of the view of c was not served by any of the responses here. Those of other views count as well, as
// far as their blocks are known to be needed.
func gapOf(c Coverage, here []Coverage) (Gap, bool) {
	served, same := map[ulid.ULID]bool{}, map[ulid.ULID]bool{}
	var others []Block
	listed := false
	for _, o := range here {
		if o.View == c.View && o.Whole {
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
	case digestOfSet(same) == c.Needed:
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

// lists reports whether Served and Others together are all that is needed.
func (c Coverage) lists() bool {
	all := map[ulid.ULID]bool{}
	for _, id := range c.Served {
		all[id] = true
	}
	for _, b := range c.Others {
		all[b.ID] = true
	}
	return digestOfSet(all) == c.Needed
}

// replacedBy reports whether all that b was made of was served.
func (b Block) replacedBy(served map[ulid.ULID]bool) bool {
	return len(b.Replaces) > 0 && !slices.ContainsFunc(b.Replaces, func(id ulid.ULID) bool { return !served[id] })
}

func digestOfSet(ids map[ulid.ULID]bool) (d Digest) {
	for id := range ids {
		d.add(id)
	}
	return d
}

// StandsFor reports whether gateways that answered with heard make up for one that failed, of which failed is known.
// proven is what Uncovered says of the bucket. Where two gateways looked into the bucket themselves and each serves all
// it found, one stands in for the other, as neither can know that the other found more.
func StandsFor(failed Holding, heard []Coverage, proven bool) bool {
	if failed.Bucket == "" {
		return false
	}
	return proven || failed.View.Number == 0 && slices.ContainsFunc(heard, func(c Coverage) bool {
		return c.Bucket == failed.Bucket && c.Whole && c.View.Number == 0
	})
}

// Buckets are the ids of all buckets that heard and seen name, sorted.
func Buckets(heard []Coverage, seen []Holding) []string {
	var all []string
	for _, c := range heard {
		all = append(all, c.Bucket)
	}
	for _, h := range seen {
		all = append(all, h.Bucket)
	}
	all = slices.DeleteFunc(all, func(b string) bool { return b == "" })
	slices.SortFunc(all, cmp.Compare[string])
	return slices.Compact(all)
}
