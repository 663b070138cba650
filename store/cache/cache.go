// Package cache keeps pages of a bucket's objects in memory. When they would exceed its bound, it drops those that were
// not used for the longest time.
//
// Flow:  Read(object, range) -> pages that are here -> the missing ones by few range reads -> kept -> the range's bytes
//
// Invariants: an object never changes, so a page is never stale; at most MaxBytes of pages are kept; what Read
// returns is the caller's.
//
// Locks: Pages.mu guards the list and the map and is not held while the bucket is read.
package cache

import (
	"container/list"
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// PageSize is the unit that is read and kept, in bytes.
const PageSize = 64 << 10

// Fetch reads exactly the bytes [off, off+n) of an object. The result is the cache's.
type Fetch func(ctx context.Context, off, n int64) ([]byte, error)

// Pages is the cache. It is safe for concurrent use; two readers that miss the same page at once both read it.
type Pages struct {
	max int64

	mu    sync.Mutex // guards what follows
	pages map[key]*list.Element
	order *list.List // of *page, the last used first
	size  int64

	hits, misses prometheus.Counter
}

type key struct {
	object string
	page   int64
}

type page struct {
	key
	data []byte
}

// New makes a cache of at most maxBytes; 0 keeps nothing. reg may be nil.
func New(maxBytes int64, reg prometheus.Registerer) *Pages {
	f := promauto.With(reg)
	p := &Pages{
		max: maxBytes, pages: map[key]*list.Element{}, order: list.New(),
		hits: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_index_cache_hits_total", Help: "Pages of indexes found in memory.",
		}),
		misses: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_index_cache_misses_total", Help: "Pages of indexes read from the bucket.",
		}),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_store_index_cache_bytes", Help: "Bytes of pages in memory.",
	}, func() float64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return float64(p.size)
	})
	return p
}

// Read returns the bytes [off, off+n) of an object of the given size, which the range must not leave. A range larger
// than an eighth of the cache passes it by.
func (p *Pages) Read(ctx context.Context, object string, size, off, n int64, fetch Fetch) ([]byte, error) {
	if n > p.max/8 {
		p.misses.Add(float64(n/PageSize + 1))
		return fetch(ctx, off, n)
	}
	out := make([]byte, n)
	first, last := off/PageSize, (off+n-1)/PageSize
	for at := first; at <= last; {
		if data := p.get(key{object, at}); data != nil {
			copyPage(out, off, at, data)
			at++
			continue
		}
		end := at + 1
		for end <= last && !p.has(key{object, end}) {
			end++
		}
		p.misses.Add(float64(end - at))
		from := at * PageSize
		data, err := fetch(ctx, from, min(end*PageSize, size)-from)
		if err != nil {
			return nil, err
		}
		for ; at < end; at++ {
			one := data[(at*PageSize - from):min(int64(len(data)), (at+1)*PageSize-from)]
			copyPage(out, off, at, one)
			if end-from/PageSize > 1 {
				one = append([]byte(nil), one...) // otherwise the page would keep the bytes of the whole read in memory
			}
			p.put(key{object, at}, one)
		}
	}
	return out, nil
}

// copyPage copies what page number at has of out, which begins at off.
func copyPage(out []byte, off, at int64, data []byte) {
	if begin := at * PageSize; begin < off {
		data = data[off-begin:]
		copy(out, data)
	} else {
		copy(out[begin-off:], data)
	}
}

func (p *Pages) get(k key) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.pages[k]
	if !ok {
		return nil
	}
	p.order.MoveToFront(e)
	p.hits.Inc()
	return e.Value.(*page).data
}

func (p *Pages) has(k key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.pages[k]
	return ok
}

func (p *Pages) put(k key, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.pages[k]; ok {
		return
	}
	p.pages[k] = p.order.PushFront(&page{k, data})
	for p.size += int64(len(data)); p.size > p.max; {
		oldest := p.order.Back()
		gone := p.order.Remove(oldest).(*page)
		delete(p.pages, gone.key)
		p.size -= int64(len(gone.data))
	}
}
