package tsdb

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
	promtsdb "github.com/prometheus/prometheus/tsdb"
)

// weighed is a block and its size in bytes.
type sizedBlock struct {
	id      ulid.ULID
	maxTime int64
	bytes   int64
}

// overweight are the oldest blocks, as many as keep the rest and head (bytes of the head and its logs) within most bytes.
func oldestBeyond(blocks []sizedBlock, head, most int64) map[ulid.ULID]bool {
	slices.SortFunc(blocks, func(a, b sizedBlock) int { return cmp.Or(-cmp.Compare(a.maxTime, b.maxTime), -a.id.Compare(b.id)) })
	over, total := map[ulid.ULID]bool{}, head
	for _, b := range blocks {
		if total += b.bytes; total > most {
			over[b.id] = true
		}
	}
	return over
}

// oversized are the blocks that the tenant's disk has no room for by MaxBytes, and that may go: what is not in the bucket
// yet stays, whatever it weighs.
func (in *instance) beyondMaxBytes(blocks []*promtsdb.Block) map[ulid.ULID]bool {
	if in.opts.MaxBytes <= 0 {
		return nil
	}
	var head int64
	if in.db != nil { // it is nil while the TSDB opens
		head = in.db.Head().Size()
	}
	all := make([]sizedBlock, len(blocks))
	for i, b := range blocks {
		meta := b.Meta()
		all[i] = sizedBlock{meta.ULID, meta.MaxTime, b.Size()}
	}
	over := oldestBeyond(all, head, in.opts.MaxBytes)
	for id := range over {
		if in.opts.Shipped != nil && !in.opts.Shipped(in.id, id) {
			delete(over, id)
		}
	}
	return over
}
