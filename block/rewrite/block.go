package rewrite

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/indexheader"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Options adjust a rewrite.
type Options struct {
	// Dir is a directory for the new block and scratch files. Only what the rewrite made there is removed.
	Dir string
	// Memory bounds what is kept in memory in bytes, beside one series; 0 = DefaultMemory.
	Memory int64
	// Hash puts the SHA-256 of each file into meta.json.
	Hash bool
	// Apart refuses a relabelling that gives several series the same labels, with an error of kind Conflict.
	Apart bool
	// Check reads a repaired block, whose objects are there, before its meta.json is written. Repair needs it.
	Check func(context.Context, *block.Meta) error
	// Log, if set, gets a line for each series that changes.
	Log io.Writer
}

// DefaultMemory is the memory of a rewrite if nothing else is said, in bytes.
const DefaultMemory = 192 << 20

// formatVersion changes the ids of new blocks. It must be raised when the same configuration makes other bytes.
const formatVersion = "hearth rewrite 1\n"

// NewID is the id of the block that a rewrite of m makes. Errors: Invalid.
func NewID(m *block.Meta, cfg *Config) (id ulid.ULID, err error) {
	hash, err := cfg.Hash()
	if err != nil {
		return id, err
	}
	sum := sha256.Sum256([]byte(formatVersion + m.ULID.String() + hash))
	if err := id.SetTime(m.ULID.Time()); err != nil {
		return id, errs.Wrap(errs.Invalid, err)
	}
	copy(id[6:], sum[:])
	return id, nil
}

// Preview counts what a rewrite of m would do. It changes nothing in the bucket. Errors are those of Block.
func Preview(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, cfg *Config, opts Options) (Stats, error) {
	id, err := NewID(m, cfg)
	if err != nil {
		return Stats{}, err
	}
	j := job{ctx, m, cfg, opts.withDefaults(), filepath.Join(opts.Dir, id.String())}
	defer j.clean()
	if err := j.begin(); err != nil {
		return Stats{}, err
	}
	return j.run(merge.FromBucket(bkt, m), nothing{})
}

// Block rewrites the block m and uploads the new one. It is nil if no sample is left or nothing changes (see Stats).
// Readers of Hearth take the old block for replaced once the new one is there; others need it marked for deletion,
// which is the caller's. Errors:
//
//   - Conflict: series got the same labels and were to stay apart or are downsampled, relabelling m would make it
//     something else than its part of a split block, or m was marked for deletion or removed meanwhile.
//   - Invalid, NotFound: m is damaged.
//   - Unavailable: the bucket does not answer, or ctx ended. Internal: faults of the local disk.
func Block(ctx context.Context, bkt objstore.Bucket, m *block.Meta, cfg *Config,
	opts Options) (made *block.Meta, stats Stats, err error) {
	id, err := NewID(m, cfg)
	if err != nil {
		return nil, stats, err
	}
	j := job{ctx, m, cfg, opts.withDefaults(), filepath.Join(opts.Dir, id.String())}
	defer j.clean()
	if err := j.begin(); err != nil {
		return nil, stats, err
	}
	dir := filepath.Join(j.dir, blockFolder, id.String())
	w := merge.NewBlockWriter(dir, merge.WriterOptions{Memory: j.opts.Memory / shares})
	defer w.Close()
	if stats, err = j.run(merge.FromBucket(bkt, m), w); err != nil {
		return nil, stats, err
	}
	written := w.Written()
	if !stats.Changed() || written.Stats.NumSeries == 0 {
		return nil, stats, nil
	}
	made, err = metaOf(m, id, cfg)
	if err != nil {
		return nil, stats, err
	}
	made.Stats, made.Thanos.IndexStats = written.Stats, written.IndexStats
	header, err := indexheader.Shipped(dir)
	if err != nil {
		return nil, stats, errs.Wrap(errs.Internal, err)
	}
	err = block.UploadWith(ctx, bkt, dir, *made, block.UploadOptions{
		Hash: opts.Hash, Extra: []block.ExtraFile{header},
		BeforeMeta: func(ctx context.Context) error { return still(ctx, bkt, m) },
	})
	return made, stats, err
}

// still is nil if m is there and not marked for deletion.
func still(ctx context.Context, bkt objstore.BucketReader, m *block.Meta) error {
	switch _, err := block.ReadDeletionMark(ctx, bkt, m.ULID); {
	case err == nil:
		return errs.E(errs.Conflict, "block %s was marked for deletion while it was rewritten", m.ULID)
	case errs.KindOf(err) != errs.NotFound:
		return err
	}
	err := m.Look(ctx, bkt)
	if errs.KindOf(err) == errs.NotFound {
		return errs.E(errs.Conflict, "block %s was removed while it was rewritten", m.ULID)
	}
	return err
}

func (o Options) withDefaults() Options {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	return o
}

// job is one rewrite.
type job struct {
	ctx  context.Context
	meta *block.Meta
	cfg  *Config
	opts Options
	dir  string // of its files
}

// The folders in the directory of a job.
const (
	blockFolder = "block"
	runsFolder  = "runs"
)

// shares is into how many parts the memory is divided: series that are sorted, merging and writing.
const shares = 3

// begin makes the directory of the job, without what an earlier one left.
func (j *job) begin() error {
	if len(j.cfg.Relabels) > 0 && j.meta.Part().Of > 1 {
		return errs.E(errs.Conflict, "block %s is part %d of %d of a split block, which has the series with certain hashes "+
			"of their labels: it cannot be relabelled alone", j.meta.ULID, j.meta.Part().Shard, j.meta.Part().Of)
	}
	j.clean()
	return errs.Wrap(errs.Internal, os.MkdirAll(j.dir, 0o777))
}

// clean removes what the job made.
func (j *job) clean() {
	for _, folder := range []string{blockFolder, runsFolder} {
		_ = os.RemoveAll(filepath.Join(j.dir, folder))
	}
	_ = os.Remove(j.dir) // it stays if somebody put something into it
}

// run hands what is left of the input to sink.
func (j *job) run(in merge.Input, sink merge.Sink) (stats Stats, err error) {
	memory := j.opts.Memory / shares
	left := &deletion{next: sink, deletions: j.cfg.Deletions, resolution: j.meta.Thanos.Downsample.Resolution,
		log: j.opts.Log, stats: &stats}
	opts := merge.Options{Scratch: j.dir, Memory: memory}
	if len(j.cfg.Relabels) == 0 {
		result, err := merge.Run(j.ctx, []merge.Input{in}, left, opts)
		stats.Read = result.Series
		return stats, err
	}
	r := &relabeller{ctx: j.ctx, rules: j.cfg.Relabels, dir: j.dir, of: j.meta, memory: memory, log: j.opts.Log,
		stats: &stats}
	defer r.close()
	if _, err := merge.Run(j.ctx, []merge.Input{in}, r, opts); err != nil {
		return stats, united(err)
	}
	if err := r.merge(left); err != nil {
		return stats, err
	}
	if j.opts.Apart && stats.United > 0 {
		return stats, errs.E(errs.Conflict, "%d series get labels that another series has", stats.United)
	}
	return stats, nil
}

// nothing is a merge.Sink that takes series and keeps none.
type nothing struct{}

// Begin implements merge.Sink.
func (nothing) Begin(merge.Symbols) error { return nil }

// Add implements merge.Sink.
func (nothing) Add(*merge.Series) error { return nil }

// End implements merge.Sink.
func (nothing) End() error { return nil }

// metaOf is the meta.json of block id, which a rewrite of m made, without what is only known when it was written. It
// has the sources of m and itself: so it replaces m and all that m replaces, and a block that was downsampled from m
// does not count as made of it.
func metaOf(m *block.Meta, id ulid.ULID, cfg *Config) (*block.Meta, error) {
	out := *m
	out.ULID = id
	out.Compaction.Sources = []ulid.ULID{id}
	out.Compaction.Parents = []tsdb.BlockDesc{{ULID: m.ULID, MinTime: m.MinTime, MaxTime: m.MaxTime}}
	t := &out.Thanos
	t.Source, t.UploadTime = block.SourceRewrite, time.Time{}
	var all []json.RawMessage
	if len(t.Rewrites) > 0 {
		if err := json.Unmarshal(t.Rewrites, &all); err != nil {
			return nil, errs.E(errs.Invalid, "meta.json of block %s: rewrites: %w", m.ULID, err)
		}
	}
	entry, err := json.Marshal(struct {
		Sources []ulid.ULID `json:"sources,omitempty"`
		Config
	}{m.Compaction.Sources, *cfg})
	if err == nil {
		t.Rewrites, err = json.Marshal(append(all, entry))
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "rewrites of block %s: %w", id, err)
	}
	origin := block.Origin{Of: 1}
	if m.Origin != nil {
		origin = *m.Origin
	}
	origin.ID, origin.Replaces = id, []ulid.ULID{m.ULID}
	origin.Sources = append(slices.Clone(m.Sources()), id)
	slices.SortFunc(origin.Sources, ulid.ULID.Compare)
	origin.Sources = slices.Compact(origin.Sources)
	out.Origin = &origin
	return &out, nil
}
