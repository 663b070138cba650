package wire

import (
	"math"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Budget is asked before a request takes memory. bytes is what the request takes more. An error refuses it, and is what
// the request fails with. spare memory is left from earlier requests and the request can do without it. A nil Budget
// grants everything.
type Budget func(bytes int64, spare bool) error

// ask asks for bytes that are needed.
func (r Budget) ask(bytes int) error {
	if r == nil || bytes <= 0 {
		return nil
	}
	return r(int64(bytes), false)
}

// mayReuse reports whether bytes that are left from earlier requests may be used again.
func (r Budget) mayReuse(bytes int) bool {
	return r == nil || bytes == 0 || r(int64(bytes), true) == nil
}

// arena is one of the lists of a Batch that grow with a message. Canonical bytes are bounded by Batch.limit instead.
type arena int

const (
	arenaSeries arena = iota
	arenaSamples
	arenaMetadata
	arenaSymbols
	arenaPairs
	numArenas
)

// arenaItem is about what an item costs in bytes. arenaStep is for how many items the budget is asked at first, which
// is enough for small requests. Later steps grow with the number of items, so that large requests ask rarely.
var (
	arenaItem = [numArenas]int{
		arenaSeries: seriesSize, arenaSamples: 24, arenaMetadata: metadataSize, arenaSymbols: 32, arenaPairs: 16,
	}
	arenaStep = [numArenas]int{arenaSeries: 64, arenaSamples: 256, arenaMetadata: 32, arenaSymbols: 512, arenaPairs: 256}
)

// memoryGrant is the memory that a Batch was granted.
type memoryGrant struct {
	budget  Budget
	refused error          // what the budget said
	reserve int            // how much limit may still be raised
	allowed [numArenas]int // how many items are granted
}

// allowMore is called when arena a has n items and may have no more. It is false when the budget grants nothing more,
// and the message is then refused.
func (b *Batch) allowMore(a arena, n int) bool {
	if b.budget == nil {
		b.allowed[a] = math.MaxInt
		return true
	}
	n = max(n, b.allowed[a])
	step := max(n/2, arenaStep[a])
	if b.refused = b.budget.ask(step * arenaItem[a]); b.refused != nil {
		return false
	}
	b.allowed[a] = n + step
	return true
}

// Refused is why the Budget of b granted nothing more, nil if it has not refused.
func (b *Batch) Refused() error { return b.refused }

// within makes b take its memory step by step, as budget grants it. The arenas that b has from earlier use are asked
// for first. If they are refused, b starts without them.
func (b *Batch) within(budget Budget) {
	if budget == nil {
		return
	}
	b.budget = budget
	if !budget.mayReuse(b.capacity()) {
		b.dropArenas()
	}
	b.reserve, b.limit = b.limit, 0
	if had := min(cap(b.canonical), b.reserve); had > 0 {
		b.reserve, b.limit = b.reserve-had, had
	}
	b.allowed = [numArenas]int{
		arenaSeries: cap(b.Series), arenaSamples: cap(b.samples), arenaMetadata: cap(b.Metadata),
		arenaSymbols: min(cap(b.symbols), cap(b.hashes)),
		arenaPairs:   min(cap(b.pairs), cap(b.refIdx)),
	}
}

// capacity is how many bytes the arenas of b take.
func (b *Batch) capacity() int {
	return cap(b.canonical) + bytesOf(b.Series) + bytesOf(b.samples) + bytesOf(b.histograms) + bytesOf(b.exemplars) +
		bytesOf(b.Metadata) + bytesOf(b.symbols) + bytesOf(b.pairs) + bytesOf(b.refIdx) + bytesOf(b.hashes) + bytesOf(b.ahead)
}

// dropArenas gives up the arenas of b, which are empty.
func (b *Batch) dropArenas() {
	b.canonical, b.Series, b.samples, b.histograms, b.exemplars = nil, nil, nil, nil, nil
	b.Metadata, b.symbols, b.pairs, b.refIdx, b.hashes = nil, nil, nil, nil, nil
}

func bytesOf[T any](s []T) int { return cap(s) * int(unsafe.Sizeof(*new(T))) }

// mayAppend reports whether n canonical bytes more may be added.
func (b *Batch) mayAppend(n int) bool {
	missing := len(b.canonical) + n - b.limit
	return missing <= 0 || b.extend(missing)
}

// extend raises the limit by n at least, if it may be raised.
func (b *Batch) extend(n int) bool {
	const step = 64 << 10
	if n > b.reserve {
		return false
	}
	n = min(max(n, step, len(b.canonical)/2), b.reserve)
	if b.refused = b.budget.ask(n); b.refused != nil {
		return false
	}
	b.limit += n
	b.reserve -= n
	return true
}

// fail is the error of a message that was refused with fault.
func (b *Batch) fail(version string, fault int) error {
	if b.refused != nil {
		return b.refused
	}
	kind := errs.Invalid
	if fault == faultExpand {
		kind = errs.TooLarge
	}
	return errs.E(kind, "remote write %s message %s", version, faultText(fault))
}
