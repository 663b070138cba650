package overrides

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Open follows the files from here on. They were read by Reload.
func (o *Overrides) Open(context.Context, func(error)) error {
	if len(o.files()) == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	events, err := fsnotify.NewWatcher()
	if err == nil {
		for _, f := range o.files() {
			// The directory, since the file may be replaced: by a rename, or (in Kubernetes) by a link that changes.
			if err = events.Add(filepath.Dir(f)); err != nil {
				break
			}
		}
	}
	if err != nil {
		o.log.Warn("limits files are only read now and then", "files", o.files(), "interval", o.opts.Interval, "err", err)
	}
	o.done.Go(func() { o.watch(ctx, events) })
	return nil
}

// Close stops following the files. The last limits stay.
func (o *Overrides) Close() error {
	if o.stop != nil {
		o.stop()
	}
	o.done.Wait()
	return nil
}

// watch reads the files after their directories changed, and at the interval.
func (o *Overrides) watch(ctx context.Context, events *fsnotify.Watcher) {
	var changed chan fsnotify.Event
	var failed chan error
	if events != nil {
		defer events.Close()
		changed, failed = events.Events, events.Errors
	}
	interval := time.NewTicker(o.opts.Interval)
	defer interval.Stop()
	settled := time.NewTimer(o.opts.Settle)
	settled.Stop()
	waiting := false // for settled: what changes meanwhile does not put it off
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-changed:
			if !waiting && !e.Has(fsnotify.Chmod) {
				waiting = true
				settled.Reset(o.opts.Settle)
			}
		case err := <-failed:
			o.log.Warn("following limits files", "files", o.files(), "err", err)
		case <-settled.C:
			waiting = false
			o.follow()
		case <-interval.C:
			o.follow()
		}
	}
}

// follow reads the files, and logs a fault that was not told yet.
func (o *Overrides) follow() {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.fault
	if err := o.reload(); err != nil && o.fault != before {
		o.log.Error("limits files are not valid; the last good limits stay in force", "err", err)
	}
}
