package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// hedgeFloor is the shortest time after which a read gets a second try: local disks and busy processes take shorter
	// breaks than that, and a second try of a read that is about to end only costs.
	hedgeFloor = 50 * time.Millisecond
	// hedgeSamples is how many durations of a kind of read are kept, and minSamples how many are needed to judge by.
	hedgeSamples, minSamples = 128, 20
	// hedgePart is how many second tries each read allows, and hedgeBurst how many may be saved up.
	hedgePart, hedgeBurst = 0.05, 10
	// hedgeBytes bounds the memory of second tries under way, which no request's lease counts.
	hedgeBytes = 32 << 20
)

// durations are the last durations of one kind of read. Their estimate is pure: it does not look at a clock.
type durations struct {
	last [hedgeSamples]time.Duration // a ring
	n    int                         // how many were added
	p95  time.Duration               // 0 = not known yet
}

// add keeps d. The 95th percentile is computed anew with every eighth duration, since it changes slowly.
func (ds *durations) add(d time.Duration) {
	ds.last[ds.n%hedgeSamples] = d
	if ds.n++; ds.n < minSamples || ds.n%8 != 0 {
		return
	}
	sorted := slices.Clone(ds.last[:min(ds.n, hedgeSamples)])
	slices.Sort(sorted)
	ds.p95 = sorted[len(sorted)*95/100]
}

// delay is how long a read may take before it gets a second try; 0 = it gets none.
func (ds *durations) delay() time.Duration {
	if ds.p95 == 0 {
		return 0
	}
	return max(ds.p95, hedgeFloor)
}

// hedger gives reads of the bucket a second try when they take longer than 95 of 100 others of their kind. Reads that
// fail are objects.fetch's. It is safe for concurrent use.
type hedger struct {
	metrics *metrics

	mu     sync.Mutex // guards what follows
	kinds  map[hedgeKind]*durations
	tokens float64 // second tries that may be made
	bytes  int64   // of second tries under way
}

// hedgeKind is what reads are compared with each other: of equal files, and about as large.
type hedgeKind struct {
	what  string
	large bool
}

// largeRead is the size from which the time of a read depends on its size, in bytes.
const largeRead = 256 << 10

func newHedger(m *metrics) *hedger {
	return &hedger{metrics: m, kinds: map[hedgeKind]*durations{}, tokens: hedgeBurst}
}

// begin notes a read, and returns after which time it gets a second try; 0 = never.
func (h *hedger) begin(k hedgeKind) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens = min(h.tokens+hedgePart, hedgeBurst)
	if ds := h.kinds[k]; ds != nil {
		return ds.delay()
	}
	return 0
}

// took notes how long a read took.
func (h *hedger) took(k hedgeKind, d time.Duration, second bool) {
	if second {
		h.metrics.hedgesWon.Inc()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kinds[k] == nil {
		h.kinds[k] = &durations{}
	}
	h.kinds[k].add(d)
}

// allow takes a second try of n bytes, if there is one. The caller gives it back with done.
func (h *hedger) allow(n int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tokens < 1 || h.bytes+n > hedgeBytes {
		return false
	}
	h.tokens, h.bytes = h.tokens-1, h.bytes+n
	return true
}

func (h *hedger) done(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bytes -= n
}

// try is the outcome of one call.
type try struct {
	into   [][]byte
	got    int64
	err    error
	second bool
}

// read calls fetch, and calls it once more with memory of its own when the first call takes long. The first good
// outcome counts, the other call is cancelled. Where the second call wins, its buffers take the place of those of into.
func (h *hedger) read(ctx context.Context, what string, into [][]byte,
	fetch func(ctx context.Context, into [][]byte) (int64, error)) (int64, error) {
	n := length(into)
	kind := hedgeKind{what, n >= largeRead}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tries := make(chan try, 2) // a call that nobody waits for any more must not block
	call := func(into [][]byte, second bool) {
		got, err := fetch(ctx, into)
		tries <- try{into, got, err, second}
		if second {
			h.done(n)
		}
	}
	begun, running := time.Now(), 1
	var late <-chan time.Time
	if delay := h.begin(kind); delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		late = timer.C
	}
	go call(slices.Clone(into), false)
	for {
		select {
		case <-late:
			if h.allow(n) {
				running++
				h.metrics.hedges.Inc()
				go call(sameShape(into), true)
			}
		case t := <-tries:
			running--
			if running > 0 && ctx.Err() == nil && errs.KindOf(t.err) == errs.Unavailable {
				continue // the other one may have a better outcome
			}
			if t.err == nil {
				h.took(kind, time.Since(begun), t.second)
			}
			copy(into, t.into)
			return t.got, t.err
		}
	}
}

func sameShape(into [][]byte) [][]byte {
	out := make([][]byte, len(into))
	for i, b := range into {
		out[i] = make([]byte, len(b))
	}
	return out
}
