package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/errs"
)

func bucketRewriteCommand() command {
	return command{
		name: "tools bucket rewrite",
		help: "Make blocks anew without some of their samples, or with other labels. Without --no-dry-run it only says " +
			"what would change.",
		first: []string{"objstore.config-file", "id", "rewrite.to-delete-config-file", "rewrite.to-relabel-config-file",
			"dry-run", "delete-blocks"},
		subject: subject{"What to rewrite", append([]string{"id", "tmp.dir", "prom-blocks", "delete-blocks", "rewrite.*",
			"hash-func"}, changeSubject...)},
		bind: bindBucketRewrite,
	}
}

// rewriteFlags say what is rewritten, and how.
type rewriteFlags struct {
	ids               []ulid.ULID
	dir               string
	promBlocks        bool
	deleteBlocks      bool
	hash              string
	changeLog         bool
	apart             bool
	deletes, relabels content
	changes           changeFlags
	config            rewrite.Config
	configHash        string
}

// changeLogName is the file in the directory of a rewritten block that has a line for each series that changes.
const changeLogName = "change.log"

func bindBucketRewrite(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket toolBucketFlags
		f      rewriteFlags
	)
	bucket.bind(c)
	c.Flag("id", "Block to rewrite. May be given several times.").PlaceHolder("ULID").SetValue(ulids{&f.ids})
	c.Flag("tmp.dir", "Directory for the new blocks until they are uploaded, for scratch files and change logs. What is "+
		"in it already stays.").Default(filepath.Join(os.TempDir(), "hearth-rewrite")).StringVar(&f.dir)
	c.Flag("prom-blocks", "The blocks are those of a Prometheus, and need no external labels.").BoolVar(&f.promBlocks)
	c.Flag("delete-blocks", "Mark each block for deletion once the new one is there. A block of which nothing is left is "+
		"marked in any case.").BoolVar(&f.deleteBlocks)
	c.Flag("hash-func", "SHA256 puts the checksums of a block's files into its meta.json.").Default("").
		EnumVar(&f.hash, "SHA256", "")
	f.deletes.bind(c, "rewrite.to-delete-config", "What to delete, in YAML: a list of entries with matchers (a selector "+
		"such as '{job=\"a\"}', of which all must match), intervals (a list of mint and maxt in ms, both included; none = "+
		"all) and request_id. Of downsampled blocks each window goes that an interval has a part of")
	f.relabels.bind(c, "rewrite.to-relabel-config", "Relabelling rules in YAML, which are applied to the labels of each "+
		"series, before anything is deleted")
	c.Flag("rewrite.add-change-log", "Write a line for each series that changes to "+changeLogName+" in a directory "+
		"below --tmp.dir that is called as the new block.").Default("true").BoolVar(&f.changeLog)
	c.Flag("rewrite.refuse-collisions", "Refuse a block of which several series would get the same labels. Without it "+
		"they are united by their timestamps, as replicas are.").BoolVar(&f.apart)
	f.changes.bind(c, "It is the default; --no-dry-run changes the bucket.")
	f.changes.bindPlans(c)
	return func(b *builder) {
		f.check(b)
		bkt := bucket.build(b)
		f.changes.rewrite = func(ctx context.Context, s change.Step) (string, error) { return f.apply(ctx, b, bkt, s) }
		b.runChangingTool(bkt, func(ctx context.Context) error {
			return f.changes.run(ctx, b, bkt, "rewrite", func(ctx context.Context) (change.Plan, error) {
				return f.plan(ctx, b, bkt)
			})
		})
	}
}

// check reads the configurations.
func (f *rewriteFlags) check(b *builder) {
	if len(f.ids) == 0 && f.changes.planIn == "" {
		b.check(errors.New("--id is needed: it says which block is rewritten"))
	}
	text, err := f.deletes.read()
	b.check(err)
	f.config.Deletions, err = rewrite.ParseDeletions(f.deletes.where(), text)
	b.check(err)
	text, err = f.relabels.read()
	b.check(err)
	f.config.Relabels, err = parseRelabel(f.relabels.where(), text)
	b.check(err)
	if f.config.Empty() {
		b.check(errors.New("--rewrite.to-delete-config or --rewrite.to-relabel-config is needed: it says what to change"))
	}
	f.configHash, err = f.config.Hash()
	b.check(err)
	f.changes.dryByDefault()
}

// plan lists the bucket, and plans to rewrite the blocks that nothing replaces.
func (f *rewriteFlags) plan(ctx context.Context, b *builder, bkt objstore.Bucket) (change.Plan, error) {
	v, err := listToolBlocks(ctx, b, bkt, block.FetcherOptions{})
	if err != nil {
		return change.Plan{}, err
	}
	p := change.NewPlan("rewrite", v, time.Now())
	replaced := block.Replaced(v.Select())
	for _, id := range f.ids {
		m := v.Metas[id]
		if m == nil {
			return p, errs.E(errs.NotFound, "there is no block %s in the bucket", id)
		}
		if len(m.Thanos.Labels) == 0 && !f.promBlocks {
			return p, errs.E(errs.Invalid, "block %s has no external labels: --prom-blocks allows that", id)
		}
		into, err := rewrite.NewID(m, &f.config)
		if err != nil {
			return p, err
		}
		s := change.Step{Action: change.Rewrite, Block: id, Into: into.String(), Config: f.configHash, Bytes: m.Bytes()}
		if f.deleteBlocks {
			s.Mark = block.DeletionMarkName
		}
		held, err := f.preview(ctx, bkt, v, &s, replaced[id].By)
		switch {
		case err != nil:
			return p, err
		case held != "":
			p.Held = append(p.Held, change.Held{Block: id, Reason: held})
		default:
			p.Steps = append(p.Steps, s)
		}
	}
	return p, nil
}

// preview says why a block is not to be rewritten, "" if it is. Where nothing is to be changed in this run, the block
// is read for what the rewrite would do, which goes into the details of the step.
func (f *rewriteFlags) preview(ctx context.Context, bkt objstore.Bucket, v block.View, s *change.Step,
	by []*block.Meta) (held string, err error) {
	if _, marked := v.Deletions[s.Block]; marked {
		return "it is marked for deletion", nil
	}
	for _, m := range by {
		if m.ULID.String() != s.Into { // else the run that made it was broken off before the mark
			return fmt.Sprintf("block %s replaces it", m.ULID), nil
		}
	}
	if finer := finerOf(v, v.Metas[s.Block]); finer != nil {
		return fmt.Sprintf("its samples are in block %s, too: rewrite that one, and a compactor makes this one anew",
			finer.ULID), nil
	}
	if !f.changes.dryRun && f.changes.planOut == "" {
		return "", nil
	}
	var stats rewrite.Stats
	m, err := block.FetchMeta(ctx, bkt, s.Block)
	if err == nil {
		err = f.logged(s, func(opts rewrite.Options) (err error) {
			stats, err = rewrite.Preview(ctx, bkt, m, &f.config, opts)
			return err
		})
	}
	if err == nil && !stats.Changed() {
		return "nothing of it changes", nil
	}
	s.Details = stats.String()
	return "", err
}

// finerOf is a finer block of which m was made, nil if there is none. If both were rewritten, a compactor would make a
// third one of the finer block, which replaces neither m nor what m became.
func finerOf(v block.View, m *block.Meta) *block.Meta {
	for _, o := range v.Select(block.Unmarked, block.NotReplaced, block.Labelled(m.ExternalLabels()),
		block.Within(m.MinTime, m.MaxTime-1)) {
		if o.Thanos.Downsample.Resolution < m.Thanos.Downsample.Resolution &&
			block.Subset(block.InOrder(m.Sources()), block.InOrder(o.Sources())) {
			return o
		}
	}
	return nil
}

// logged calls do with the options of a rewrite. The change log is written to its file.
func (f *rewriteFlags) logged(s *change.Step, do func(rewrite.Options) error) (err error) {
	opts := rewrite.Options{Dir: f.dir, Hash: f.hash != "", Apart: f.apart}
	if !f.changeLog {
		return do(opts)
	}
	id, ok := block.ParseID(s.Into)
	if !ok {
		return errs.E(errs.Invalid, "the step makes a block %q", s.Into)
	}
	dir := filepath.Join(f.dir, id.String())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(dir, changeLogName))
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	opts.Log = out
	err = do(opts)
	return errors.Join(err, out.Flush(), file.Close())
}

// apply makes a step.
func (f *rewriteFlags) apply(ctx context.Context, b *builder, bkt objstore.Bucket,
	s change.Step) (already string, err error) {
	if s.Config != f.configHash {
		return "", errs.E(errs.Conflict, "the plan was made with another configuration")
	}
	m, err := block.FetchMeta(ctx, bkt, s.Block)
	if err != nil {
		return "", err
	}
	var made *block.Meta
	var stats rewrite.Stats
	err = f.logged(&s, func(opts rewrite.Options) (err error) {
		made, stats, err = rewrite.Block(ctx, bkt, m, &f.config, opts)
		return err
	})
	switch {
	case err != nil:
		return "", err
	case !stats.Changed():
		return "nothing of it changes", nil
	case made == nil:
		b.log.Info("nothing is left of the block", "block", s.Block, "changes", stats)
	default:
		b.log.Info("the block is rewritten", "block", s.Block, "into", made.ULID, "changes", stats)
		if s.Mark == "" {
			return "", nil
		}
	}
	return "", block.MarkDeletion(ctx, bkt, s.Block, "block rewritten", time.Now())
}
