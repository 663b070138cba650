package replicate

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Options say what is copied, and how.
type Options struct {
	// Filters choose the blocks, in both buckets.
	Filters []block.Filter
	// SkipMarked leaves out blocks that are marked for deletion and that the target lacks.
	SkipMarked bool
	// Concurrency is how many objects are copied at once, over all blocks; 0 = 1.
	Concurrency int
	// Progress, if set, is called after each block, by several goroutines.
	Progress func(done, of int)
}

// The results of a block.
const (
	Copied   = "copied"   // the target lacked it
	Repaired = "repaired" // the target had it, and not whole
	Whole    = "whole"    // nothing was to be done
	Gone     = "gone"     // the source lost it meanwhile
	Refused  = "refused"  // the target deletes it
	Failed   = "failed"
)

// Outcome is what a pass did with a block.
type Outcome struct {
	Block  ulid.ULID `json:"block"`
	Result string    `json:"result"`
	// Objects and Bytes are what was sent for it. Bytes are of files only.
	Objects int   `json:"objects,omitempty"`
	Bytes   int64 `json:"bytes,omitempty"`
	// Why says more of a block that was not copied.
	Why string `json:"why,omitempty"`

	err error
}

func (o Outcome) failed() bool { return o.Result == Failed || o.Result == Refused }

// Report is what a pass did, and what both buckets have after it.
type Report struct {
	// Blocks are those that were not whole, oldest first.
	Blocks []Outcome `json:"-"`
	// Source is how many blocks were to be copied and are still in the source, Target how many of these the target has.
	Source int `json:"source"`
	Target int `json:"target"`
	// Copied, Repaired and Whole count blocks; Objects and Bytes are what was sent.
	Copied   int   `json:"copied"`
	Repaired int   `json:"repaired"`
	Whole    int   `json:"whole"`
	Objects  int   `json:"objects"`
	Bytes    int64 `json:"bytes"`
	// Missing are blocks that the target lacks, Extra those that only the target has and that are not marked for deletion
	// there, and Marks the marks that only one of both has.
	Missing []ulid.ULID      `json:"missing,omitempty"`
	Extra   []ulid.ULID      `json:"extra,omitempty"`
	Marks   []MarkDifference `json:"marks,omitempty"`
	// Equal says that there is no difference, and that every block was copied or was whole.
	Equal bool `json:"equal"`
}

// Err is nil if both buckets are equal. Else it is of kind Unavailable if something could not be read or written, and
// Conflict if not.
func (r Report) Err() error {
	if r.Equal {
		return nil
	}
	kind, failed := errs.Conflict, 0
	for _, o := range r.Blocks {
		if o.failed() {
			failed++
		}
		if o.Result == Failed && errs.KindOf(o.err) != errs.Invalid {
			kind = errs.Unavailable
		}
	}
	return errs.E(kind, "source and target are not equal: %d blocks could not be copied, %d are missing, %d are only in "+
		"the target, %d marks differ", failed, len(r.Missing), len(r.Extra), len(r.Marks))
}

// Replicator copies blocks in passes. It remembers which blocks it has found whole, and does not look at them again.
type Replicator struct {
	log                  *slog.Logger
	source, target       objstore.Bucket
	sourceView, destView *block.Fetcher
	opts                 Options
	metrics              *Metrics
	whole                map[ulid.ULID]bool
}

// New makes a Replicator. It does no I/O.
func New(log *slog.Logger, source, target objstore.Bucket, m *Metrics, opts Options) *Replicator {
	opts.Concurrency = max(opts.Concurrency, 1)
	fetch := block.FetcherOptions{Concurrency: opts.Concurrency}
	return &Replicator{log: log, source: source, target: target, opts: opts, metrics: m, whole: map[ulid.ULID]bool{},
		sourceView: block.NewFetcher(source, fetch), destView: block.NewFetcher(target, fetch)}
}

// Run makes one pass:
//
//  1. list both buckets
//  2. copy each block and its marks, as copier.run says. One that fails does not keep the others from being copied
//  3. list both again, and compare
//
// The error is Report.Err, or Unavailable if a bucket could not be listed.
func (r *Replicator) Run(ctx context.Context) (Report, error) {
	start := time.Now()
	report, err := r.pass(ctx)
	if err == nil {
		err = report.Err()
	}
	r.metrics.ran(time.Since(start), err)
	return report, err
}

func (r *Replicator) pass(ctx context.Context) (report Report, err error) {
	var s seen
	if s.before, err = r.fetch(ctx, r.sourceView, "source"); err != nil {
		return Report{}, err
	}
	if s.target, err = r.fetch(ctx, r.destView, "target"); err != nil {
		return Report{}, err
	}
	if s.label, err = tenantLabel(ctx, r.target, s.target); err != nil {
		return Report{}, err
	}
	wanted := r.wanted(s)
	outcomes := r.copyAll(ctx, s, wanted)
	if s.after, err = r.fetch(ctx, r.sourceView, "source"); err != nil {
		return Report{}, err
	}
	if s.target, err = r.fetch(ctx, r.destView, "target"); err != nil {
		return Report{}, err
	}
	for _, o := range outcomes {
		r.count(&report, o)
	}
	s.compare(&report, wanted, r.opts.Filters)
	return report, nil
}

// tenantLabel is the label that names a block's tenant in the target, if operators have asked there to delete tenants.
func tenantLabel(ctx context.Context, bkt objstore.BucketReader, v block.View) (string, error) {
	if len(v.Requests.Entries()) == 0 {
		return "", nil
	}
	of, err := block.ReadIdentity(ctx, bkt)
	return of.TenantLabel, err
}

// wanted are the blocks that the target is to have.
func (r *Replicator) wanted(s seen) (all []*block.Meta) {
	for _, m := range s.before.Select(r.opts.Filters...) {
		_, marked := s.before.Deletions[m.ULID]
		if !marked || !r.opts.SkipMarked || s.target.Metas[m.ULID] != nil {
			all = append(all, m)
		}
	}
	return all
}

// copyAll copies blocks side by side. Each one waits for the ones before it before it becomes visible.
func (r *Replicator) copyAll(ctx context.Context, s seen, wanted []*block.Meta) []Outcome {
	outcomes := make([]Outcome, len(wanted))
	slots := make(chan struct{}, r.opts.Concurrency)
	turn := make(chan struct{})
	close(turn)
	var blocks errgroup.Group
	blocks.SetLimit(r.opts.Concurrency)
	var done atomic.Int64
	for i, m := range wanted {
		before, mine := turn, make(chan struct{})
		turn = mine
		blocks.Go(func() error {
			defer close(mine)
			c := copier{Replicator: r, meta: m, taken: s.target.TakenBy(m, s.label, time.Now()),
				marks: marksOf(s.before, m.ULID), there: marksOf(s.target, m.ULID), slots: slots,
				turn: before, seen: r.whole[m.ULID] && s.target.Metas[m.ULID] != nil}
			outcomes[i] = c.run(ctx)
			<-before
			n := int(done.Add(1))
			if r.opts.Progress != nil {
				r.opts.Progress(n, len(wanted))
			}
			return nil
		})
	}
	_ = blocks.Wait()
	return outcomes
}

// count adds the outcome of a block to a report.
func (r *Replicator) count(report *Report, o Outcome) {
	report.Objects += o.Objects
	report.Bytes += o.Bytes
	r.whole[o.Block] = !o.failed() && o.Result != Gone
	switch o.Result {
	case Whole:
		report.Whole++
		r.metrics.already.Inc()
		if o.Objects == 0 {
			return
		}
	case Copied:
		report.Copied++
		r.metrics.blocks.Inc()
	case Repaired:
		report.Repaired++
		r.metrics.blocks.Inc()
	}
	report.Blocks = append(report.Blocks, o)
}

// fetch is a view in which nothing is missing that could not be read.
func (r *Replicator) fetch(ctx context.Context, f *block.Fetcher, of string) (block.View, error) {
	v, err := f.Fetch(ctx)
	if err != nil {
		return v, err
	}
	for id, err := range v.Partial {
		switch errs.KindOf(err) {
		case errs.NotFound:
		case errs.Invalid:
			r.log.Warn("a block is left out, since its meta.json is faulty", "bucket", of, "block", id, "err", err)
		default:
			return v, err
		}
	}
	for object, err := range v.MarkFaults {
		if errs.KindOf(err) != errs.Invalid {
			return v, err
		}
		r.log.Warn("a mark is left out", "bucket", of, "object", object, "err", err)
	}
	return v, nil
}
