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

// Names holds the series that senders may call by a number, once for all streams of a process, however many senders write
// the same series. A name goes when no stream has a number for it any more. It is safe for concurrent use.
type Names struct {
	mu      sync.Mutex // guards byKey, and the streams of each name
	byKey   map[Key]*name
	scratch []byte
}

// NewNames has none.
func NewNames() *Names { return &Names{byKey: map[Key]*name{}, scratch: []byte{}} }

// Len is how many series have a name.
func (n *Names) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.byKey)
}

// name is a series as batches refer to it. Its labels are in own, or in kept once that is set; all else is as it was made,
// but for the hint.
type name struct {
	own     atomic.Pointer[byte] // canonical, size bytes
	kept    atomic.Pointer[labels.Labels]
	size    uint32
	streams uint32
	key     Key
	hash    uint64
	hint    atomic.Uint64
	tenant  tenant.ID
}

// unusable is what a number stands for whose labels were refused.
var unusable = &name{}

// canonical are the name's labels, made anew when the store has them.
func (n *name) canonical() []byte {
	return n.appendTo(nil)
}

// appendTo appends the labels to dst, or gives them as they are when dst is nil.
func (n *name) appendTo(dst []byte) []byte {
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

// hold gives the name of canonical labels, which are copied. Each hold needs a release.
func (n *Names) hold(id tenant.ID, full []byte) *name {
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
	own := bytes.Clone(labels)
	made := &name{size: uint32(len(own)), streams: 1, key: key, hash: hash, tenant: id}
	made.own.Store(&own[0])
	if known == nil {
		n.byKey[key] = made
	}
	return made
}

// release gives up one hold.
func (n *Names) release(old *name) {
	if old == unusable {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old.streams--; old.streams == 0 && n.byKey[old.key] == old {
		delete(n.byKey, old.key)
	}
}
