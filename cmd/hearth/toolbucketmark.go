package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
)

func bucketMarkCommand() command {
	return command{
		name: "tools bucket mark",
		help: "Mark blocks to be deleted, or to be kept out of compaction or downsampling, or remove such a mark. A mark " +
			"that exists stays as it is.",
		first:   []string{"objstore.config-file", "id", "marker", "details"},
		subject: subject{"What to mark", append([]string{"id", "marker", "details", "remove"}, changeSubject...)},
		bind:    bindBucketMark,
	}
}

func bindBucketMark(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket  toolBucketFlags
		changes changeFlags
		ids     []ulid.ULID
		marker  string
		details string
		remove  bool
	)
	bucket.bind(c)
	c.Flag("id", "Block to mark. May be given several times.").PlaceHolder("ULID").Required().SetValue(ulids{&ids})
	marks := []string{block.DeletionMarkName, block.NoCompactMarkName, block.NoDownsampleMarkName}
	c.Flag("marker", "The mark: "+strings.Join(marks, ", ")+".").PlaceHolder("NAME").Required().
		EnumVar(&marker, marks...)
	c.Flag("details", "Why, for people: it is kept in the mark. Needed, except with --remove.").StringVar(&details)
	c.Flag("remove", "Remove the mark.").BoolVar(&remove)
	changes.bind(c, "")
	return func(b *builder) {
		if !remove && details == "" {
			b.check(errors.New("--details is needed: it says why the blocks are marked"))
		}
		bkt := bucket.build(b)
		b.runChangingTool(bkt, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, markTimeout)
			defer cancel()
			return changes.run(ctx, b, bkt, "mark", func(context.Context) (change.Plan, error) {
				p := change.NewPlan("mark", block.View{}, time.Now())
				step := change.Step{Action: change.Mark, Mark: marker, Details: details}
				if remove {
					step.Action = change.Unmark
				}
				for _, id := range ids {
					step.Block = id
					p.Steps = append(p.Steps, step)
				}
				return p, nil
			})
		})
	}
}
