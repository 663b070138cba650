package capacity

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Disk keeps some of a disk free. A TSDB that meets a full disk tears its logs, cannot repair them, and panics when
// it maps chunks. Cutting and shipping, which free space again, need some space themselves.
type Disk struct {
	// Stat returns how many bytes of the disk that dir is on are free, and how many it has; an error or a size of 0 means
	// that it does not know. Tests replace it.
	Stat func(dir string) (free, size uint64, err error)

	log   *slog.Logger
	dir   string
	least int64 // bytes; 0 = by the size of the disk

	looked atomic.Int64 // ms: when it was looked at last
	full   atomic.Bool
}

// NewDisk watches the disk that dir is on. least is how many bytes stay free; 0 chooses by the size of the disk.
func NewDisk(log *slog.Logger, dir string, least int64) *Disk {
	return &Disk{Stat: statDisk, log: log, dir: dir, least: least}
}

// lookEvery is the time between two looks at the disk.
const lookEvery = 50 * time.Millisecond

// reserve is how many bytes of a disk are kept free: a twentieth of it, from 640 MiB to 1 GiB, but never more than a
// quarter. A cut allocates 512 MiB for the chunks of its block while it writes them.
func reserve(least int64, size uint64) uint64 {
	if least > 0 {
		return uint64(least)
	}
	return min(max(size/20, 640<<20), 1<<30, size/4)
}

// Full reports whether the disk was too full for writes when it was looked at last.
func (d *Disk) Full() bool { return d.full.Load() }

// Look looks at the disk, unless somebody just did, and reports whether it is too full for writes.
func (d *Disk) Look(now time.Time) (full bool) {
	was, last := d.full.Load(), d.looked.Load()
	if since := now.UnixMilli() - last; last != 0 && 0 <= since && since < lookEvery.Milliseconds() {
		return was
	}
	if !d.looked.CompareAndSwap(last, now.UnixMilli()) {
		return was // another goroutine looks
	}
	free, size, err := d.Stat(d.dir)
	if err != nil || size == 0 {
		return was
	}
	need := reserve(d.least, size)
	if was {
		need += need / 8 // so that it does not change its mind with each write
	}
	full = free < need
	d.full.Store(full)
	switch {
	case full && !was:
		d.log.Error("disk is nearly full, writes are refused until there is room",
			"dir", d.dir, "free_bytes", free, "needed_bytes", need)
	case was && !full:
		d.log.Info("disk has room again, writes are taken", "dir", d.dir, "free_bytes", free)
	}
	return full
}

// Refusal is the answer to a write while the disk is too full (Exhausted), nil otherwise.
func (d *Disk) Refusal(now time.Time) error {
	if !d.Look(now) {
		return nil
	}
	return errs.WithRetryAfter(errs.E(errs.Exhausted, "the disk of this instance is nearly full"), 5*time.Second)
}
