package rewrite

import (
	"context"
	"crypto/sha256"
	"maps"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/indexheader"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// repairVersion changes the ids of repaired blocks. It must be raised when the same blocks make other bytes.
const repairVersion = "hearth repair 1\n"

// RepairID is the id of the block that a repair of blocks makes.
func RepairID(metas []*block.Meta) (id ulid.ULID) {
	text, newest := []byte(repairVersion), uint64(0)
	for _, old := range idsOf(metas) {
		text = append(text, old[:]...)
		newest = max(newest, old.Time())
	}
	sum := sha256.Sum256(text)
	_ = id.SetTime(newest) // it is the time of an id
	copy(id[6:], sum[:])
	return id
}

func idsOf(metas []*block.Meta) (ids []ulid.ULID) {
	for _, m := range metas {
		ids = append(ids, m.ULID)
	}
	slices.SortFunc(ids, ulid.ULID.Compare)
	return ids
}

// Repairable is nil if a repair of blocks can read all that they have. It reads them, and changes nothing. Errors are
// those of Repair.
func Repairable(ctx context.Context, bkt objstore.BucketReader, metas []*block.Meta, opts Options) error {
	if err := alike(metas); err != nil {
		return err
	}
	j := job{ctx, metas[0], &Config{}, opts.withDefaults(), filepath.Join(opts.Dir, RepairID(metas).String())}
	defer j.clean()
	if err := j.begin(); err != nil {
		return err
	}
	return j.unite(bkt, metas, nothing{})
}

// Repair writes blocks of one stream anew, as one block, and uploads that once Options.Check found it right. What a
// compactor puts right while it merges is right in it: samples outside of the time of their block are left out, what
// several blocks have in common is there once, and the index and the numbers in meta.json are new ones. The new block
// replaces the old ones for readers of Hearth; to mark these is the caller's. Errors:
//
//   - Conflict: the blocks are not of one stream, resolution and part; several of them are downsampled; nothing is
//     left; or one was marked for deletion or removed meanwhile.
//   - Invalid, NotFound: a block has a fault that nothing can put right, such as a wrong checksum of a chunk.
//   - Unavailable: the bucket does not answer, or ctx ended. Internal: faults of the local disk.
func Repair(ctx context.Context, bkt objstore.Bucket, metas []*block.Meta, opts Options) (*block.Meta, error) {
	if err := alike(metas); err != nil {
		return nil, err
	}
	id := RepairID(metas)
	j := job{ctx, metas[0], &Config{}, opts.withDefaults(), filepath.Join(opts.Dir, id.String())}
	defer j.clean()
	if err := j.begin(); err != nil {
		return nil, err
	}
	dir := filepath.Join(j.dir, blockFolder, id.String())
	w := merge.NewBlockWriter(dir, merge.WriterOptions{Memory: j.opts.Memory / shares})
	defer w.Close()
	if err := j.unite(bkt, metas, w); err != nil {
		return nil, err
	}
	written := w.Written()
	if written.Stats.NumSeries == 0 {
		return nil, errs.E(errs.Conflict, "no sample of the block is within its time: nothing is left to be repaired")
	}
	made := repairedMeta(metas, id)
	made.Stats, made.Thanos.IndexStats = written.Stats, written.IndexStats
	header, err := indexheader.Shipped(dir)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	return made, block.UploadWith(ctx, bkt, dir, *made, block.UploadOptions{
		Hash: opts.Hash, Extra: []block.ExtraFile{header},
		BeforeMeta: func(ctx context.Context) error {
			for _, m := range metas {
				if err := still(ctx, bkt, m); err != nil {
					return err
				}
			}
			return opts.Check(ctx, made)
		},
	})
}

// alike is nil if blocks may become one.
func alike(metas []*block.Meta) error {
	first := metas[0]
	for _, m := range metas[1:] {
		switch {
		case !maps.Equal(m.Thanos.Labels, first.Thanos.Labels) || m.Thanos.Downsample != first.Thanos.Downsample ||
			m.Part() != first.Part():
			return errs.E(errs.Conflict, "blocks %s and %s are not of one stream, resolution and part", first.ULID, m.ULID)
		case m.Thanos.Downsample.Resolution > 0:
			return errs.E(errs.Conflict, "blocks %s and %s are downsampled: windows cannot be united, so one of them has to go",
				first.ULID, m.ULID)
		}
	}
	return nil
}

// unite hands what blocks have to sink.
func (j *job) unite(bkt objstore.BucketReader, metas []*block.Meta, sink merge.Sink) error {
	var inputs []merge.Input
	for _, m := range metas {
		inputs = append(inputs, merge.FromBucket(bkt, m))
	}
	_, err := merge.Run(j.ctx, inputs, sink, merge.Options{Scratch: j.dir, Memory: j.opts.Memory / shares})
	return err
}

// repairedMeta is the meta.json of block id, which a repair of metas made, without what is only known when it was
// written. As after a rewrite, it has the sources of all of them and itself, so it replaces them.
func repairedMeta(metas []*block.Meta, id ulid.ULID) *block.Meta {
	first := metas[0]
	out := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: first.MinTime, MaxTime: first.MaxTime, Version: 1}}
	out.Thanos = block.Thanos{Version: 1, Labels: first.Thanos.Labels, Downsample: first.Thanos.Downsample,
		Source: block.SourceRepair, Rewrites: first.Thanos.Rewrites}
	origin := block.Origin{ID: id, Of: 1, Replaces: idsOf(metas)}
	if first.Origin != nil {
		origin.Shard, origin.Of, origin.Empty = first.Origin.Shard, first.Origin.Of, first.Origin.Empty
	}
	origin.Sources = []ulid.ULID{id}
	for _, m := range metas {
		out.MinTime, out.MaxTime = min(out.MinTime, m.MinTime), max(out.MaxTime, m.MaxTime)
		out.Compaction.Level = max(out.Compaction.Level, m.Compaction.Level)
		out.Compaction.Parents = append(out.Compaction.Parents,
			tsdb.BlockDesc{ULID: m.ULID, MinTime: m.MinTime, MaxTime: m.MaxTime})
		origin.Sources = append(origin.Sources, m.Sources()...)
		if m.Origin != nil {
			origin.Removed = append(origin.Removed, m.Origin.Removed...)
			origin.Producers = append(origin.Producers, m.Origin.Producers...)
		}
	}
	out.Compaction.Sources = []ulid.ULID{id}
	origin.Sources = block.InOrder(origin.Sources)
	for _, names := range []*[]string{&origin.Removed, &origin.Producers} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	out.Origin = &origin
	return out
}
