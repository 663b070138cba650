package frontend

import (
	"context"
	"sync"
)

// flights evaluates what several callers ask at the same time once.
type flights struct {
	mu  sync.Mutex // guards all, and the waiters of each
	all map[string]*flight
}

// flight is one evaluation.
type flight struct {
	done    chan struct{} // closed when result is there
	result  result
	waiters int
	cancel  context.CancelFunc
}

// do returns what evaluate returns, or what it returned to another caller with the same key who came while it was
// under way. The evaluation ends when no caller waits for it any more. ok is false if ctx has ended first.
func (f *flights) do(ctx context.Context, key string, evaluate func(context.Context) result) (r result, ok bool) {
	f.mu.Lock()
	fl := f.all[key]
	if fl == nil {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight{done: make(chan struct{}), cancel: cancel}
		if f.all == nil {
			f.all = map[string]*flight{}
		}
		f.all[key] = fl
		go func() {
			fl.result = evaluate(own)
			f.mu.Lock()
			f.forgetLocked(key, fl)
			f.mu.Unlock()
			close(fl.done)
			cancel()
		}()
	}
	fl.waiters++
	f.mu.Unlock()
	select {
	case <-fl.done:
		ok = true
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 && !ok {
		fl.cancel()
		f.forgetLocked(key, fl)
	}
	if !ok {
		return result{}, false
	}
	return fl.result, true
}

func (f *flights) forgetLocked(key string, fl *flight) {
	if f.all[key] == fl {
		delete(f.all, key)
	}
}
