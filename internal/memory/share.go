package memory

// Greed keeps some from starving others: all requests of one of them may hold that many times what stays free. With a greed of
// 8, one alone can have 8/9, two together 8/17 each, and the next one always finds some room, however many there are.
type Greed int64

// PerTenant is the greed of tenants.
const PerTenant Greed = 8

// Verdict is the answer to a request for a share.
type Verdict uint8

// The verdicts.
const (
	Granted Verdict = iota
	Never           // it is more than one request can ever have
	Full            // others hold it
	Unfair          // it is free, and kept for others
)

// Most is how much of total one request may have.
func (g Greed) Most(total int64) int64 { return total / int64(g+1) * int64(g) }

// Decide says whether a request may have n more. It holds own already, other requests of the same tenant (or of whoever is kept
// from starving others) hold others, and all requests together hold used of total.
func (g Greed) Decide(n, own, others, used, total int64) Verdict {
	free := total - used - n
	switch {
	case own+n > g.Most(total):
		return Never
	case free < 0:
		return Full
	case others+own+n > int64(g)*free:
		return Unfair
	}
	return Granted
}

// DecideEntry is Decide for one place more of a number of places. A tenant that has none may have the last one.
func (g Greed) DecideEntry(others, used, total int64) Verdict {
	free := total - used - 1
	switch {
	case free < 0:
		return Full
	case others > int64(g)*free:
		return Unfair
	}
	return Granted
}
