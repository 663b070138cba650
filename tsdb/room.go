package tsdb

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// room keeps some of the disk free: a TSDB that meets a full one tears its logs, cannot repair them, and panics when it
// maps chunks; what would free space again, cutting and shipping, needs some itself.
type room struct {
	log   *slog.Logger
	dir   string
	least int64 // bytes, 0 = by the size of the disk
	// stat says how many bytes of the disk that dir is on are free, and how many it has. An error or 0 = not known.
	stat func(dir string) (free, size uint64, err error)

	checked atomic.Int64 // ms
	full    atomic.Bool
}

// roomEvery is the time between two looks at the disk. What is written in between comes out of the room kept free.
const roomEvery = 50 * time.Millisecond

// reserve is how much of a disk is kept free: a twentieth of it, from 640 MiB to 1 GiB, but never over a quarter. A cut
// sets 512 MiB aside for the chunks of its block while it writes them.
func reserve(least int64, size uint64) uint64 {
	if least > 0 {
		return uint64(least)
	}
	return min(max(size/20, 640<<20), 1<<30, size/4)
}

// look is whether the disk is too full for writes.
func (r *room) look(now time.Time) (full bool) {
	was, last := r.full.Load(), r.checked.Load()
	if d := now.UnixMilli() - last; last != 0 && 0 <= d && d < roomEvery.Milliseconds() {
		return was
	}
	if !r.checked.CompareAndSwap(last, now.UnixMilli()) {
		return was // another one looks
	}
	free, size, err := r.stat(r.dir)
	if err != nil || size == 0 {
		return was
	}
	need := reserve(r.least, size)
	if was {
		need += need / 8 // not to and fro
	}
	full = free < need
	r.full.Store(full)
	switch {
	case full && !was:
		r.log.Error("disk is nearly full, writes are refused until there is room", "dir", r.dir, "free_bytes", free, "needed_bytes", need)
	case was && !full:
		r.log.Info("disk has room again, writes are taken", "dir", r.dir, "free_bytes", free)
	}
	return full
}

// refuse is the answer to a write while the disk is too full, nil otherwise.
func (r *room) refuse(now time.Time) error {
	if !r.look(now) {
		return nil
	}
	return errs.WithRetryAfter(errs.E(errs.Exhausted, "the disk of this instance is nearly full"), 5*time.Second)
}
