package change

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Options adjust Apply.
type Options struct {
	// By says who applies the plan, for the audit.
	By string
	// Now is the clock; nil = time.Now.
	Now func() time.Time
	// Rewrite makes a step of a rewrite. If there was nothing to be done, it says why. An error of kind Conflict says that
	// the block is not what the step is about. Plans without such steps need none.
	Rewrite func(context.Context, Step) (already string, err error)
	// Progress, if set, is called after each step.
	Progress func(done, of int)
}

// Outcome is what became true of a step.
type Outcome struct {
	Step
	// Result is Done, Already where nothing was to be done, Refused where the block is not what the plan says, Failed, or
	// "planned" for a step that was not made yet.
	Result string `json:"result"`
	// Why says more of a step that was not done.
	Why string `json:"why,omitempty"`
}

// The results of steps.
const (
	Done    = "done"
	Already = "already"
	Refused = "refused"
	Failed  = "failed"
)

// Report is what Apply did.
type Report struct {
	Tool string `json:"tool"`
	By   string `json:"by,omitempty"`
	// Audit is the object that says what was done, "" if there was nothing to do.
	Audit    string    `json:"audit,omitempty"`
	Began    time.Time `json:"began"`
	Finished time.Time `json:"finished,omitzero"`
	Steps    []Outcome `json:"steps"`
	Held     []Held    `json:"held,omitempty"`
	// Of a tenant's deletion there are no steps: Deletion is the request that was made, or Undo what was said of one,
	// which is What: undo or anew. Error is why it was not done.
	Deletion *deletion.Request `json:"deletion,omitempty"`
	Undo     *deletion.Change  `json:"undo,omitempty"`
	What     string            `json:"what,omitempty"`
	Error    string            `json:"error,omitempty"`
}

// begin gives r its time and the name of its object.
func (r *Report) begin(at time.Time) {
	r.Began = at.UTC()
	r.Audit = auditFolder + r.Began.Format(time.DateOnly) + "/" + ulid.MustNew(ulid.Timestamp(r.Began),
		ulid.DefaultEntropy()).String() + ".json"
}

// Count is how many steps had the result.
func (r Report) Count(result string) (n int) {
	for _, o := range r.Steps {
		if o.Result == result {
			n++
		}
	}
	return n
}

// Err is nil if all steps are done. Else it is of kind Unavailable if the bucket failed, and Conflict if steps were
// refused.
func (r Report) Err() error {
	switch failed, refused := r.Count(Failed), r.Count(Refused); {
	case failed > 0:
		return errs.E(errs.Unavailable, "%d of %d steps failed", failed, len(r.Steps))
	case refused > 0:
		return errs.E(errs.Conflict, "%d of %d steps were refused", refused, len(r.Steps))
	}
	return nil
}

// Outcomes are the steps of a plan that is not applied.
func (p Plan) Outcomes() []Outcome {
	all := make([]Outcome, len(p.Steps))
	for i, s := range p.Steps {
		all[i] = Outcome{Step: s, Result: planned}
	}
	return all
}

// planned is the result of a step that was not made yet.
const planned = "planned"

// maxSkew is how far the clock of the object store may be from this machine's where the age of something decides.
const maxSkew = deletion.MaxSkew

// auditFolder is where the bucket keeps what was done, by day.
const auditFolder = "hearth/audit/"

// Apply makes the steps of p:
//
//  1. write the audit object, which has all steps as they are planned
//  2. if p is Timed, compare the clock with the time that the store gave that object
//  3. make each step. One that fails does not keep the others from being made
//  4. write the audit object again, with the outcome of each step
//
// The error is of 1, 2 and 4, and then of the steps (Report.Err).
func Apply(ctx context.Context, bkt objstore.Bucket, p Plan, opts Options) (Report, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := Report{Tool: p.Tool, By: opts.By, Began: opts.Now().UTC(), Steps: p.Outcomes(), Held: p.Held}
	if len(p.Steps) == 0 {
		return r, nil
	}
	r.begin(r.Began)
	if err := r.write(ctx, bkt); err != nil {
		return r, err
	}
	if p.Timed {
		if err := checkClock(ctx, bkt, r.Audit, opts.Now); err != nil {
			return r, err
		}
	}
	for i, s := range p.Steps {
		r.Steps[i] = apply(ctx, bkt, s, opts)
		if opts.Progress != nil {
			opts.Progress(i+1, len(p.Steps))
		}
	}
	r.Finished = opts.Now().UTC()
	return r, errors.Join(r.write(context.WithoutCancel(ctx), bkt), r.Err())
}

func (r Report) write(ctx context.Context, bkt objstore.Bucket) error {
	raw, err := json.Marshal(r)
	if err == nil {
		err = bkt.Upload(ctx, r.Audit, bytes.NewReader(raw))
	}
	if err != nil {
		return errs.E(errs.Unavailable, "write %s: %w", r.Audit, err)
	}
	return nil
}

// checkClock compares the clock with that of the object store, which has just written object. A store that keeps no
// times gives no answer, and then the clock is believed.
func checkClock(ctx context.Context, bkt objstore.BucketReader, object string, now func() time.Time) error {
	attrs, err := bkt.Attributes(ctx, object)
	if err != nil {
		return errs.E(errs.Unavailable, "read the time of %s: %w", object, err)
	}
	if skew := now().Sub(attrs.LastModified); !attrs.LastModified.IsZero() && skew.Abs() > maxSkew {
		return errs.E(errs.Conflict, "the clock of this machine is %s from that of the object store: nothing is changed, as "+
			"the age of blocks decides", skew.Round(time.Second))
	}
	return nil
}

// apply makes one step.
func apply(ctx context.Context, bkt objstore.Bucket, s Step, opts Options) Outcome {
	o := Outcome{Step: s, Result: Done}
	names, err := block.ObjectsOf(ctx, bkt, s.Block)
	if err != nil {
		o.Result, o.Why = Failed, err.Error()
		return o
	}
	switch o.Result, o.Why = judge(s, names); {
	case o.Result != Done:
	case s.Action == Rewrite:
		o.rewrite(ctx, opts)
	default:
		if err := do(ctx, bkt, s, opts.Now()); err != nil {
			o.Result, o.Why = Failed, err.Error()
		} else if o.Why != "" {
			o.Result = Already
		}
	}
	return o
}

// rewrite makes the step by the function of opts.
func (o *Outcome) rewrite(ctx context.Context, opts Options) {
	err := errs.E(errs.Unsupported, "this tool rewrites no blocks")
	if opts.Rewrite != nil {
		o.Why, err = opts.Rewrite(ctx, o.Step)
	}
	switch {
	case errs.KindOf(err) == errs.Conflict:
		o.Result, o.Why = Refused, err.Error()
	case err != nil:
		o.Result, o.Why = Failed, err.Error()
	case o.Why != "":
		o.Result = Already
	}
}

// judge says what is to become of a step whose block has the objects names: Done, if it is to be made. Then why is
// empty, unless all but the copy of a mark is there already.
func judge(s Step, names []string) (result, why string) {
	has := func(name string) bool { return slices.Contains(names, name) }
	switch {
	case len(names) == 0 && s.Action == Mark:
		return Refused, "there is no such block"
	case len(names) == 0:
		return Already, "there is no such block"
	case s.Action == Mark && has(s.Mark):
		return Done, "it has the mark already, which stays as it is"
	case s.Objects != "" && s.Objects != state(names):
		return Refused, "the block has other objects than when the plan was made"
	case s.Action == Unmark && s.Mark == block.DeletionMarkName && !has(block.MetaName):
		return Refused, "its meta.json is gone: the deletion has begun"
	case s.Action == Rewrite && !has(block.MetaName):
		return Refused, "it has no meta.json"
	case s.Action == Rewrite && has(block.DeletionMarkName):
		return Refused, "it is marked for deletion"
	case s.Action == Delete && s.Mark == "" && has(block.MetaName):
		return Refused, "it has a meta.json by now: its upload was finished"
	case s.Action == Delete && s.Mark != "" && !has(s.Mark):
		return Refused, "its mark was removed"
	}
	return Done, ""
}

func do(ctx context.Context, bkt objstore.Bucket, s Step, at time.Time) error {
	switch {
	case s.Action == Delete:
		return block.Delete(ctx, bkt, s.Block)
	case s.Action == Unmark:
		return block.Unmark(ctx, bkt, s.Block, s.Mark)
	case s.Mark == block.NoCompactMarkName:
		return block.MarkNoCompact(ctx, bkt, s.Block, block.ReasonManual, s.Details, at)
	case s.Mark == block.NoDownsampleMarkName:
		return block.MarkNoDownsample(ctx, bkt, s.Block, block.ReasonManual, s.Details, at)
	}
	return block.MarkDeletion(ctx, bkt, s.Block, s.Details, at)
}
