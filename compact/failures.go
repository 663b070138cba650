package compact

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// quarantineFolder has a mark for each block that cannot be read, and for each job that failed by itself.
const quarantineFolder = folder + "quarantine/"

// What a Failure is of.
const (
	failedBlock = "block" // ID is a block; jobs leave it out until the mark is removed, or the block
	failedJob   = "job"   // ID is a job's first output; it is tried again
)

// maxErrorText bounds what a mark keeps of an error, in bytes.
const maxErrorText = 2000

// Failure is a block that cannot be read, or a job that failed. Times are in Unix seconds.
type Failure struct {
	Version int       `json:"version"`
	ID      ulid.ULID `json:"id"`
	Kind    string    `json:"kind"`
	// Reason is the kind of the error, and Error its text.
	Reason string `json:"reason"`
	Error  string `json:"error"`
	// Job is the job's first output, where a block failed it.
	Job string `json:"job,omitempty"`
	// Since is when it first failed, Tries how often it has.
	Since int64 `json:"since"`
	Tries int   `json:"tries"`
	// Next is when it is tried again; 0 = never.
	Next int64 `json:"next,omitempty"`
}

// failure is a Failure, and whether the bucket has a mark of it.
type failure struct {
	Failure
	stored bool
}

// valid reports whether a mark that was read is one of id.
func (f *Failure) valid(id ulid.ULID) bool {
	return f.Version == 1 && f.ID == id && (f.Kind == failedBlock || f.Kind == failedJob)
}

// failures are those that are known.
type failures struct {
	mu    sync.Mutex
	known map[ulid.ULID]*failure
}

func (f *failures) list() []Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Failure, 0, len(f.known))
	for _, one := range f.known {
		all = append(all, one.Failure)
	}
	slices.SortFunc(all, func(a, b Failure) int { return cmp.Or(cmp.Compare(a.Since, b.Since), a.ID.Compare(b.ID)) })
	return all
}

// of is what is known of id, nil if it did not fail.
func (f *failures) of(id ulid.ULID) *failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known[id]
}

// set keeps what is known of id; nil forgets it.
func (f *failures) set(id ulid.ULID, one *failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one == nil {
		delete(f.known, id)
	} else {
		f.known[id] = one
	}
}

// blocks are the blocks that jobs leave out.
func (f *failures) blocks() map[ulid.ULID]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[ulid.ULID]bool{}
	for id, one := range f.known {
		if one.Kind == failedBlock {
			out[id] = true
		}
	}
	return out
}

// waits reports whether the job is not to be tried yet.
func (f *failures) waits(id ulid.ULID, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.known[id]
	return one != nil && one.Kind == failedJob && now.Before(time.Unix(one.Next, 0))
}

// next is a failure of what failed before as was (nil = it did not). Blocks are not tried again; a job is after a wait
// that doubles with each failure, up to 32 times retry.
func (was *failure) next(id ulid.ULID, kind string, err error, now time.Time, retry time.Duration) Failure {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	f := Failure{Version: 1, ID: id, Kind: kind, Reason: errs.KindOf(err).String(), Error: text, Since: now.Unix(),
		Tries: 1}
	if was != nil {
		f.Since, f.Tries = was.Since, was.Tries+1
	}
	if kind == failedJob {
		f.Next = now.Add(retry << min(f.Tries-1, 5)).Unix()
	}
	return f
}

// failed keeps a failure, and writes its mark unless the bucket or the disk is at fault: then it passes by itself.
func (c *Compactor) failed(ctx context.Context, f Failure) {
	stored := false
	if f.Reason != errs.Unavailable.String() && f.Reason != errs.Exhausted.String() {
		err := c.putRecord(ctx, quarantineName(f.ID), f)
		if stored = err == nil; !stored {
			c.log.Warn("a quarantine mark could not be written; it holds until a restart", "id", f.ID.String(), "err", err)
		}
	}
	c.failures.set(f.ID, &failure{f, stored})
	c.countFailures()
}

func quarantineName(id ulid.ULID) string { return quarantineFolder + id.String() + ".json" }

// recovered forgets the failure of a job that has ended well.
func (c *Compactor) recovered(ctx context.Context, id ulid.ULID) {
	c.failures.mu.Lock()
	one := c.failures.known[id]
	delete(c.failures.known, id)
	c.failures.mu.Unlock()
	if one != nil && one.stored {
		if err := c.removeRecord(ctx, quarantineName(id)); err != nil {
			c.log.Warn("the mark of a job that is done now stays", "id", id.String(), "err", err)
		}
	}
	c.countFailures()
}

// Release takes the mark off a block that is quarantined, or ends the wait of a job that failed: the next pass tries
// again, here and in all other compactors. Errors: NotFound, Unavailable.
func (c *Compactor) Release(ctx context.Context, id ulid.ULID) error {
	stored, err := c.bkt.Exists(ctx, quarantineName(id))
	switch {
	case err != nil:
		return errs.E(errs.Unavailable, "look for %s: %w", quarantineName(id), err)
	case !stored && c.failures.of(id) == nil:
		return errs.E(errs.NotFound, "%s is neither a quarantined block nor a failed job", id)
	}
	if err := c.removeRecord(ctx, quarantineName(id)); err != nil {
		return err
	}
	c.failures.set(id, nil)
	c.countFailures()
	c.log.Info("an operator released a block or a job: it is tried again", "id", id.String())
	return nil
}

// syncFailures reads the marks that the bucket has: those of other compactors and of earlier lives of this one. A mark
// that somebody removed no longer holds. Marks of blocks that are gone are removed, and so are those of jobs that
// nobody needs any more (wanted).
func (c *Compactor) syncFailures(ctx context.Context, v block.View, wanted map[ulid.ULID]bool) error {
	ids, err := c.listRecords(ctx, quarantineFolder)
	if err != nil {
		return err
	}
	there := map[ulid.ULID]bool{}
	for _, id := range ids {
		there[id] = true
		known := c.failures.of(id)
		if known == nil {
			known = &failure{stored: true}
			err := c.getRecord(ctx, quarantineName(id), &known.Failure)
			switch {
			case errs.KindOf(err) == errs.NotFound:
				continue
			case errs.KindOf(err) == errs.Invalid || err == nil && !known.valid(id):
				c.log.Warn("a quarantine mark is not readable and has no effect", "id", id.String(), "err", err)
				continue
			case err != nil:
				return err
			}
		}
		if known.Kind == failedBlock && v.Metas[id] != nil || known.Kind == failedJob && wanted[id] {
			c.failures.set(id, known)
			continue
		}
		c.failures.set(id, nil)
		if err := c.removeRecord(ctx, quarantineName(id)); err != nil {
			return err
		}
	}
	c.failures.mu.Lock()
	for id, one := range c.failures.known {
		if one.stored && !there[id] || !one.stored && one.Kind == failedJob && !wanted[id] {
			delete(c.failures.known, id)
		}
	}
	c.failures.mu.Unlock()
	c.countFailures()
	return nil
}

func (c *Compactor) countFailures() {
	jobs, blocks := 0, 0
	for _, f := range c.failures.list() {
		if f.Kind == failedBlock {
			blocks++
		} else {
			jobs++
		}
	}
	c.metrics.failedJobs.Set(float64(jobs))
	c.metrics.badBlocks.Set(float64(blocks))
}
