package overrides

import (
	"context"

	"github.com/hearth-metrics/hearth/internal/filewatch"
)

// Open follows the files from here on. They were read by Reload.
func (o *Overrides) Open(context.Context, func(error)) error {
	if len(o.files()) == 0 {
		return nil
	}
	o.stop = filewatch.Follow(o.log, o.files(), o.opts.Interval, o.opts.Settle, o.follow)
	return nil
}

// Close stops following the files. The last limits stay.
func (o *Overrides) Close() error {
	if o.stop != nil {
		o.stop()
	}
	return nil
}

// follow reads the files, and logs a fault that the last read did not have.
func (o *Overrides) follow() {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.fault
	if err := o.reload(); err != nil && o.fault != before {
		o.log.Error("limits files are not valid; the last good limits stay in force", "err", err)
	}
}
