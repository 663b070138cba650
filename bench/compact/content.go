package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
)

// content is what a bucket holds, without blocks that are marked for deletion.
type content struct {
	Blocks      map[int64]int // by resolution in ms
	Bytes       int64
	Series      int
	Samples     int    // raw, each time of a series once
	Sum         uint64 // of hashes of all raw samples with their series
	Downsampled map[int64]float64
}

// holds reports whether c has all raw samples of want and no others, and as many in each resolution that there is. If
// newest is not 0 the last of that many windows is not downsampled.
func (c content) holds(want content, newest int) bool {
	downsampled := want.Samples
	if newest > 0 {
		downsampled -= want.Samples / newest
	}
	for _, samples := range c.Downsampled {
		if samples != float64(downsampled) {
			return false
		}
	}
	return c.Series == want.Series && c.Samples == want.Samples && c.Sum == want.Sum
}

func (c content) String() string {
	return fmt.Sprintf("%v blocks of %d MiB with %d series, %d raw samples (%x), downsampled %v", c.Blocks, c.Bytes>>20,
		c.Series, c.Samples, c.Sum, c.Downsampled)
}

// contentOf reads a bucket in a directory.
func contentOf(ctx context.Context, dir string) (content, error) {
	c := content{Blocks: map[int64]int{}, Downsampled: map[int64]float64{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return c, err
	}
	var raw []string
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if !ok {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if _, err := os.Stat(filepath.Join(path, block.DeletionMarkName)); err == nil {
			continue
		}
		f, err := os.Open(filepath.Join(path, block.MetaName))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, err
		}
		meta, err := block.ReadMeta(f, id)
		if err := errors.Join(err, f.Close()); err != nil {
			return c, err
		}
		c.Bytes += sizeOf(path)
		resolution := meta.Thanos.Downsample.Resolution
		c.Blocks[resolution]++
		if resolution == 0 {
			raw = append(raw, path)
			continue
		}
		if err := c.addDownsampled(path, resolution); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, c.addRaw(ctx, raw)
}

// addRaw adds all samples of raw blocks, replicas united.
func (c *content) addRaw(ctx context.Context, dirs []string) (err error) {
	if len(dirs) > 1000 {
		return nil // the bucket of a case in which nothing is compared
	}
	var queriers []storage.Querier
	for _, dir := range dirs {
		b, e := tsdb.OpenBlock(nil, dir, nil, nil)
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, b.Close()) }()
		q, e := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
		if e != nil {
			return e
		}
		queriers = append(queriers, q)
	}
	q := storage.NewMergeQuerier(queriers, nil, storage.ChainedSeriesMerge)
	defer func() { err = errors.Join(err, q.Close()) }()
	set := q.Select(ctx, true, nil, labels.MustNewMatcher(labels.MatchNotEqual, "__name__", ""))
	var it chunkenc.Iterator
	var key []byte
	for set.Next() {
		c.Series++
		key = set.At().Labels().Bytes(key[:0])
		of := xxhash.Sum64(key)
		it = set.At().Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			c.Samples++
			h := of ^ uint64(it.AtT())*0x9e3779b97f4a7c15
			if kind == chunkenc.ValFloat {
				_, v := it.At()
				h ^= math.Float64bits(v) * 0xc2b2ae3d27d4eb4f
			} else {
				_, v := it.AtFloatHistogram(nil)
				h ^= (math.Float64bits(v.Sum) + math.Float64bits(v.Count)*31) * 0xc2b2ae3d27d4eb4f
			}
			c.Sum += h * (h | 1) // a sum does not depend on the order, and a product tells swapped parts apart
		}
		if it.Err() != nil {
			return it.Err()
		}
	}
	return set.Err()
}

// addDownsampled adds up the counts of all windows of a block.
func (c *content) addDownsampled(dir string, resolution int64) (err error) {
	ir, err := index.NewFileReader(filepath.Join(dir, block.IndexName), index.DecodePostingsRaw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ir.Close()) }()
	cr, err := chunks.NewDirReader(filepath.Join(dir, block.ChunksName), rawPool{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cr.Close()) }()
	name, value := index.AllPostingsKey()
	all, err := ir.Postings(context.Background(), name, value)
	if err != nil {
		return err
	}
	keep := [series.NumAggregates]bool{series.Count: true}
	var metas []chunks.Meta
	var builder labels.ScratchBuilder
	for all.Next() {
		if err := ir.Series(all.At(), &builder, &metas); err != nil {
			return err
		}
		for _, m := range metas {
			chunk, _, err := cr.ChunkOrIterable(m)
			if err != nil {
				return err
			}
			parts, err := series.DecodeAggregates(slices.Clone(chunk.Bytes()), keep)
			if err != nil {
				return err
			}
			counts, err := chunkenc.FromData(parts[series.Count].Encoding, parts[series.Count].Data)
			if err != nil {
				return err
			}
			it := counts.Iterator(nil)
			for it.Next() != chunkenc.ValNone {
				_, n := it.At()
				c.Downsampled[resolution] += n
			}
			if it.Err() != nil {
				return it.Err()
			}
		}
	}
	return all.Err()
}

// rawPool gives chunks of any encoding as bytes.
type rawPool struct{}

func (rawPool) Put(chunkenc.Chunk) error { return nil }

func (rawPool) Get(e chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	return rawChunk{data: b, enc: e}, nil
}

// rawChunk is a chunk of which only bytes and encoding are asked.
type rawChunk struct {
	chunkenc.Chunk
	data []byte
	enc  chunkenc.Encoding
}

func (c rawChunk) Bytes() []byte               { return c.data }
func (c rawChunk) Encoding() chunkenc.Encoding { return c.enc }
