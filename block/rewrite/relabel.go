package rewrite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxRuns is how many runs are kept before they are merged into one.
const maxRuns = 64

// relabelled is a series in memory.
type relabelled struct {
	labels labels.Labels
	chunks []merge.Chunk
}

// relabeller is the merge.Sink that relabels. It writes runs: small blocks in dir, each in order of the new labels.
// Series whose labels stay as they are are in order already, and make the first run.
type relabeller struct {
	ctx    context.Context
	rules  []*relabel.Config
	dir    string
	of     *block.Meta // the block that is rewritten
	memory int64       // bounds the series in memory, in bytes
	log    io.Writer
	stats  *Stats

	symbols merge.Symbols
	builder *labels.Builder
	same    *merge.BlockWriter
	batch   []relabelled
	bytes   int64
	made    int // runs so far, merged ones among them
	series  int64
	runs    []merge.Input
}

// Begin implements merge.Sink.
func (r *relabeller) Begin(symbols merge.Symbols) error {
	r.symbols, r.builder = symbols, labels.NewBuilder(labels.EmptyLabels())
	r.same = r.writer(r.next())
	return r.same.Begin(symbols)
}

// next is the meta of another run.
func (r *relabeller) next() *block.Meta {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{MinTime: r.of.MinTime, MaxTime: r.of.MaxTime, Version: 1}}
	m.Thanos.Downsample = r.of.Thanos.Downsample
	r.made++
	binary.BigEndian.PutUint64(m.ULID[8:], uint64(r.made))
	r.runs = append(r.runs, merge.FromDir(r.path(m.ULID), m))
	return m
}

func (r *relabeller) path(id ulid.ULID) string { return filepath.Join(r.dir, runsFolder, id.String()) }

func (r *relabeller) writer(m *block.Meta) *merge.BlockWriter {
	return merge.NewBlockWriter(r.path(m.ULID), merge.WriterOptions{Memory: r.memory})
}

// Add implements merge.Sink.
func (r *relabeller) Add(s *merge.Series) error {
	r.stats.Read++
	was := labelsOf(r.symbols, s.Symbols)
	r.builder.Reset(was)
	keep := relabel.ProcessBuilder(r.builder, r.rules...)
	now := r.builder.Labels()
	switch {
	case !keep || now.IsEmpty():
		r.stats.Dropped++
		return r.note("Deleted %s []\n", was)
	case labels.Equal(was, now):
		r.series++
		return r.same.Add(s)
	}
	r.stats.Relabelled++
	r.series++
	one := relabelled{now, slices.Clone(s.Chunks)}
	for i := range one.chunks {
		one.chunks[i].Data = slices.Clone(one.chunks[i].Data)
		r.bytes += int64(len(one.chunks[i].Data)) + perChunk
	}
	r.bytes += int64(now.ByteSize()) + perChunk
	r.batch = append(r.batch, one)
	if err := r.note("Relabelled %s %s\n", was, now); err != nil {
		return err
	}
	if r.bytes < r.memory {
		return nil
	}
	return r.flush()
}

// perChunk is about what a chunk, and a series, take in memory beside their bytes.
const perChunk = 64

func (r *relabeller) note(format string, args ...any) error {
	if r.log == nil {
		return nil
	}
	_, err := fmt.Fprintf(r.log, format, args...)
	return errs.Wrap(errs.Internal, err)
}

// End implements merge.Sink.
func (r *relabeller) End() error {
	if err := r.same.End(); err != nil {
		return err
	}
	return r.flush()
}

// close frees what the run of series with their old labels holds.
func (r *relabeller) close() {
	if r.same != nil {
		r.same.Close()
	}
}

// flush writes the series in memory. Those of the same labels go to different runs.
func (r *relabeller) flush() error {
	slices.SortStableFunc(r.batch, func(a, b relabelled) int { return labels.Compare(a.labels, b.labels) })
	left := r.batch
	for len(left) > 0 {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		var again []relabelled
		run := make([]relabelled, 0, len(left))
		for _, one := range left {
			if len(run) > 0 && labels.Equal(run[len(run)-1].labels, one.labels) {
				again = append(again, one)
			} else {
				run = append(run, one)
			}
		}
		if err := r.write(run); err != nil {
			return err
		}
		left = again
	}
	r.batch, r.bytes = nil, 0
	return nil
}

// write writes a run of series, in order and each once.
func (r *relabeller) write(run []relabelled) (err error) {
	all := map[string]uint32{}
	for _, one := range run {
		one.labels.Range(func(l labels.Label) { all[l.Name], all[l.Value] = 0, 0 })
	}
	list := make(stringList, 0, len(all))
	for s := range all {
		list = append(list, s)
	}
	slices.Sort(list)
	for i, s := range list {
		all[s] = uint32(i)
	}
	w := r.writer(r.next())
	defer w.Close()
	if err := w.Begin(list); err != nil {
		return err
	}
	var s merge.Series
	for _, one := range run {
		s.Symbols, s.Chunks = s.Symbols[:0], one.chunks
		one.labels.Range(func(l labels.Label) { s.Symbols = append(s.Symbols, all[l.Name], all[l.Value]) })
		if err := w.Add(&s); err != nil {
			return err
		}
	}
	if err := w.End(); err != nil {
		return err
	}
	if len(r.runs) < maxRuns {
		return nil
	}
	return r.unite()
}

// unite merges all runs but the first, which is being written, into one.
func (r *relabeller) unite() error {
	inputs := slices.Clone(r.runs[1:])
	r.runs = r.runs[:1]
	w := r.writer(r.next())
	defer w.Close()
	if _, err := merge.Run(r.ctx, inputs, w, r.options()); err != nil {
		return united(err)
	}
	for _, in := range inputs {
		if err := os.RemoveAll(r.path(in.Meta.ULID)); err != nil {
			return errs.Wrap(errs.Internal, err)
		}
	}
	return nil
}

func (r *relabeller) options() merge.Options {
	return merge.Options{Scratch: r.dir, Memory: r.memory, MinTime: r.of.MinTime, MaxTime: r.of.MaxTime}
}

// merge hands the relabelled series to sink, in order, and counts those that were united.
func (r *relabeller) merge(sink merge.Sink) error {
	result, err := merge.Run(r.ctx, r.runs, sink, r.options())
	r.stats.United = r.series - result.Series
	return united(err)
}

// united says what it means that downsampled chunks overlap.
func united(err error) error {
	if errors.Is(err, merge.ErrRebuild) {
		return errs.E(errs.Conflict, "series of a downsampled block get the same labels, and windows cannot be united: "+
			"rewrite the raw block, and downsample that")
	}
	return err
}

// stringList is a table of symbols.
type stringList []string

// Len implements merge.Symbols.
func (s stringList) Len() int { return len(s) }

// At implements merge.Symbols.
func (s stringList) At(i uint32) string { return s[i] }
