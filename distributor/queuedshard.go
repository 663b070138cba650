package distributor

import (
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// place says where a queuedShard is.
type place uint8

const (
	gone place = iota // not with the member, or no longer
	queued
	flying
)

// queuedShard is the shard of one write for one member, on its way there. It belongs to its write, which lives until
// the last of its shards is done.
type queuedShard struct {
	write    *write
	member   *member
	shard    wire.Shard // the worker's while it is being written, else guarded by member.mu
	bytes    int64
	since    time.Time // when it was queued
	answered bool      // its write has counted an answer for it; guarded by write.mu

	// Guarded by member.mu.
	queue      *tenantQueue
	place      place
	number     uint64 // its order in the queue
	series     int    // how many it was queued with
	tried      bool   // a try has failed
	late       bool   // its request has been answered
	placed     bool   // the member gets it before shards that start later
	probe      bool   // it counts in member.probes
	held       bool   // it counts in tenantQueue.held
	next, prev *queuedShard
}

// CopyOf implements wire.Copies. It places the series again, since only members of a Thanos ring make anybody ask.
func (r *queuedShard) CopyOf(i int32) int {
	w := r.write
	for n, m := range w.placed.Replicas(nil, w.batch.Tenant, w.batch.Series[i].Hash) {
		if &w.shards[m] == r {
			return n
		}
	}
	return 0 // a series that is not in this shard
}

// empty reports whether the shard has nothing.
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

// narrow leaves in the shard only the series whose failures may pass. It returns such a failure, nil if there is none.
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
