package deletion

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Watcher looks again and again at a bucket, for processes that have no other reason to. Refusal may be called by
// several goroutines.
type Watcher struct {
	log    *slog.Logger
	reader *Reader // of the loop alone
	every  time.Duration
	list   atomic.Pointer[List]
	told   string // the fault that the log has; of the loop alone
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// lookTimeout bounds one look.
const lookTimeout = 30 * time.Second

// NewWatcher makes a Watcher that looks at bkt as often as every says. It does no I/O.
func NewWatcher(log *slog.Logger, bkt objstore.BucketReader, every time.Duration) *Watcher {
	return &Watcher{log: log, reader: NewReader(bkt), every: every}
}

// Open begins to look. A bucket that does not answer is no error: until it does, nothing is deleted.
func (w *Watcher) Open(context.Context, func(error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.wg.Go(func() {
		tick := time.NewTicker(w.every)
		defer tick.Stop()
		for {
			w.look(ctx)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return nil
}

// Close ends that.
func (w *Watcher) Close() error {
	w.cancel()
	w.wg.Wait()
	return nil
}

func (w *Watcher) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	list, err := w.reader.Read(ctx)
	if err == nil {
		w.list.Store(list)
	}
	text := errs.Text(err)
	if text != w.told && text != "" && ctx.Err() != context.Canceled {
		w.log.Warn("which tenants are deleted could not be read; what was read last counts", "err", err)
	}
	w.told = text
}

// Refusal is List.Refusal of what was read last, at this moment.
func (w *Watcher) Refusal(id tenant.ID) error { return w.list.Load().Refusal(id, time.Now()) }
