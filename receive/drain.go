package receive

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// Phase is how far a drain is.
type Phase string

// The phases, in their order; Left, Unserved and Failed are the ends.
const (
	Serving  Phase = "serving"              // no drain
	Settling Phase = "read-only"            // the others were told; what was on its way here still comes
	Shipping Phase = "shipping"             // heads are cut, blocks go to the bucket
	Waiting  Phase = "waiting for gateways" // all is in the bucket; store gateways do not serve all of it yet
	Left     Phase = "left"                 // store gateways serve it all: nothing is missing without this member
	Unserved Phase = "left unserved"        // all is in the bucket, but the gateways were not seen to serve it in time
	Failed   Phase = "failed"               // not all is in the bucket: the member keeps its place and its data
)

// phases are all of them.
var phases = []Phase{Serving, Settling, Shipping, Waiting, Left, Unserved, Failed}

// step is what a drain does next.
type step int

const (
	doTell      step = iota // say that this member takes no more series
	doSettle                // let what was placed here before arrive
	doShip                  // cut everything, ship everything
	doSeal                  // refuse writes from now on
	doAsk                   // ask the gateways what they serve
	doLeave                 // leave the ring, drained
	doLeaveLate             // leave the ring, not known to be served
	doGiveUp                // stay
)

// drainState is what the next step depends on.
type drainState struct {
	now, deadline time.Time
	told          time.Time // when the others were told; zero = not yet
	lastWrite     time.Time
	quiet         time.Duration // without a write for this long, the others have moved the series
	patience      time.Duration // the longest wait for that
	shipped       bool          // a flush succeeded, and no local block is missing in the bucket
	late          bool          // a write came after that flush began
	sealed        bool
	unserved      int // shipped blocks that the gateways do not serve yet, as far as is known
}

// next is the whole policy of a drain. A member leaves only when it is sealed and all it ever acknowledged is in the
// bucket. Writes are taken until then, as long as there are none after everything was shipped once: a late one is the
// last, so that the drain ends. The other members of its series are written as before.
func next(s drainState) step {
	over := !s.now.Before(s.deadline)
	behind := !s.shipped || s.late
	switch {
	case over && behind:
		return doGiveUp
	case s.told.IsZero():
		return doTell
	case !s.shipped && s.unsettled():
		return doSettle
	case s.shipped && s.late && !s.sealed:
		return doSeal
	case behind:
		return doShip
	case s.unserved > 0 && !over:
		return doAsk
	case !s.sealed:
		return doSeal
	case s.unserved > 0:
		return doLeaveLate
	}
	return doLeave
}

func (s drainState) unsettled() bool {
	since := s.told
	if s.lastWrite.After(since) {
		since = s.lastWrite
	}
	return s.now.Before(since.Add(s.quiet)) && s.now.Before(s.told.Add(s.patience))
}

// phase is what a step is part of; was is the phase before it.
func (st step) phase(was Phase) Phase {
	switch st {
	case doTell, doSettle:
		return Settling
	case doShip:
		return Shipping
	case doAsk:
		return Waiting
	}
	return was
}

// response is what one gateway says of the blocks it was asked about; nil = it did not answer.
type response struct {
	knows  []bool // its view of the bucket has the block, or one that replaces it
	serves []bool
	stays  bool // it is not about to leave itself
}

// unservedBy is those of ids that are not safe with the gateways (docs/design/023). Every gateway must know a block: a query that
// reaches only those that do not know it would call its answer complete. And one that stays must serve it.
func unservedBy(ids []ulid.ULID, responses []response) []ulid.ULID {
	var left []ulid.ULID
	for i, id := range ids {
		known, served := true, false
		for _, r := range responses {
			known = known && i < len(r.knows) && r.knows[i]
			served = served || r.stays && i < len(r.serves) && r.serves[i]
		}
		if !known || !served {
			left = append(left, id)
		}
	}
	return left
}
