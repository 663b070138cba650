package memory

// Greed is how many times of what stays free all requests of one tenant may hold. One tenant alone can have 8/9, two
// together 8/17 each, and the next one always finds some room.
const Greed = 8

// Verdict is the answer to a request for a share.
type Verdict uint8

// The verdicts.
const (
	Granted Verdict = iota
	Never           // it is more than one request can ever have
	Full            // others hold it
	Unfair          // it is free, and kept for other tenants
)

// Most is how much of total one request may have.
func Most(total int64) int64 { return total / (Greed + 1) * Greed }

// Decide says whether a request may have n more. It holds own already, other requests of its tenant hold others, and all
// requests together hold used of total.
func Decide(n, own, others, used, total int64) Verdict {
	free := total - used - n
	switch {
	case own+n > Most(total):
		return Never
	case free < 0:
		return Full
	case others+own+n > Greed*free:
		return Unfair
	}
	return Granted
}

// DecideEntry is Decide for one place more of a number of places. A tenant that has none may have the last one.
func DecideEntry(others, used, total int64) Verdict {
	free := total - used - 1
	switch {
	case free < 0:
		return Full
	case others > Greed*free:
		return Unfair
	}
	return Granted
}
