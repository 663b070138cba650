package static

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/filewatch"
	"github.com/hearth-metrics/hearth/ring"
)

// settle is how long a Watcher waits after a change of the file for more of it, so as not to read half of it.
const settle = 100 * time.Millisecond

// Watcher keeps the placement of a hashring file.
type Watcher struct {
	log     *slog.Logger
	metrics *metrics
	opts    Options
	current atomic.Pointer[placement]

	mu      sync.Mutex // guards what follows; held while the file is read
	content []byte     // in use
	fault   string     // of the last read, "" = none

	stop func() // nil until opened
}

// Watch makes a Watcher; nothing is read before Open.
func Watch(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Watcher, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("hashrings: %w", err)
	}
	return &Watcher{log: log, metrics: newMetrics(reg), opts: opts}, nil
}

// Open loads the hashrings, which must be valid, and watches the file from there on.
func (w *Watcher) Open(context.Context, func(error)) error {
	if err := w.Reload(); err != nil {
		return err
	}
	if w.opts.File != "" {
		w.stop = filewatch.Follow(w.log, []string{w.opts.File}, w.opts.RefreshInterval, settle, func() { w.report(w.Reload()) })
	}
	return nil
}

// Close stops watching. The last placement stays.
func (w *Watcher) Close() error {
	if w.stop != nil {
		w.stop()
	}
	return nil
}

// Placement is the newest valid one; nil before Open.
func (w *Watcher) Placement() ring.Placement {
	if p := w.current.Load(); p != nil {
		return p
	}
	return nil
}

// Reload reads the hashrings now. When they are not valid the last good ones stay in use, and the error says why.
func (w *Watcher) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.metrics.reads.Inc()
	err := w.load()
	if err != nil {
		w.metrics.faults.Inc()
		w.metrics.good.Set(0)
		return err
	}
	w.metrics.good.Set(1)
	return nil
}

// load is called with w.mu held.
func (w *Watcher) load() error {
	content, from := w.opts.Content, "flag"
	if w.opts.File != "" {
		from = w.opts.File
		var err error
		if content, err = os.ReadFile(w.opts.File); err != nil {
			return fmt.Errorf("hashrings: %w", err)
		}
	}
	if w.content != nil && bytes.Equal(content, w.content) {
		return nil
	}
	rings, err := parseConfig(content, w.opts.Algorithm, w.opts.ReplicationFactor)
	if err != nil {
		return fmt.Errorf("hashrings of %s: %w", from, err)
	}
	p := compile(rings, w.opts.ReplicationFactor)
	w.content = content
	w.current.Store(p)
	w.metrics.use(rings, content)
	w.log.Info("hashrings in use", "from", from, "hashrings", len(rings), "members", len(p.members))
	for _, warning := range warnings(rings) {
		w.log.Warn("hashrings hold something without effect", "what", warning)
	}
	return nil
}

// report logs a fault once, and its end.
func (w *Watcher) report(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	switch {
	case fault == w.fault:
	case fault != "":
		w.log.Error("hashrings are not valid; the last good ones stay in use", "err", err)
	default:
		w.log.Info("hashrings are valid again")
	}
	w.fault = fault
}
