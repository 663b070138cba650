package reloader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/filewatch"
)

// Options of a Reloader.
type Options struct {
	// ConfigFile is the configuration to watch, "" = none.
	ConfigFile string
	// OutputFile is where ConfigFile is written with variables replaced, for Prometheus to read; "" = nowhere, and
	// Prometheus reads ConfigFile itself.
	OutputFile string
	// RuleDirs are directories whose files, also in directories below them, are watched.
	RuleDirs []string
	// WatchInterval is how often everything is read again, besides when it changes. 0 = it is read once, and never again.
	WatchInterval time.Duration
	// RetryInterval is the wait after a reload that failed.
	RetryInterval time.Duration
	// Trigger has Prometheus read its files again. Its error has what is wrong with them, or with the way there.
	Trigger func(context.Context) error
	// Method is the name of the way in metrics: http or signal.
	Method string
	// Variable is the value of an environment variable, as os.LookupEnv.
	Variable func(name string) (string, bool)
}

// Validate reports all that is wrong with o.
func (o Options) Validate() error {
	var faults []error
	if o.OutputFile != "" && o.ConfigFile == "" {
		faults = append(faults, errors.New("an output file is set, and no configuration file to make it of"))
	}
	if o.OutputFile != "" && filepath.Clean(o.OutputFile) == filepath.Clean(o.ConfigFile) {
		faults = append(faults, fmt.Errorf("the configuration file %s and the output are the same file", o.ConfigFile))
	}
	if o.WatchInterval < 0 || o.RetryInterval <= 0 {
		faults = append(faults, fmt.Errorf("watch interval %s must not be negative, retry interval %s must be positive",
			o.WatchInterval, o.RetryInterval))
	}
	return errors.Join(faults...)
}

// settle is how long files must be left alone after the first change before they are read: a change of many files is
// one reload.
const settle = time.Second

// Reloader watches files. Make one with New.
type Reloader struct {
	log    *slog.Logger
	m      *metrics
	opts   Options
	settle time.Duration

	want   []byte // hash of all files as they were read last
	done   []byte // hash of them at the last reload that went well
	logged string // the last fault in the log

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes a Reloader. It does no I/O. Its metrics are Thanos's, and begin with thanos_sidecar_reloader_.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Reloader, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	r := &Reloader{log: log, m: newMetrics(reg, opts.Method), opts: opts, settle: settle}
	if r.Idle() {
		r.m.succeeded.Set(1) // else an alert on 0 fires where nothing is to be reloaded
	}
	return r, nil
}

// Idle reports whether there is nothing to watch.
func (r *Reloader) Idle() bool { return r.opts.ConfigFile == "" && len(r.opts.RuleDirs) == 0 }

// Open writes the output, and begins to watch. It waits for neither.
func (r *Reloader) Open(context.Context, func(error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	if !r.Idle() {
		r.wg.Go(func() { r.run(ctx) })
	}
	return nil
}

// Close stops watching, and breaks off a reload.
func (r *Reloader) Close() error {
	if r.cancel != nil {
		r.cancel()
	}
	r.wg.Wait()
	return nil
}

// run does everything until ctx ends.
func (r *Reloader) run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	if r.opts.WatchInterval > 0 {
		defer filewatch.Follow(r.log, r.watched(), r.opts.WatchInterval, r.settle, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})()
	}
	retry := time.NewTimer(0)
	defer retry.Stop()
	r.prepared()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			r.m.applied.Inc()
			if !r.prepared() {
				r.m.applyFailed.Inc()
			}
		case <-retry.C:
			if r.want == nil && !r.prepared() && r.opts.WatchInterval == 0 {
				retry.Reset(r.opts.RetryInterval) // nothing else would read the files again
			}
		}
		if r.want == nil || bytes.Equal(r.want, r.done) {
			continue
		}
		if !r.reload(ctx) {
			retry.Reset(r.opts.RetryInterval)
		}
	}
}

// watched are files in the directories that are watched.
func (r *Reloader) watched() (files []string) {
	if r.opts.ConfigFile != "" {
		files = append(files, r.opts.ConfigFile)
	}
	for _, dir := range r.opts.RuleDirs {
		files = append(files, filepath.Join(dir, "any"))
	}
	return files
}

// prepared reads all files and writes the output. It reports whether that went well.
func (r *Reloader) prepared() bool {
	want, unset, err := r.opts.prepare()
	r.m.unset.Set(float64(unset))
	if err != nil {
		r.tell("the configuration is not applied", err)
		return false
	}
	r.want = want
	return true
}

// reload has Prometheus read its files again. It reports whether that went well.
func (r *Reloader) reload(ctx context.Context) bool {
	limit := r.opts.WatchInterval
	if limit == 0 {
		limit = time.Minute
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r.m.reloads.Inc()
	err := r.opts.Trigger(limited)
	if ctx.Err() != nil {
		return true
	}
	if err != nil {
		r.m.failed.Inc()
		r.m.succeeded.Set(0)
		r.tell("Prometheus does not reload", err)
		return false
	}
	r.done, r.logged = r.want, ""
	r.m.succeeded.Set(1)
	r.m.succeededAt.SetToCurrentTime()
	r.log.Info("Prometheus has reloaded its configuration", "file", r.opts.ConfigFile, "dirs", r.opts.RuleDirs)
	return true
}

// tell logs each fault once.
func (r *Reloader) tell(what string, err error) {
	if text := what + err.Error(); r.logged != text {
		r.logged = text
		r.log.Error(what+", and will be tried again", "err", err)
	}
}
