package receive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

const seriesAlign = 16 // a series reference is the offset of its entry in units of this many bytes

// measured is what the whole index of a block was read for.
type measured struct {
	block.IndexStats
	ends map[int]int // where the last chunk of each file begins
}

// indexStats measures the block in dir: how much a reader must fetch to have one whole series entry or chunk. A size is
// seen as the distance to the next one, so the last of each file is not. It reads the whole index. The error is of kind Invalid.
func indexStats(ctx context.Context, dir string) (stats measured, err error) {
	defer func() {
		if p := recover(); p != nil { // an index with checksums that are right, and contents that are not
			err = errs.E(errs.Invalid, "index of block %s: panic: %v", dir, p)
		}
	}()
	r, err := index.NewFileReader(filepath.Join(dir, block.IndexName), index.DecodePostingsRaw)
	if err != nil {
		return stats, errs.E(errs.Invalid, "index of block %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	k, v := index.AllPostingsKey()
	all, err := r.Postings(ctx, k, v)
	if err != nil {
		return stats, errs.E(errs.Invalid, "index of block %s: %w", dir, err)
	}
	var builder labels.ScratchBuilder
	var metas []chunks.Meta
	var lastSeries storage.SeriesRef
	var lastChunk chunks.BlockChunkRef
	stats.ends = map[int]int{}
	for all.Next() {
		ref := all.At()
		if lastSeries != 0 {
			stats.SeriesMaxSize = max(stats.SeriesMaxSize, int64(ref-lastSeries)*seriesAlign)
		}
		lastSeries = ref
		if err := r.Series(ref, &builder, &metas); err != nil {
			return stats, errs.E(errs.Invalid, "index of block %s: %w", dir, err)
		}
		for _, m := range metas {
			ref := chunks.BlockChunkRef(m.Ref)
			file, offset := ref.Unpack()
			stats.ends[file] = max(stats.ends[file], offset)
			if lastFile, lastOffset := lastChunk.Unpack(); file == lastFile && lastOffset > 0 {
				stats.ChunkMaxSize = max(stats.ChunkMaxSize, int64(offset-lastOffset))
			}
			lastChunk = ref
		}
	}
	if err := all.Err(); err != nil {
		return stats, errs.E(errs.Invalid, "index of block %s: %w", dir, err)
	}
	return stats, nil
}

// complete is nil when the chunks that the index names are on disk: without some, the block in the bucket would count as a
// whole one. The error is of kind Invalid.
func (m *measured) complete(dir string) error {
	for file, offset := range m.ends {
		path := filepath.Join(dir, block.ChunksName, fmt.Sprintf("%06d", file+1))
		if info, err := os.Stat(path); err != nil {
			return errs.E(errs.Invalid, "block %s: %w", dir, err)
		} else if info.Size() <= int64(offset) {
			return errs.E(errs.Invalid, "block %s: %s has %d bytes, and a chunk begins at %d", dir, path, info.Size(), offset)
		}
	}
	return nil
}
