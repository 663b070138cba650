package wire

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// SharedSeries holds the series that senders name by a number, once for all streams of a process, however many senders
// write the same series. A series goes when no stream has a number for it any more. It is safe for concurrent use.
type SharedSeries struct {
	max int64 // bytes of all series; 0 = no bound

	mu      sync.Mutex // guards what follows, and the streams of each series
	byKey   map[Key]*oneShared
	bytes   int64 // of all series that are held, with their labels
	scratch []byte
}

// NewSharedSeries has no series. It takes about max bytes at most; 0 = no bound.
func NewSharedSeries(max int64) *SharedSeries {
	return &SharedSeries{max: max, byKey: map[Key]*oneShared{}, scratch: []byte{}}
}

// Bytes is about how much memory the series take. Labels count also where the store has them instead.
func (n *SharedSeries) Bytes() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bytes
}

// Len is how many series there are.
func (n *SharedSeries) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.byKey)
}

// oneShared is a series as batches refer to it. Its labels are in own, or in kept once that is set. Everything else
// stays as it was made, except the hint.
type oneShared struct {
	own     atomic.Pointer[byte] // canonical, size bytes
	kept    atomic.Pointer[labels.Labels]
	size    uint32
	streams uint32
	key     Key
	hash    uint64
	hint    atomic.Uint64
	tenant  tenant.ID
}

// unusable is the series of a number whose labels were refused.
var unusable = &oneShared{}

// canonical are the labels, made anew when the store has them.
func (n *oneShared) canonical() []byte {
	return n.appendTo(nil)
}

// appendTo appends the labels to dst, or gives them as they are when dst is nil.
func (n *oneShared) appendTo(dst []byte) []byte {
	own := n.own.Load()
	switch {
	case n.size == 0:
		return dst
	case own == nil:
		return AppendLabels(slices.Grow(dst, int(n.size)), *n.kept.Load())
	case dst == nil:
		return unsafe.Slice(own, n.size)
	}
	return append(dst, unsafe.Slice(own, n.size)...)
}

// sharedSeriesSize is what a series takes beside its labels, with its place among the others.
const sharedSeriesSize = int64(unsafe.Sizeof(oneShared{})) + 48

func (n *oneShared) bytes() int64 { return sharedSeriesSize + int64(n.size) }

// hold gives the series of canonical labels, which are copied. Each hold needs a release. It is nil when the series
// would take more than max bytes.
func (n *SharedSeries) hold(id tenant.ID, full []byte) *oneShared {
	key, hash := Identify(full)
	labels := full[len(id)+1:]
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.byKey[key]
	if known != nil && known.tenant == id && int(known.size) == len(labels) {
		if n.scratch = known.appendTo(n.scratch[:0]); bytes.Equal(n.scratch, labels) {
			known.streams++
			return known
		}
	}
	size := sharedSeriesSize + int64(len(labels))
	if n.max > 0 && n.bytes+size > n.max {
		return nil
	}
	n.bytes += size
	own := bytes.Clone(labels)
	made := &oneShared{size: uint32(len(own)), streams: 1, key: key, hash: hash, tenant: id}
	made.own.Store(&own[0])
	if known == nil {
		n.byKey[key] = made
	}
	return made
}

// release gives up one hold.
func (n *SharedSeries) release(old *oneShared) {
	if old == unusable {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old.streams--; old.streams > 0 {
		return
	}
	n.bytes -= old.bytes()
	if n.byKey[old.key] == old {
		delete(n.byKey, old.key)
	}
}
