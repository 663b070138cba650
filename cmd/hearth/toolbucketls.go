package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/show"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// listIndexAge is up to which age the index of a bucket stands for the marks of other tools in what tools list.
const listIndexAge = time.Hour

func bucketLsCommand() command {
	return command{
		name: "tools bucket ls",
		help: "List the blocks of a bucket, oldest first. Where the bucket has an index that is younger than an hour, " +
			"marks that other tools wrote since are not seen.",
		first:   []string{"objstore.config-file", "output"},
		subject: subject{"What to list", []string{"output", "exclude-delete", "tenant", "timeout"}},
		bind:    bindBucketLs,
	}
}

func bindBucketLs(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket  toolBucketFlags
		chosen  blockChoice
		output  string
		exclude bool
		timeout time.Duration
	)
	bucket.bind(c)
	bucket.bindTenant(c)
	chosen.bindTimes(c, "Only")
	chosen.bindRules(c, "Only")
	c.Flag("output", "How each block is written: \"\" is its id, wide adds times, level, resolution and source, json is "+
		"its whole meta.json, and anything else is a Go template over that, such as '{{.ULID}} {{.Thanos.Labels}}'.").
		Short('o').Default("").StringVar(&output)
	c.Flag("exclude-delete", "Leave out blocks that are marked for deletion.").BoolVar(&exclude)
	toolTimeout(c, &timeout)
	return func(b *builder) {
		bkt := bucket.build(b)
		lister, err := show.NewLister(output)
		if err != nil {
			b.check(errors.Join(errors.New("--output"), err))
		}
		filters := chosen.filters(b)
		if exclude {
			filters = append(filters, block.NotMarkedBefore(time.Now()))
		}
		b.runListing(bkt, timeout, func(ctx context.Context, v block.View) error {
			metas := v.Select(filters...)
			out := bufio.NewWriter(b.stdout)
			err := writeBlocks(ctx, bkt, out, lister, metas)
			b.log.Info("ls done", "objects", len(metas))
			return errors.Join(err, out.Flush())
		})
	}
}

// readAhead is how many metas are read whole before they are written, side by side.
const readAhead = 64

// writeBlocks writes metas by lister. A block that is gone by now is left out.
func writeBlocks(ctx context.Context, bkt objstore.BucketReader, w io.Writer, lister show.Lister,
	metas []*block.Meta) error {
	for len(metas) > 0 {
		part := metas[:min(readAhead, len(metas))]
		metas = metas[len(part):]
		whole := part
		if lister.All {
			whole = make([]*block.Meta, len(part))
			g, gctx := errgroup.WithContext(ctx)
			for i, m := range part {
				g.Go(func() (err error) {
					whole[i], err = block.FetchMeta(gctx, bkt, m.ULID)
					if errs.KindOf(err) == errs.NotFound {
						whole[i], err = nil, nil
					}
					return err
				})
			}
			if err := g.Wait(); err != nil {
				return err
			}
		}
		for _, m := range whole {
			if m == nil {
				continue
			}
			if err := lister.Write(w, m); err != nil {
				return err
			}
		}
	}
	return nil
}
