package store

import "sync/atomic"

const (
	// maxAhead bounds what meta.json makes us read ahead, in bytes: what it says of sizes may be wrong, and what is larger
	// than expected is read anew.
	maxAhead = 1 << 20
	// trustedSize is the largest size of a series entry or chunk, in bytes, that is read ahead whenever meta.json
	// says it. Above it one large entry would make every read of the block large, so sizes are learned.
	trustedSize = 4 << 10
	// aroundData is more bytes than a series entry or a chunk has beside its data.
	aroundData = 64
)

// readAhead is how many bytes are read for a series entry or a chunk whose size is not known, so that few are cut off
// and must be read anew. It follows the sizes that are seen. It is safe for concurrent use.
type readAhead struct {
	least int64
	now   atomic.Int64
}

// start begins with what meta.json says of the largest size, if it is plausible, else with usual.
func (a *readAhead) start(said, usual int64) {
	a.least = usual
	if said > 0 && said <= trustedSize {
		a.least = said + aroundData
	}
	a.now.Store(a.least)
}

func (a *readAhead) size() int64 { return a.now.Load() }

// saw learns from one size. A lost update of another goroutine does no harm.
func (a *readAhead) saw(n int64) { a.now.Store(ahead(a.now.Load(), n, a.least)) }

// ahead is what to read ahead after a size of n: at once enough for larger ones, then slowly less, since a second read
// costs more than some bytes.
func ahead(now, n, least int64) int64 {
	if n > now {
		return min(n+n/4, maxAhead)
	}
	return now - (now-max(n, least))/64
}
