package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/compact/plan"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxPlanned is how many planned jobs the page shows.
const maxPlanned = 1000

// settings are what plans are made by: the options, and the retention that is in force.
func (c *Compactor) settings(ctx context.Context) (*plan.Settings, error) {
	uuid, known := c.opts.BucketID()
	if !known {
		return nil, errs.E(errs.Unavailable, "it is not known yet which bucket it is")
	}
	policy, err := c.rules(ctx)
	if err != nil {
		return nil, err
	}
	s := plan.DefaultSettings()
	s.Bucket, s.Owner = uuid, block.Owner{TenantLabel: c.opts.TenantLabel, ReplicaLabel: c.opts.ReplicaLabel}
	j := &c.opts.Jobs
	s.DedupLabels, s.Penalty, s.MaxIndexSize, s.Downsample = j.ReplicaLabels, j.Penalty, j.MaxIndexSize, j.Downsample
	s.Ranges = s.Ranges[:min(j.MaxLevel, len(s.Ranges))]
	s.Retention = policy
	return &s, nil
}

// bucketOf is what a plan is made of.
func (c *Compactor) bucketOf(l *look, done map[ulid.ULID]bool) plan.Bucket {
	young := block.UploadedBefore(l.at.Add(-c.opts.ConsistencyDelay))
	return plan.Bucket{View: l.view, Metas: young(l.view, append([]*block.Meta(nil), l.live...)),
		SetAside: c.failures.blocks(), Done: done}
}

// runJobs does all jobs that this process owns, until none is left that does not wait after a failure. What one job
// makes may be the input of the next one, so after each round the bucket is looked at again.
func (c *Compactor) runJobs(ctx context.Context, l *look) error {
	c.metrics.iterations.Inc()
	var faults []error
	did := map[ulid.ULID]bool{} // a job that is planned again although it was done waits for the next pass
	for {
		if unread(l.view) { // jobs that lack an input would be done, and be done anew with it
			if err := c.look(ctx); err != nil {
				return errors.Join(append(faults, err)...)
			}
			l = c.last.Load()
		}
		if err := c.mayAct(ctx); err != nil {
			return errors.Join(append(faults, err)...)
		}
		jobs, err := c.plan(ctx, l)
		jobs = slices.DeleteFunc(jobs, func(j plan.Job) bool { return did[idOf(&j)] })
		if err != nil || len(jobs) == 0 {
			return errors.Join(append(faults, err)...)
		}
		progress, err := c.round(ctx, jobs, did)
		if err != nil {
			faults = append(faults, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.look(ctx); err != nil || !progress {
			return errors.Join(append(faults, err)...)
		}
		l = c.last.Load()
	}
}

// unread reports whether the bucket did not give the meta.json of a block that may be there.
func unread(v block.View) bool {
	for _, err := range v.Partial {
		if errs.KindOf(err) == errs.Unavailable {
			return true
		}
	}
	return false
}

// plan makes a plan, shows it, and returns the jobs that this process is to do now.
func (c *Compactor) plan(ctx context.Context, l *look) ([]plan.Job, error) {
	s, err := c.settings(ctx)
	if err != nil {
		return nil, err
	}
	done, err := c.doneOutputs(ctx)
	if err != nil {
		return nil, err
	}
	erase, err := c.erasures(ctx, l)
	if err != nil {
		return nil, err
	}
	var all []plan.Job
	wanted := map[ulid.ULID]bool{}
	for range 2 { // once more, if the marks of others set blocks aside
		known := len(c.failures.blocks())
		b := c.bucketOf(l, done)
		b.Erase = erase
		all = plan.Make(b, s, c.opts.Now()).Jobs
		for i := range all {
			wanted[idOf(&all[i])] = true
		}
		if err := c.syncFailures(ctx, l.view, wanted); err != nil {
			return nil, err
		}
		if len(c.failures.blocks()) == known {
			break
		}
	}
	c.metrics.toErase.Set(float64(c.erasing.planned(all)))
	own := plan.Owned(all, c.opts.Owns)
	c.showPlan(own)
	var now []plan.Job
	for i := range own {
		if !c.failures.waits(idOf(&own[i]), c.opts.Now()) {
			now = append(now, own[i])
		}
	}
	return now, nil
}

func idOf(j *plan.Job) ulid.ULID { return j.Outputs[0].ID }

// showPlan puts the first jobs of a plan on the page.
func (c *Compactor) showPlan(jobs []plan.Job) {
	shown := make([]JobStatus, 0, min(len(jobs), maxPlanned))
	for i := range jobs[:cap(shown)] {
		shown = append(shown, statusOf(&jobs[i]))
	}
	c.board.mu.Lock()
	c.board.planned = shown
	c.board.mu.Unlock()
}

// statusOf is a job that has not begun.
func statusOf(j *plan.Job) JobStatus {
	s := JobStatus{ID: idOf(j).String(), Kind: string(j.Kind), Stream: labels.FromMap(j.Stream).String(),
		Resolution: j.Resolution, MinTime: j.MinTime, MaxTime: j.MaxTime, Reason: j.Reason}
	for _, m := range j.Inputs {
		s.Inputs = append(s.Inputs, m.ULID.String())
		s.Bytes += m.Bytes()
	}
	return s
}

// round does jobs, several at once, and adds those that ended well to did. progress says that one did. The error joins
// those of a few that did not.
func (c *Compactor) round(ctx context.Context, jobs []plan.Job, did map[ulid.ULID]bool) (progress bool, err error) {
	var mu sync.Mutex
	var faults []error
	var g errgroup.Group
	g.SetLimit(c.opts.Jobs.Concurrency)
	for i := range jobs {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			done, err := c.do(ctx, &jobs[i])
			mu.Lock()
			defer mu.Unlock()
			if done {
				progress, did[idOf(&jobs[i])] = true, true
			} else if err != nil && ctx.Err() == nil && len(faults) < 3 {
				faults = append(faults, err)
			}
			return nil
		})
	}
	_ = g.Wait() // no error: each is in faults
	return progress, errors.Join(faults...)
}

// runningJob is a job that runs.
type runningJob struct {
	JobStatus
	began time.Time
	read  atomic.Int64
}

// status is the job as the page shows it. The caller holds board.mu.
func (j *runningJob) status(now time.Time) JobStatus {
	s := j.JobStatus
	s.Began, s.Read = &j.began, min(j.read.Load(), s.Bytes)
	if took := now.Sub(j.began).Seconds(); took > 0 && s.Read > 0 {
		s.BytesPerSecond = float64(s.Read) / took
		s.Left = float64(s.Bytes-s.Read) / s.BytesPerSecond
	}
	return s
}

// step says what a job does now.
func (c *Compactor) step(j *runningJob, text string) {
	c.board.mu.Lock()
	j.Step = text
	c.board.mu.Unlock()
}

// do does one job, and keeps what came of it. Whatever goes wrong, also a panic, ends this job alone. A job that was
// dropped is not done, and is no error.
func (c *Compactor) do(ctx context.Context, j *plan.Job) (done bool, err error) {
	id, resolution := idOf(j), strconv.FormatInt(j.Resolution, 10)
	run := &runningJob{JobStatus: statusOf(j), began: c.opts.Now()}
	c.board.start(run)
	c.metrics.running.Inc()
	c.metrics.started.WithLabelValues(resolution).Inc()
	began := time.Now()
	var dropped string
	err = guarded(func() (err error) {
		dropped, err = c.execute(ctx, j, run)
		return err
	})
	c.metrics.running.Dec()
	c.board.finish(run)
	c.changes.Add(1)
	switch {
	case err != nil && ctx.Err() != nil:
		return false, err // it was broken off, and is done again
	case err != nil:
		err = diskFull(err)
		c.metrics.jobs.WithLabelValues(string(j.Kind), errs.KindOf(err).String()).Inc()
		c.metrics.failures.WithLabelValues(resolution).Inc()
		if j.Kind == plan.Downsample {
			c.metrics.downsampleFaults.WithLabelValues(resolution).Inc()
		}
		c.fault(ctx, id, err)
		return false, fmt.Errorf("job %s (%s of %s): %w", id, j.Kind, run.Stream, err)
	case dropped != "":
		c.metrics.jobs.WithLabelValues(string(j.Kind), "dropped").Inc()
		c.log.Info("a job was dropped", "job", id.String(), "reason", dropped)
		return false, nil
	}
	c.recovered(ctx, id)
	c.metrics.jobs.WithLabelValues(string(j.Kind), "ok").Inc()
	c.metrics.completed.WithLabelValues(resolution).Inc()
	c.metrics.finished(j, time.Since(began))
	return true, nil
}

// fault keeps that a job failed: a block that cannot be read is left out of further jobs, anything else is tried again.
func (c *Compactor) fault(ctx context.Context, job ulid.ULID, err error) {
	now, retry := c.opts.Now(), c.opts.Jobs.Retry
	if bad, ok := merge.BlockOf(err); ok && (errs.KindOf(err) == errs.Invalid || errs.KindOf(err) == errs.NotFound) {
		f := c.failures.of(bad).next(bad, failedBlock, err, now, retry)
		f.Job = job.String()
		c.failed(ctx, f)
		c.log.Error("a block is quarantined: jobs leave it out until it is repaired or deleted, and all others go on",
			"block", bad.String(), "job", job.String(), "err", err)
		return
	}
	was := c.failures.of(job)
	if was != nil {
		c.metrics.retries.Inc()
	}
	f := was.next(job, failedJob, err, now, retry)
	c.failed(ctx, f)
	c.log.Error("a job failed; it is tried again, and all others go on", "job", job.String(), "tries", f.Tries,
		"next_try", time.Unix(f.Next, 0).UTC().Format(time.RFC3339), "err", err)
}

// diskFull gives an error of a full disk its kind, and says what to do. A bucket that is full is Unavailable.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) && errs.KindOf(err) == errs.Internal {
		return errs.E(errs.Exhausted, "the disk of --data-dir is full (docs/operate/compactor.md says what a job needs): %w",
			err)
	}
	return err
}
