package static

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/filewatch"
	"github.com/hearth-metrics/hearth/ring"
)

// settleTime is for how long a Watcher waits after a change of the file before it reads it, so that it does not read
// half of the file.
const settleTime = 100 * time.Millisecond

// Watcher keeps the placement of a hashring file.
type Watcher struct {
	log     *slog.Logger
	metrics *metrics
	opts    Options
	current atomic.Pointer[placement]
	invalid errs.Last // the fault that the last read found

	mu      sync.Mutex // guards the fields below; held while the file is read
	content []byte     // in use; nil = nothing was read yet
	rings   []hashring // the hashrings of content
	fault   string     // the last fault that was logged, "" = none

	stop func() // nil until opened
}

// Watch makes a Watcher. It reads nothing before Open. The error is that of Options.Validate.
func Watch(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Watcher, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("hashrings: %w", err)
	}
	return &Watcher{log: log, metrics: newMetrics(reg, opts.Local), opts: opts}, nil
}

// Open loads the hashrings and then watches the file. It fails if they are not valid. A file that does not exist or
// has no endpoints is no fault: a controller will fill it, and Ready is an error until then.
func (w *Watcher) Open(context.Context, func(error)) error {
	if err := w.Reload(); err != nil {
		return err
	}
	if w.opts.File != "" {
		w.stop = filewatch.Follow(w.log, []string{w.opts.File}, w.opts.RefreshInterval, settleTime,
			func() { w.report(w.Reload()) })
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

// Placement returns the newest valid placement, nil before Open.
func (w *Watcher) Placement() ring.Placement {
	if p := w.current.Load(); p != nil {
		return p
	}
	return nil
}

// Reload reads the hashrings now. If they are not valid the last valid ones stay in use, and the error names the
// faults.
func (w *Watcher) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.metrics.reads.Inc()
	err := w.load()
	if err != nil {
		w.metrics.faults.Inc()
		w.metrics.good.Set(0)
		w.invalid.Set(err)
		return err
	}
	w.metrics.good.Set(1)
	w.invalid.Set(nil)
	return nil
}

// Fault is the error of the last read of the hashrings; nil = they are valid.
func (w *Watcher) Fault() error { return w.invalid.Get() }

// Ready is an error while there is no endpoint on which a series can be placed.
func (w *Watcher) Ready() error {
	if p := w.current.Load(); p != nil && len(p.members) > 0 {
		return nil
	}
	return fmt.Errorf("%s names no endpoints yet: writes are answered 503 until it does", w.from())
}

// Listed is an error while no hashring names this process. It then passes everything that it takes to others and
// stores nothing.
func (w *Watcher) Listed() error {
	p := w.current.Load()
	if p == nil || w.opts.Local == "" || len(p.members) == 0 {
		return nil
	}
	if slices.ContainsFunc(p.members, func(m ring.Member) bool { return m.Addr == w.opts.Local }) {
		return nil
	}
	const shown = 3
	names := make([]string, 0, shown+1)
	for _, m := range p.members[:min(shown, len(p.members))] {
		names = append(names, m.Addr)
	}
	if len(p.members) > shown {
		names = append(names, "...")
	}
	return fmt.Errorf("no hashring in %s has the endpoint %s, which --receive.local-endpoint says is this process: "+
		"it stores nothing of what it takes; the endpoints are %s",
		w.from(), w.opts.Local, strings.Join(names, ", "))
}

// from says where the hashrings are, for messages.
func (w *Watcher) from() string { return cmp.Or(w.opts.File, "--receive.hashrings") }

// read returns the content as it is now. A file that does not exist and was never read counts as empty.
func (w *Watcher) read() ([]byte, error) {
	if w.opts.File == "" {
		return w.opts.Content, nil
	}
	content, err := os.ReadFile(w.opts.File)
	if errors.Is(err, fs.ErrNotExist) && len(w.content) == 0 {
		return []byte{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hashrings: %w", err)
	}
	return content, nil
}

// load is called with w.mu held.
func (w *Watcher) load() error {
	content, err := w.read()
	if err != nil {
		return err
	}
	if w.content != nil && bytes.Equal(content, w.content) {
		return nil
	}
	rings, err := parseConfig(content, w.opts.Algorithm, w.opts.ReplicationFactor)
	if err == nil {
		err = lostEndpoints(w.rings, rings)
	}
	if err == nil && w.opts.File == "" && endpointsOf(rings) == 0 {
		err = errors.New("no hashring has endpoints, and nobody can fill a flag later: use --receive.hashrings-file")
	}
	if err != nil {
		return fmt.Errorf("hashrings of %s: %w", w.from(), err)
	}
	p := compile(rings, w.opts.ReplicationFactor)
	w.content, w.rings = content, rings
	w.current.Store(p)
	w.metrics.setInUse(rings, content)
	w.log.Info("hashrings in use", "from", w.from(), "hashrings", len(rings), "members", len(p.members))
	w.advise()
	return nil
}

// advise logs what is probably not meant in the hashrings that have just come into use.
func (w *Watcher) advise() {
	for _, warning := range append(unknownKeys(w.content), warnings(w.rings, w.opts.ReplicationFactor)...) {
		w.log.Warn("hashrings may not do what they are meant to", "from", w.from(), "what", warning)
	}
	if err := w.Ready(); err != nil {
		w.log.Warn("not ready", "err", err)
	}
	if w.metrics.local == nil {
		return
	}
	if err := w.Listed(); err != nil {
		w.metrics.local.Set(0)
		w.log.Warn("this receiver is given nothing to store", "err", err)
		return
	}
	w.metrics.local.Set(float64(min(1, len(w.current.Load().members))))
}

// report logs a fault when it appears, and when it is gone.
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
