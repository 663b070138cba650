package wire

import (
	"sync"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// scratch holds the arenas that a decoded Batch's slices point into, and what the decoders need while they run. An
// arena only ever grows by append. A slice of it stays valid when the arena moves, since nothing is written twice.
type scratch struct {
	canonical  []byte // tenant Sep labels of each series; labels of exemplars
	samples    []Sample
	histograms []Histogram
	exemplars  []Exemplar

	msg   []byte // the message
	limit int    // how long canonical may become
	memoryGrant
	body        *Buffer // what msg is in, if it goes back to its pool with the batch
	look        lookup
	v2          bool // msg is of remote write 2.0
	symbols     []symbol
	hashes      []Key // of the symbols, with a SeriesCache
	tableRead   bool  // tableUsable is known
	tableUsable bool  // what usableSymbols says

	pairs    []pair      // labels of the series and of the exemplar at hand, on the general path
	ahead    []rawSeries // how the series of the message are spelled (remote write 1.0)
	behind   int         // how many of them were read
	refIdx   []uint32    // label references of the series at hand, before they are pairs (remote write 2.0)
	families familySet
	hist     protoHistogram
	lost     Failure // what the series at hand loses though it is kept itself
	starts   bool    // some sample has a start timestamp
}

// mark is how full the arenas were when a series began.
type mark struct{ canonical, samples, histograms, exemplars int }

func (s *scratch) mark() mark {
	return mark{len(s.canonical), len(s.samples), len(s.histograms), len(s.exemplars)}
}

// undo drops what the series that began at m put into the arenas.
func (s *scratch) undo(m mark) {
	s.canonical, s.samples, s.exemplars = s.canonical[:m.canonical], s.samples[:m.samples], s.exemplars[:m.exemplars]
	clear(s.histograms[m.histograms:])
	s.histograms = s.histograms[:m.histograms]
	s.lost = Failure{}
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// newPooled is an empty Batch with one reference that returns to the pool after the last Release.
func newPooled(id tenant.ID) *Batch {
	b := batches.Get().(*Batch)
	b.Tenant, b.pool = id, recycle
	b.refs.Store(1)
	return b
}

// recycle empties b for its next use. Pointers into the heap of others are cleared. Arenas that this request hardly
// used go to the garbage collector, so that one huge request does not stay in memory for ever.
func recycle(b *Batch) {
	clear(b.histograms)
	clear(b.Metadata)
	clear(b.Rejected)
	clear(b.Series)
	b.Series = reuse(b.Series)
	b.Metadata = reuse(b.Metadata)
	b.Rejected = reuse(b.Rejected)
	b.canonical = reuse(b.canonical)
	b.samples = reuse(b.samples)
	b.histograms = reuse(b.histograms)
	b.exemplars = reuse(b.exemplars)
	b.pairs = reuse(b.pairs)
	b.refIdx = reuse(b.refIdx)
	b.symbols = reuse(b.symbols)
	b.families.reset()
	b.lost, b.msg, b.memoryGrant, b.look, b.v2, b.starts = Failure{}, nil, memoryGrant{}, lookup{}, false, false
	b.hashes, b.ahead, b.behind = reuse(b.hashes), reuse(b.ahead), 0
	if b.body != nil {
		PutBuffer(b.body)
		b.body = nil
	}
	batches.Put(b)
}

// smallArena is the size in bytes up to which an arena is kept whether it was used or not.
const smallArena = 1 << 20

// reuse empties s. It gives up a large list of which less than an eighth was in use.
func reuse[T any](s []T) []T {
	if cap(s)*int(unsafe.Sizeof(*new(T))) > smallArena && len(s) < cap(s)/8 {
		return nil
	}
	return s[:0]
}
