package tsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// selectBroken selects from the good blocks of a quarantined tenant. The rest cannot be read, so the set ends with
// the error cause. If the tenant is not quarantined, the set has only the error.
func (d *DB) selectBroken(ctx context.Context, r *series.Request, cause error) series.Set {
	t := d.lookup(r.Tenant)
	t.mu.Lock()
	broken := t.state == Broken
	t.mu.Unlock()
	if !broken || len(r.WithoutLabels) > 0 {
		return series.Failed(cause)
	}
	blocks := openGoodBlocks(t.dir, r.MinTime, r.MaxTime)
	set, err := openSet(ctx, blocks, r, blocks.close)
	if err != nil {
		blocks.close()
		return series.Failed(cause)
	}
	set.limit, set.missing = r.Limit, cause
	next := set.next
	set.next = func() (more bool) {
		defer func() {
			if p := recover(); p != nil { // the index has the right checksum, but its contents make no sense
				set.missing, more = errs.E(errs.Unavailable, "%w; panic: %v", cause, p), false
			}
		}()
		return next()
	}
	return set
}

// someBlocks are blocks that were opened for one query.
type someBlocks []*promtsdb.Block

// openGoodBlocks opens the blocks in tenant directory dir that overlap [mint, maxt], ms. It leaves out blocks that
// cannot be opened.
func openGoodBlocks(dir string, mint, maxt int64) (blocks someBlocks) {
	entries, _ := os.ReadDir(dir) // a directory that cannot be read counts as one without blocks
	for _, e := range entries {
		if id, err := ulid.ParseStrict(e.Name()); err != nil || id.String() != e.Name() {
			continue
		}
		b, err := openBlock(filepath.Join(dir, e.Name()))
		switch {
		case err != nil:
		case b.OverlapsClosedInterval(mint, maxt):
			blocks = append(blocks, b)
		default:
			_ = b.Close()
		}
	}
	return blocks
}

// openBlock opens a block; a panic of the library is an error.
func openBlock(dir string) (b *promtsdb.Block, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return promtsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
}

func (b someBlocks) close() {
	for _, block := range b {
		_ = block.Close()
	}
}

// Querier reads all of them.
func (b someBlocks) Querier(mint, maxt int64) (storage.Querier, error) {
	qs, err := eachBlock(b, func(b *promtsdb.Block) (storage.Querier, error) {
		return promtsdb.NewBlockQuerier(b, mint, maxt)
	})
	return storage.NewMergeQuerier(qs, nil, storage.ChainedSeriesMerge), err
}

// ChunkQuerier reads all of them.
func (b someBlocks) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	qs, err := eachBlock(b, func(b *promtsdb.Block) (storage.ChunkQuerier, error) {
		return queryShifted(b, mint, maxt)
	})
	return storage.NewMergeChunkQuerier(qs, nil, storage.NewConcatenatingChunkSeriesMerger()), err
}

// eachBlock opens a querier on each block, or none.
func eachBlock[Q interface{ Close() error }](
	blocks someBlocks, open func(*promtsdb.Block) (Q, error),
) (qs []Q, err error) {
	for _, b := range blocks {
		q, err := open(b)
		if err != nil {
			for _, q := range qs {
				err = errors.Join(err, q.Close())
			}
			return nil, err
		}
		qs = append(qs, q)
	}
	return qs, nil
}
