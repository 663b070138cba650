package block

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// SeriesAlign is the unit of series references, in bytes: a reference is the offset of the series' entry in the index
// divided by it.
const SeriesAlign = 16

// Castagnoli is the polynomial of all checksums of a block. It must not be changed.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Bytes is an index, or a part of one, in memory: the form in which Prometheus's decoders take it.
type Bytes []byte

// Len implements index.ByteSlice.
func (b Bytes) Len() int { return len(b) }

// Range implements index.ByteSlice. The result shares its memory with b.
func (b Bytes) Range(start, end int) []byte { return b[start:end] }

// Measured is what is known of a local block after its whole index was read.
type Measured struct {
	IndexStats
	lastChunk map[int]int // offset of the last chunk in each file of chunks, which are numbered from 0
}

// Measure reads the whole index of the block in dir to find how much a reader must fetch for one whole series entry or
// chunk. A size is seen as the distance to the next one, so the last of each file does not count. Errors are of kind
// Invalid.
func Measure(ctx context.Context, dir string) (m *Measured, err error) {
	defer func() {
		if p := recover(); p != nil { // the checksums of the index are right, and what they protect is not
			m, err = nil, errs.E(errs.Invalid, "index of block %s: panic: %v", dir, p)
		}
	}()
	r, err := index.NewFileReader(filepath.Join(dir, IndexName), index.DecodePostingsRaw)
	if err != nil {
		return nil, errs.E(errs.Invalid, "index of block %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	m = &Measured{lastChunk: map[int]int{}}
	if err := m.read(ctx, r); err != nil {
		return nil, errs.E(errs.Invalid, "index of block %s: %w", dir, err)
	}
	return m, nil
}

// read measures all series of an index.
func (m *Measured) read(ctx context.Context, r *index.Reader) error {
	k, v := index.AllPostingsKey()
	all, err := r.Postings(ctx, k, v)
	if err != nil {
		return err
	}
	var builder labels.ScratchBuilder
	var metas []chunks.Meta
	var lastSeries storage.SeriesRef
	var lastChunk chunks.BlockChunkRef
	for all.Next() {
		ref := all.At()
		if lastSeries != 0 {
			m.SeriesMaxSize = max(m.SeriesMaxSize, int64(ref-lastSeries)*SeriesAlign)
		}
		lastSeries = ref
		if err := r.Series(ref, &builder, &metas); err != nil {
			return err
		}
		for _, c := range metas {
			ref := chunks.BlockChunkRef(c.Ref)
			file, offset := ref.Unpack()
			m.lastChunk[file] = max(m.lastChunk[file], offset)
			if lastFile, lastOffset := lastChunk.Unpack(); file == lastFile && lastOffset > 0 {
				m.ChunkMaxSize = max(m.ChunkMaxSize, int64(offset-lastOffset))
			}
			lastChunk = ref
		}
	}
	return all.Err()
}

// Complete is nil when the chunks that the index names are in dir, the block's directory. Without this check a block
// that lost chunks would count as a whole one in the bucket. Errors are of kind Invalid.
func (m *Measured) Complete(dir string) error {
	for file, offset := range m.lastChunk {
		path := filepath.Join(dir, filepath.FromSlash(SegmentPath(file)))
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return errs.E(errs.Invalid, "block %s: %w", dir, err)
		case info.Size() <= int64(offset):
			return errs.E(errs.Invalid, "block %s: %s has %d bytes, and a chunk begins at %d", dir, path, info.Size(), offset)
		}
	}
	return nil
}

// SegmentPath is the path inside a block of a file of chunks. Chunk references number them from 0, names from 1.
func SegmentPath(file int) string { return fmt.Sprintf("%s/%06d", ChunksName, file+1) }
