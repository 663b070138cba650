package main

import (
	"context"
	"fmt"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/compact/plan"
)

// passFlags are the flags of tools that go over all blocks, as a pass of a compactor does.
type passFlags struct {
	consistency time.Duration
	concurrency int
	chosen      blockChoice
	changes     changeFlags
}

var passSubject = append([]string{"delete-delay", "block-sync-concurrency"}, changeSubject...)

func (f *passFlags) bind(c *kingpin.CmdClause, dryRunHelp string) {
	f.consistency = 30 * time.Minute
	durationFlag(c, "consistency-delay", "Look at a block only when it is this old, for object stores that show objects "+
		"late. Compacted blocks are looked at in any case.", &f.consistency)
	c.Flag("block-sync-concurrency", "How many meta.json files are read at once.").Default("20").
		SetValue(whole[int]{&f.concurrency})
	f.chosen.bindRules(c, "Only")
	f.changes.bind(c, dryRunHelp)
	f.changes.bindPlans(c)
}

// view lists the whole bucket, so that the marks of all tools are known.
func (f *passFlags) view(ctx context.Context, b *builder, bkt objstore.Bucket) (block.View, error) {
	b.log.Info("listing the bucket", "bucket", bkt.Name())
	return listToolBlocks(ctx, b, bkt, block.FetcherOptions{Concurrency: f.concurrency})
}

func bucketCleanupCommand() command {
	return command{
		name: "tools bucket cleanup",
		help: "Remove the blocks that were marked for deletion long enough ago, and what uploads left that were broken off " +
			"two days ago or earlier.",
		first:   []string{"objstore.config-file", "delete-delay", "plan-out"},
		subject: subject{"What to remove", passSubject},
		bind:    bindBucketCleanup,
	}
}

func bindBucketCleanup(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket toolBucketFlags
		pass   passFlags
		delay  = 48 * time.Hour
	)
	bucket.bind(c)
	durationFlag(c, "delete-delay", "How long a block must have been marked for deletion. It must be longer than it "+
		"takes until all store gateways serve what replaces the block.", &delay)
	pass.bind(c, "It is the default where --selector.relabel-config is given; then --no-dry-run changes the bucket.")
	return func(b *builder) {
		bkt := bucket.build(b)
		var filters []block.Filter
		if pass.chosen.rules.given() {
			filters = pass.chosen.filters(b)
			pass.changes.dryByDefault()
		}
		b.runChangingTool(bkt, func(ctx context.Context) error {
			return pass.changes.run(ctx, b, bkt, "cleanup", func(ctx context.Context) (change.Plan, error) {
				v, err := pass.view(ctx, b, bkt)
				if err != nil {
					return change.Plan{}, err
				}
				opts := change.CleanupOptions{DeleteDelay: delay, ConsistencyDelay: pass.consistency, Filters: filters}
				if opts.Touched, err = change.Touched(ctx, bkt, v); err != nil {
					return change.Plan{}, err
				}
				return change.Cleanup(v, time.Now(), opts), nil
			})
		})
	}
}

func bucketRetentionCommand() command {
	return command{
		name: "tools bucket retention",
		help: "Mark the blocks for deletion that are past the retention of their resolution. A block stays while coarser " +
			"blocks are kept for its time and there are none.",
		first: []string{"objstore.config-file", "retention.resolution-raw", "retention.resolution-5m",
			"retention.resolution-1h", "plan-out"},
		subject: subject{"What to mark", append([]string{"retention.*"}, passSubject...)},
		idle: idleTable{never: []idleFlag{{"delete-delay", idleText, "retention only marks: how long marked blocks stay is " +
			"up to who removes them"}}},
		bind: bindBucketRetention,
	}
}

func bindBucketRetention(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket toolBucketFlags
		pass   passFlags
		keep   plan.Keep
	)
	bucket.bind(c)
	for _, f := range []struct {
		name string
		to   *time.Duration
	}{{"raw", &keep.Raw}, {"5m", &keep.FiveMin}, {"1h", &keep.OneHour}} {
		c.Flag("retention.resolution-"+f.name, fmt.Sprintf("How long samples of resolution %s are kept, from the end of "+
			"their block on; 0d = for ever.", f.name)).Default("0d").SetValue(duration{f.to})
	}
	pass.bind(c, "")
	return func(b *builder) {
		bkt := bucket.build(b)
		filters := pass.chosen.filters(b)
		b.runChangingTool(bkt, func(ctx context.Context) error {
			return pass.changes.run(ctx, b, bkt, "retention", func(ctx context.Context) (change.Plan, error) {
				v, err := pass.view(ctx, b, bkt)
				if err != nil {
					return change.Plan{}, err
				}
				owner, err := ownerOf(ctx, bkt)
				if err != nil {
					return change.Plan{}, err
				}
				now := time.Now()
				return retain(v, now, keep, owner, append(filters, block.UploadedBefore(now.Add(-pass.consistency)))...), nil
			})
		})
	}
}

// retain plans to mark the blocks that are past their retention, by the rule of the compactor: a block stays while its
// samples are to be kept at a coarser resolution, and are not there. If only raw samples have a retention, nobody
// downsamples, and there is no such guard.
func retain(v block.View, now time.Time, keep plan.Keep, owner block.Owner, filters ...block.Filter) change.Plan {
	s := plan.DefaultSettings()
	s.Owner, s.Retention.Default, s.Downsample = owner, keep, keep.FiveMin > 0 || keep.OneHour > 0
	p := change.NewPlan("retention", v, now)
	p.Timed = true
	for _, e := range plan.Expired(plan.Bucket{View: v, Metas: v.Select(filters...)}, &s, now) {
		if e.Waits != "" {
			p.Held = append(p.Held, change.Held{Block: e.Meta.ULID, Reason: e.Waits})
			continue
		}
		p.Steps = append(p.Steps, change.Step{Action: change.Mark, Block: e.Meta.ULID, Mark: block.DeletionMarkName,
			Bytes: e.Bytes, Details: fmt.Sprintf("block exceeding retention of %v", e.Keep)})
	}
	return p
}
