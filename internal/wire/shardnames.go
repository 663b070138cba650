package wire

import (
	"bytes"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Names holds the series that senders may call by a number, once for all streams of a process, however many senders write
// the same series. A name goes when no stream has a number for it any more. It is safe for concurrent use.
type Names struct {
	mu    sync.Mutex // guards byKey, and the streams of each name
	byKey map[Key]*name
}

// NewNames has none.
func NewNames() *Names { return &Names{byKey: map[Key]*name{}} }

// Len is how many series have a name.
func (n *Names) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.byKey)
}

// name is a series as batches refer to it: a cache line that does not change but for the hint, and the labels.
type name struct {
	labels  *byte // canonical, size bytes; never nil
	size    uint32
	streams uint32
	key     Key
	hash    uint64
	hint    atomic.Uint64
	tenant  tenant.ID
}

// unusable is what a number stands for whose labels were refused.
var unusable = &name{labels: new(byte)}

func (n *name) bytes() []byte { return unsafe.Slice(n.labels, n.size) }

// hold gives the name of canonical labels, which are copied. Each hold needs a release.
func (n *Names) hold(id tenant.ID, full []byte) *name {
	key, hash := Identify(full)
	labels := full[len(id)+1:]
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.byKey[key]
	if known != nil && known.tenant == id && bytes.Equal(known.bytes(), labels) {
		known.streams++
		return known
	}
	own := bytes.Clone(labels)
	made := &name{labels: &own[0], size: uint32(len(own)), streams: 1, key: key, hash: hash, tenant: id}
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
