package tsdb

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
	promtsdb "github.com/prometheus/prometheus/tsdb"
)

// sizedBlock is a block with its size.
type sizedBlock struct {
	id      ulid.ULID
	maxTime int64
	bytes   int64
}

// oldestBeyond returns the oldest blocks that do not fit: without them the other blocks and the head with its logs
// (head bytes) take at most most bytes.
func oldestBeyond(blocks []sizedBlock, head, most int64) map[ulid.ULID]bool {
	slices.SortFunc(blocks, func(a, b sizedBlock) int {
		return cmp.Or(-cmp.Compare(a.maxTime, b.maxTime), -a.id.Compare(b.id))
	})
	over, total := map[ulid.ULID]bool{}, head
	for _, b := range blocks {
		if total += b.bytes; total > most {
			over[b.id] = true
		}
	}
	return over
}

// beyondMaxBytes returns the blocks that do not fit Options.MaxBytes and that may be deleted. A block that is not in
// the bucket yet stays.
func (in *instance) beyondMaxBytes(blocks []*promtsdb.Block) map[ulid.ULID]bool {
	if in.opts.MaxBytes <= 0 {
		return nil
	}
	var head int64
	if in.db != nil { // nil while the TSDB opens
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
