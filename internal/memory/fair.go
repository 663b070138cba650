package memory

// FairRatio keeps one tenant (or client address) from starving the others: what all requests of one tenant hold is at
// most that many times what is still free. With a ratio of 8, one tenant alone can hold 8/9 of everything and two can
// hold 8/17 each. Something always stays free for the next tenant, however many there are.
type FairRatio int64

// PerTenant is the ratio for tenants.
const PerTenant FairRatio = 8

// Verdict is the answer to a request for a part of something that is shared.
type Verdict uint8

// The verdicts.
const (
	Granted Verdict = iota
	Never           // no single request can ever have that much
	Full            // others hold it
	Unfair          // it is free, but kept for other tenants
)

// Most is how much of total one request can have.
func (r FairRatio) Most(total int64) int64 { return total / int64(r+1) * int64(r) }

// Decide says whether a request may have n more. The request holds own already, other requests of the same tenant hold
// others, and the requests of all tenants together hold used of total.
func (r FairRatio) Decide(n, own, others, used, total int64) Verdict {
	free := total - used - n
	switch {
	case own+n > r.Most(total):
		return Never
	case free < 0:
		return Full
	case others+own+n > int64(r)*free:
		return Unfair
	}
	return Granted
}

// DecideEntry says whether one more request of a tenant may enter, when others of its requests and used of all tenants'
// are inside and total may be. In contrast to Decide, a tenant that has nothing inside may have the last place.
func (r FairRatio) DecideEntry(others, used, total int64) Verdict {
	free := total - used - 1
	switch {
	case free < 0:
		return Full
	case others > int64(r)*free:
		return Unfair
	}
	return Granted
}
