package receive

import (
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/series"
)

// Phase is how far a drain is.
type Phase string

// The phases, in their order; Left, Unserved and Failed are the ends.
const (
	Serving  Phase = "serving"              // no drain
	Settling Phase = "read-only"            // the others place no more series here; writes that are under way still come
	Shipping Phase = "shipping"             // heads are cut, blocks go to the bucket
	Waiting  Phase = "waiting for gateways" // all data are in the bucket; store gateways do not serve all of them yet
	Left     Phase = "left"                 // store gateways serve all data: nothing is missing without this member
	Unserved Phase = "left unserved"        // all data are in the bucket, but the gateways did not serve them in time
	Failed   Phase = "failed"               // some data are not in the bucket: the member keeps its place and its data
)

// phases are all of them.
var phases = []Phase{Serving, Settling, Shipping, Waiting, Left, Unserved, Failed}

// step is what a drain does next.
type step int

const (
	doAnnounce  step = iota // announce that this member takes no more series
	doSettle                // wait for writes that were placed here before
	doShip                  // cut all heads, ship all blocks
	doSeal                  // refuse writes from now on
	doAsk                   // ask the gateways which blocks they serve
	doLeave                 // leave the ring, drained
	doLeaveLate             // leave the ring without knowing that all blocks are served
	doGiveUp                // stay in the ring
)

// drainState is what the next step depends on.
type drainState struct {
	now, deadline time.Time
	announced     time.Time // when the others learned that this member takes no more series; zero = not yet
	lastWrite     time.Time
	quiet         time.Duration // without a write for this long, the others have moved the series
	patience      time.Duration // the longest wait for that
	shipped       bool          // a flush succeeded, and no local block is missing in the bucket
	late          bool          // a write came after that flush began
	sealed        bool
	unserved      int // shipped blocks that the gateways do not serve yet, as far as is known
}

// next is the whole policy of a drain. A member leaves only when it is sealed and every sample that it acknowledged
// is in the bucket. Until everything was shipped once it takes writes. The first write after that makes it refuse all
// further ones, so that the drain ends. Writes to the other members of its series go on.
func next(s drainState) step {
	over := !s.now.Before(s.deadline)
	behind := !s.shipped || s.late
	switch {
	case over && behind:
		return doGiveUp
	case s.announced.IsZero():
		return doAnnounce
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
	since := s.announced
	if s.lastWrite.After(since) {
		since = s.lastWrite
	}
	return s.now.Before(since.Add(s.quiet)) && s.now.Before(s.announced.Add(s.patience))
}

// phase is the phase that a step belongs to; was is the phase before it.
func (st step) phase(was Phase) Phase {
	switch st {
	case doAnnounce, doSettle:
		return Settling
	case doShip:
		return Shipping
	case doAsk:
		return Waiting
	}
	return was
}

// response is what one gateway says of the blocks it was asked about.
type response struct {
	states []series.BlockState // one for each block; nil = it did not answer
	stays  bool                // it is not about to leave itself
}

// unservedBy is those of ids that are not safe with the gateways (docs/design/023). Every gateway must know a block:
// a query that reaches only those that do not know it would call its answer complete. And one that stays must serve
// it.
func unservedBy(ids []ulid.ULID, responses []response) []ulid.ULID {
	var left []ulid.ULID
	for i, id := range ids {
		known, served := true, false
		for _, r := range responses {
			var s series.BlockState
			if i < len(r.states) {
				s = r.states[i]
			}
			known, served = known && s.Known, served || r.stays && s.Served
		}
		if !known || !served {
			left = append(left, id)
		}
	}
	return left
}
