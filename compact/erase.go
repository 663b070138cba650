package compact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/compact/plan"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// erasedFolder has a record for each tenant of which operators asked to delete samples of series.
const erasedFolder = folder + "erased/"

// erased says which blocks of a tenant have none of the samples that requests delete. Without it all blocks are looked
// at anew, which does no harm.
type erased struct {
	Version int    `json:"version"`
	Tenant  string `json:"tenant"`
	// Blocks are the requests of which each block is free.
	Blocks map[ulid.ULID][]ulid.ULID `json:"blocks"`
}

func erasedName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return erasedFolder + hex.EncodeToString(sum[:16]) + ".json"
}

// erasure is what is to be erased from one block.
type erasure struct {
	tenant   string
	requests []ulid.ULID
	left     bool // the block is to be looked at, and not to be replaced by what is made of a finer one
	config   rewrite.Config
}

// erasing is what is known of samples that are to be erased.
type erasing struct {
	mu     sync.Mutex // guards records while they are written
	byJobs sync.Mutex // guards blocks
	blocks map[ulid.ULID]*erasure
}

// erasures finds the blocks that may have samples which requests for series delete, and how the blocks are called that
// are made of them. Blocks of which that was found out before are not among them. Errors: Unavailable.
func (c *Compactor) erasures(ctx context.Context, l *look) (map[ulid.ULID]ulid.ULID, error) {
	into, found := map[ulid.ULID]ulid.ULID{}, map[ulid.ULID]*erasure{}
	free := map[string]*erased{}
	now := c.opts.Now()
	for _, m := range l.live {
		id := m.TenantOf(c.opts.TenantLabel)
		if len(l.view.Requests.SeriesOf(id)) == 0 {
			continue
		}
		window := m.Thanos.Downsample.Resolution
		requests := l.view.Requests.Erased(id, m.MinTime-window, m.MaxTime-1+window, now)
		if len(requests) == 0 {
			continue
		}
		if free[string(id)] == nil {
			r, err := c.readErased(ctx, string(id))
			if err != nil {
				return nil, err
			}
			free[string(id)] = r
		}
		requests = slices.DeleteFunc(requests, func(e *block.Request) bool {
			return slices.Contains(free[string(id)].Blocks[m.ULID], e.ID)
		})
		added := labels.NewBuilder(labels.FromMap(m.Thanos.Labels)).Del(c.opts.TenantLabel, c.opts.ReplicaLabel).Labels()
		e := &erasure{tenant: string(id), left: m.Thanos.Downsample.Resolution == 0,
			config: rewrite.Config{Deletions: rewrite.DeletionsOf(requests, added)}}
		if len(e.config.Deletions) == 0 {
			continue
		}
		for _, one := range requests {
			e.requests = append(e.requests, one.ID)
		}
		made, err := rewrite.NewID(m, &e.config)
		if err != nil {
			return nil, err
		}
		into[m.ULID], found[m.ULID] = made, e
	}
	c.erasing.byJobs.Lock()
	c.erasing.blocks = found
	c.erasing.byJobs.Unlock()
	return into, nil
}

// planned takes a plan into what is known of samples that are to be erased.
func (e *erasing) planned(jobs []plan.Job) (left int) {
	e.byJobs.Lock()
	defer e.byJobs.Unlock()
	for i := range jobs {
		if one := e.blocks[jobs[i].Inputs[0].ULID]; jobs[i].Kind == plan.Erase && one != nil {
			one.left = true
		}
	}
	for _, one := range e.blocks {
		if one.left {
			left++
		}
	}
	return left
}

// readErased reads the record of a tenant. One that is damaged, or of another version, is as none.
func (c *Compactor) readErased(ctx context.Context, id string) (*erased, error) {
	r := &erased{}
	err := c.getRecord(ctx, erasedName(id), r)
	if kind := errs.KindOf(err); err != nil && kind != errs.NotFound && kind != errs.Invalid {
		return nil, err
	}
	if err != nil || r.Version != 1 || r.Tenant != id || r.Blocks == nil {
		r = &erased{Version: 1, Tenant: id, Blocks: map[ulid.ULID][]ulid.ULID{}}
	}
	return r, nil
}

// keepErased keeps that a block has none of the samples that e deletes. Blocks that are gone are forgotten in time; one
// that was made since the last look is not known there.
func (c *Compactor) keepErased(ctx context.Context, e *erasure, id ulid.ULID) error {
	c.erasing.mu.Lock()
	defer c.erasing.mu.Unlock()
	r, err := c.readErased(ctx, e.tenant)
	if err != nil {
		return err
	}
	if there := c.last.Load().view.Metas; len(r.Blocks) > 2*len(there)+1000 {
		maps.DeleteFunc(r.Blocks, func(one ulid.ULID, _ []ulid.ULID) bool { return there[one] == nil })
	}
	r.Blocks[id] = block.InOrder(append(r.Blocks[id], e.requests...))
	return c.putRecord(ctx, erasedName(e.tenant), r)
}

// erase does a job that makes a block anew without samples:
//
//  1. look into the index whether it may have some. If not, keep that
//  2. make it anew, which is uploaded as any block is, and find all of its objects in the bucket
//  3. keep that the new block has none
//  4. mark the old one, which the new one replaces
//
// A job that was broken off at any point is done again, with the same bytes. dropped is as that of execute.
func (c *Compactor) erase(ctx context.Context, j *plan.Job, run *runningJob, dir string) (dropped string, err error) {
	c.erasing.byJobs.Lock()
	e := c.erasing.blocks[j.Inputs[0].ULID]
	c.erasing.byJobs.Unlock()
	if e == nil {
		return "nothing is to be erased from it any more", nil
	}
	counting := &countingBucket{c.bkt, &run.read}
	m, err := block.FetchMeta(ctx, c.bkt, j.Inputs[0].ULID)
	if err != nil {
		return "", err
	}
	n, err := rewrite.Matches(ctx, counting, m, e.config.Deletions, dir, 1)
	switch {
	case errs.KindOf(err) == errs.Invalid: // what is below fails, too, and says that it is the block's fault
	case err != nil:
		return "", err
	case n == 0:
		return "", c.keepErased(ctx, e, m.ULID)
	}
	c.step(run, "erasing")
	made, stats, err := rewrite.Block(ctx, c.bkt, m, &e.config, rewrite.Options{Dir: dir, Memory: c.opts.Jobs.Memory,
		Hash: c.opts.Jobs.Hash})
	switch {
	case errs.KindOf(err) == errs.Conflict:
		return err.Error(), nil
	case err != nil:
		return "", err
	case !stats.Changed():
		return "", c.keepErased(ctx, e, m.ULID)
	case made != nil:
		there, err := block.FetchMeta(ctx, c.bkt, made.ULID)
		if err == nil {
			err = c.verify(ctx, there)
		}
		if err == nil {
			err = c.keepErased(ctx, e, made.ULID)
		}
		if err != nil {
			return "", err
		}
		c.metrics.bytesOut.Add(float64(there.Bytes()))
	}
	c.metrics.bytesIn.Add(float64(run.Bytes))
	c.log.Info("erased samples that operators asked to delete", "block", m.ULID.String(), "tenant", e.tenant,
		"into", j.Outputs[0].ID.String(), "empty", made == nil, "changes", stats.String())
	if errs.KindOf(c.mayAct(ctx)) == errs.Conflict {
		return "", nil // the block is marked as a replaced one, or looked at anew, once the compactor no longer rests
	}
	return "", c.mark(ctx, m.ULID, becauseErased, becauseErased)
}

// endAfter is how long a request for series stays in effect after it was due, if nothing of it is left. Samples that
// come later than that are not deleted: they are those of a receiver that was away for as long, or were brought on
// purpose.
const endAfter = 30 * 24 * time.Hour

// endErased ends the requests for series that are long done, so that reads need not look for their samples for ever. A
// compactor that looks at a part of the bucket ends none.
func (c *Compactor) endErased(ctx context.Context, l *look) error {
	if c.opts.Window != nil || len(c.opts.Relabel) > 0 || c.opts.Jobs.Off || unread(l.view) {
		return nil
	}
	left := map[ulid.ULID]bool{}
	c.erasing.byJobs.Lock()
	known := c.erasing.blocks != nil
	for _, e := range c.erasing.blocks {
		for _, id := range e.requests {
			left[id] = left[id] || e.left
		}
	}
	c.erasing.byJobs.Unlock()
	now := c.opts.Now()
	for _, e := range l.view.SeriesDueBefore(now.Add(-endAfter), now) {
		if !known || left[e.ID] || !c.owns([]byte("erase "+string(e.Tenant))) {
			continue
		}
		if err := block.EndSeries(ctx, c.bkt, e, "compactor "+c.opts.Instance, now); err != nil {
			return err
		}
		c.changes.Add(1)
		c.log.Info("a deletion of series is done and ended", "tenant", e.Tenant, "request", e.ID.String())
	}
	return nil
}
