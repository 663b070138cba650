package httpx

import "time"

// Patience says for how long an answer waits for its reader: for some time as a whole, and longer as the reader takes
// bytes. A bound on each wait alone would let a reader that takes a little, just in time, keep what the answer holds
// for as long as it likes. It is for one answer and not safe for concurrent use; NewPatience makes one.
type Patience struct {
	most  time.Duration // that a reader may be behind
	bytes int           // that a reader takes in as long at least
	left  time.Duration // of it
	began time.Time     // the last wait
	ended time.Time     // zero = no wait has ended yet
}

// NewPatience is patience with a reader that should take bytes in each stretch of time of length most, and that may be
// behind that rate by most.
func NewPatience(most time.Duration, bytes int) Patience {
	return Patience{most: most, bytes: bytes, left: most}
}

// Begin begins a wait for the reader to take n further bytes, and says how long it may take. What passed since the last
// wait is not the reader's time: a reader that is not waited for catches up.
func (p *Patience) Begin(now time.Time, n int) time.Duration {
	if !p.ended.IsZero() {
		p.left = min(p.most, p.left+now.Sub(p.ended))
	}
	p.began = now
	p.left += time.Duration(float64(n) / float64(p.bytes) * float64(p.most))
	return p.left
}

// End ends the wait. What was taken fast is not saved up beyond what a new answer has.
func (p *Patience) End(now time.Time) {
	p.left = min(p.most, p.left-now.Sub(p.began))
	p.ended = now
}
