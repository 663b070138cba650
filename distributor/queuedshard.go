package distributor

import (
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

type place uint8

const (
	gone place = iota // not with the peer, or no longer
	queued
	flying
)

// replica is one shard on its way to one member. It belongs to its write, which outlives it.
type queuedShard struct {
	write    *write
	member   *member
	shard    wire.Shard // the worker's while it flies, else guarded by peer.mu
	bytes    int64
	since    time.Time // when it was queued
	answered bool      // its write has counted an answer for it; guarded by write.mu

	// Guarded by peer.mu.
	tenantQueue *tenantQueue
	place       place
	number      uint64 // in its lane
	series      int    // how many it was queued with
	tried       bool   // a try has failed
	late        bool   // its request has been answered
	placed      bool   // while it flies: the member gets it before what starts after it
	probe       bool   // while it flies: it counts in peer.probes
	held        bool   // while it flies: it counts in lane.held
	next, prev  *queuedShard
}

// CopyOf implements wire.Copies. It is found again when it is asked for, which only members of a Thanos ring make anybody do.
func (r *queuedShard) CopyOf(i int32) int {
	w := r.write
	for n, m := range w.placed.Replicas(nil, w.batch.Tenant, w.batch.Series[i].Hash) {
		if &w.shards[m] == r {
			return n
		}
	}
	return 0 // a series that is not in this shard
}

func (r *queuedShard) empty() bool { return r.items() == 0 }

// items is how many series and metadata entries the shard has.
func (r *queuedShard) items() int { return len(r.shard.Series) + len(r.shard.Metadata) }

// check finds answers about series that were not asked for.
func (r *queuedShard) check(failures []wire.Failure) error {
	for _, f := range failures {
		if _, asked := slices.BinarySearch(r.shard.Series, int32(f.Series)); !asked {
			return errs.E(errs.Internal, "answer about series %d, which was not in the write", f.Series)
		}
	}
	return nil
}

// narrow leaves in the shard only the series that failed in a way that may pass, and returns such a failure, if any.
func (r *queuedShard) narrow(failures []wire.Failure) (err error) {
	missing := r.shard.Series[:0]
	for _, f := range failures {
		if retryable(f.Kind) {
			missing = append(missing, int32(f.Series))
			err = errs.E(f.Kind, "%s", f.Reason)
		}
	}
	if err != nil {
		slices.Sort(missing)
		r.shard.Series, r.shard.Metadata = slices.Compact(missing), r.shard.Metadata[:0]
	}
	return err
}
