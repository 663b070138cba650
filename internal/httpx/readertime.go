package httpx

import "time"

// ReaderTime is how much time a reader has left to take an answer. It begins with a fixed time and grows with each byte
// that the reader takes. A bound on each wait alone would not be enough: a reader that takes a few bytes just in time
// could keep what the answer holds in memory for ever. It is for one answer, and not safe for concurrent use.
type ReaderTime struct {
	most  time.Duration // that a reader may be behind
	bytes int           // that a reader must take in a time of most
	left  time.Duration // until the reader is too far behind
	began time.Time     // the last wait
	ended time.Time     // the last wait; zero = none has ended yet
}

// NewReaderTime is the time of a reader that must take bytes in each time of length most, and may be behind that rate
// by most.
func NewReaderTime(most time.Duration, bytes int) ReaderTime {
	return ReaderTime{most: most, bytes: bytes, left: most}
}

// Begin begins a wait for the reader to take n more bytes, and returns how long it may take. The time since the last
// wait does not count against the reader: it makes up for earlier delays.
func (t *ReaderTime) Begin(now time.Time, n int) time.Duration {
	if !t.ended.IsZero() {
		t.left = min(t.most, t.left+now.Sub(t.ended))
	}
	t.began = now
	t.left += time.Duration(float64(n) / float64(t.bytes) * float64(t.most))
	return t.left
}

// End ends the wait. A reader that was fast never gets more time than at the beginning of an answer.
func (t *ReaderTime) End(now time.Time) {
	t.left = min(t.most, t.left-now.Sub(t.began))
	t.ended = now
}
