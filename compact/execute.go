package compact

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/indexheader"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/compact/downsample"
	"github.com/hearth-metrics/hearth/compact/plan"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// execution is a job that runs.
type execution struct {
	*plan.Job
	run     *runningJob
	dir     string               // of its local files
	writers []*merge.BlockWriter // one for each output
	sent    [][]block.File       // of each output: the segments that are in the bucket, and no longer here
	dropped string               // why the job was broken off while it merged
}

// execute does one job:
//
//  1. ask the bucket whether the job is still to be done
//  2. merge the inputs into local blocks. Each finished segment is sent at once and removed, after the bucket was asked
//     again
//  3. send the indexes, ask again, and write meta.json; so for each output, the coarsest first
//  4. find all objects of all outputs in the bucket, with their sizes
//  5. mark the inputs that the outputs replace
//
// dropped says why the job was not to be done any more. A job that was broken off at any point is done again, with the
// same bytes: outputs that are there already are compared and not sent.
func (c *Compactor) execute(ctx context.Context, j *plan.Job, run *runningJob) (dropped string, err error) {
	e := &execution{Job: j, run: run, dir: filepath.Join(c.jobsDir(), idOf(j).String())}
	if dropped, err = c.stale(ctx, j); dropped != "" || err != nil {
		return dropped, err
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(e.dir, 0o777); err != nil {
		return "", err
	}
	defer os.RemoveAll(e.dir)
	if j.Kind == plan.Erase {
		return c.erase(ctx, j, run, e.dir)
	}
	c.step(run, "merging")
	if err := c.merge(ctx, e); e.dropped != "" || err != nil {
		if e.dropped != "" { // err says the same
			err = nil
		}
		return e.dropped, err
	}
	c.step(run, "sending")
	made, dropped, err := c.send(ctx, e)
	if dropped != "" || err != nil {
		return dropped, err
	}
	c.step(run, "marking")
	return "", c.finish(ctx, e, made)
}

// staleRequests is how many requests of stale are under way at a time: a job may have hundreds of inputs.
const staleRequests = 16

// stale says why a job is not to be done any more, "" if it is: an input is gone or marked, or an output is marked or
// was deleted before. It asks the bucket itself, since the view may be old.
func (c *Compactor) stale(ctx context.Context, j *plan.Job) (why string, err error) {
	type question struct {
		object string
		there  bool // what is expected
		id     ulid.ULID
		why    string // what is wrong with id otherwise
	}
	var all []question
	for _, m := range j.Inputs {
		all = append(all, question{block.Object(m.ULID, block.MetaName), true, m.ULID, "input %s is gone"},
			question{block.Object(m.ULID, block.DeletionMarkName), false, m.ULID, "input %s is marked for deletion"})
	}
	for _, o := range j.Outputs {
		all = append(all, question{block.Object(o.ID, block.DeletionMarkName), false, o.ID,
			"output %s is marked for deletion"},
			question{doneName(o.ID), false, o.ID, "output %s was made and deleted before"})
	}
	wrong := make([]bool, len(all))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(staleRequests)
	for i, q := range all {
		g.Go(func() error {
			return guarded(func() error {
				there, err := c.bkt.Exists(gctx, q.object)
				if err != nil {
					return errs.E(errs.Unavailable, "look for %s: %w", q.object, err)
				}
				wrong[i] = there != q.there
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	if i := slices.Index(wrong, true); i >= 0 {
		return fmt.Sprintf(all[i].why, all[i].id), nil
	}
	return "", nil
}

// merge merges the inputs of a job into local blocks.
func (c *Compactor) merge(ctx context.Context, e *execution) error {
	memory := c.opts.Jobs.Memory / 2
	e.sent = make([][]block.File, len(e.Outputs))
	for i, o := range e.Outputs {
		w := merge.NewBlockWriter(filepath.Join(e.dir, o.ID.String()), merge.WriterOptions{
			SegmentSize: c.segmentSize, Memory: max(memory/int64(len(e.Outputs)), minWriter),
			Segment: func(rel string, _ int64) error { return c.sendSegment(ctx, e, i, rel) }})
		defer w.Close()
		e.writers = append(e.writers, w)
	}
	counting := &countingBucket{c.bkt, &e.run.read}
	inputs := make([]merge.Input, len(e.Inputs))
	for i, m := range e.Inputs {
		inputs[i] = merge.FromBucket(counting, m)
	}
	_, err := merge.Run(ctx, inputs, e.sink(), merge.Options{Scratch: e.dir, Memory: memory, ReplicaLabels: e.Dedup})
	return err
}

// sendSegment puts a finished segment of an output into the bucket, while the system still has it in memory, and
// removes it here. So the disk has to hold one segment of an output, and not all of them.
func (c *Compactor) sendSegment(ctx context.Context, e *execution, output int, rel string) (err error) {
	if e.dropped, err = c.stale(ctx, e.Job); err != nil {
		return err
	}
	if e.dropped != "" {
		return errs.E(errs.Conflict, "the job was dropped: %s", e.dropped)
	}
	dir := filepath.Join(e.dir, e.Outputs[output].ID.String())
	f, err := block.UploadFile(ctx, c.bkt, dir, rel, c.opts.Jobs.Hash)
	if err != nil {
		return err
	}
	e.sent[output] = append(e.sent[output], f)
	return os.Remove(filepath.Join(dir, filepath.FromSlash(rel)))
}

// minWriter is what the writer of one output may use at least, in bytes.
const minWriter = 1 << 20

// sink is what takes the merged series: the writers of the finest resolution, and stages that make the coarser ones. An
// hour is always made of five minutes, so that its bytes do not depend on which other outputs the job has.
func (e *execution) sink() merge.Sink {
	var stage *downsample.Stage // makes the resolutions that were looked at
	for _, r := range []int64{plan.OneHour, plan.FiveMin} {
		if r == e.Resolution {
			break
		}
		w := e.writersOf(r)
		switch {
		case w != nil && stage != nil:
			stage = downsample.NewWith(r, w, stage)
		case w != nil:
			stage = downsample.New(r, w)
		case stage != nil:
			stage = downsample.New(r, stage)
		}
	}
	w := e.writersOf(e.Resolution)
	switch {
	case stage == nil:
		return w
	case w == nil:
		return stage
	}
	return merge.Tee(w, stage)
}

// writersOf is what takes the series of all outputs of a resolution, nil if there are none.
func (e *execution) writersOf(resolution int64) merge.Sink {
	parts := make([]merge.Sink, e.Parts)
	any := false
	for i := range parts {
		parts[i] = misplaced{}
	}
	for i, o := range e.Outputs {
		if o.Resolution == resolution {
			parts[o.Part.Shard], any = e.writers[i], true
		}
	}
	switch {
	case !any:
		return nil
	case len(parts) == 1:
		return parts[0]
	}
	return merge.Split(parts...)
}

// misplaced takes the series of parts that the inputs of a job do not have.
type misplaced struct{}

// Begin implements merge.Sink.
func (misplaced) Begin(merge.Symbols) error { return nil }

// Add fails: an input has a series that belongs to another part.
func (misplaced) Add(*merge.Series) error {
	return errs.E(errs.Invalid, "an input that is a part of a split block has series of another part")
}

// End implements merge.Sink.
func (misplaced) End() error { return nil }

// send puts what is left of the outputs into the bucket, and returns the meta of each that has series.
func (c *Compactor) send(ctx context.Context, e *execution) (made []*block.Meta, dropped string, err error) {
	for i, o := range e.Outputs {
		written := e.writers[i].Written()
		if written.Stats.NumSeries == 0 {
			continue
		}
		meta := e.Meta(o, e.empty(o.Resolution))
		meta.Stats, meta.Thanos.IndexStats = written.Stats, written.IndexStats
		dir := filepath.Join(e.dir, o.ID.String())
		header, err := indexheader.Shipped(dir)
		if err != nil {
			return nil, "", errs.Wrap(errs.Internal, err) // it is our own index
		}
		err = block.UploadWith(ctx, c.bkt, dir, *meta, block.UploadOptions{
			Hash: c.opts.Jobs.Hash, Concurrency: c.opts.Jobs.BlockFiles, Extra: []block.ExtraFile{header}, Sent: e.sent[i],
			BeforeMeta: func(ctx context.Context) error {
				if dropped, err = c.stale(ctx, e.Job); dropped != "" {
					err = errs.E(errs.Conflict, "%s", dropped)
				}
				return err
			},
		})
		if dropped != "" { // err says the same
			return nil, dropped, nil
		}
		if err != nil {
			return nil, "", err
		}
		made = append(made, meta)
		if err := os.RemoveAll(dir); err != nil {
			return nil, "", err
		}
	}
	return made, "", nil
}

// empty are the parts of a resolution that have no series, sorted; nil if all have some.
func (e *execution) empty(resolution int64) (parts []int) {
	for i, o := range e.Outputs {
		if o.Resolution == resolution && e.writers[i].Written().Stats.NumSeries == 0 {
			parts = append(parts, o.Part.Shard)
		}
	}
	slices.Sort(parts)
	return parts
}

// nothing keeps that a block has no samples that can be downsampled, such as one of stale markers only: the job is not
// done again for twice the delete delay.
func (c *Compactor) nothing(ctx context.Context, e *execution) error {
	for _, o := range e.Outputs {
		if err := c.doneRecord(ctx, o.ID); err != nil {
			return err
		}
	}
	return nil
}

// finish finds the outputs in the bucket and marks the inputs that they replace. Without an output only inputs that
// have no samples are marked.
func (c *Compactor) finish(ctx context.Context, e *execution, made []*block.Meta) error {
	all := slices.Clone(e.Inputs)
	for _, m := range made {
		there, err := block.FetchMeta(ctx, c.bkt, m.ULID)
		if errs.KindOf(err) == errs.NotFound {
			return errs.E(errs.Unavailable, "block %s was written and is not in the bucket: %w", m.ULID, err)
		}
		if err == nil {
			err = c.verify(ctx, there)
		}
		if err != nil {
			return err
		}
		all = append(all, there)
		c.metrics.bytesOut.Add(float64(there.Bytes()))
		c.log.Info("made a block", "block", m.ULID.String(), "kind", string(e.Kind), "stream", e.run.Stream,
			"resolution", m.Thanos.Downsample.Resolution, "min_time", m.MinTime, "max_time", m.MaxTime,
			"series", m.Stats.NumSeries, "inputs", len(e.Inputs), "bytes", there.Bytes())
	}
	c.metrics.bytesIn.Add(float64(e.run.Bytes))
	if len(made) == 0 && e.Kind == plan.Downsample {
		return c.nothing(ctx, e)
	}
	if errs.KindOf(c.mayAct(ctx)) == errs.Conflict {
		return nil // the inputs are marked as replaced ones once the compactor no longer rests
	}
	replaced := block.Replaced(all)
	var ids []ulid.ULID
	left := uint64(0)
	for _, m := range e.Inputs {
		if _, ok := replaced[m.ULID]; ok || len(made) == 0 && m.Stats.NumSamples == 0 {
			ids = append(ids, m.ULID)
		} else {
			left += m.Stats.NumSamples
		}
	}
	if len(made) == 0 && left > 0 {
		return errs.E(errs.Internal, "BUG: nothing was made of blocks of %d samples", left)
	}
	return c.each(context.WithoutCancel(ctx), ids, func(ctx context.Context, id ulid.ULID) error {
		return c.mark(ctx, id, becauseCompacted, becauseCompacted)
	})
}

// countingBucket counts the bytes that are read.
type countingBucket struct {
	objstore.BucketReader
	read *atomic.Int64
}

// Get implements objstore.BucketReader.
func (b *countingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.count(b.BucketReader.Get(ctx, name))
}

// GetRange implements objstore.BucketReader.
func (b *countingBucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return b.count(b.BucketReader.GetRange(ctx, name, off, length))
}

func (b *countingBucket) count(r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return &countingReader{r, b.read}, nil
}

type countingReader struct {
	io.ReadCloser
	read *atomic.Int64
}

// Read implements io.Reader.
func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.read.Add(int64(n))
	return n, err
}
