package main

import (
	"context"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/show"
)

func bucketInspectCommand() command {
	return command{
		name:    "tools bucket inspect",
		help:    "Show the blocks of a bucket as a table: times, sizes, labels, level and resolution.",
		first:   []string{"objstore.config-file", "output"},
		subject: subject{"What to show", []string{"selector", "sort-by", "output", "tenant", "timeout"}},
		bind:    bindBucketInspect,
	}
}

func bindBucketInspect(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket   toolBucketFlags
		selector labels.Labels
		sortBy   []string
		output   string
		timeout  time.Duration
	)
	bucket.bind(c)
	bucket.bindTenant(c)
	c.Flag("selector", "Show only blocks with this external label, such as cluster=\"eu\". May be given several times: "+
		"all must match.").Short('l').PlaceHolder("NAME=\"VALUE\"").SetValue(labelSet{&selector})
	c.Flag("sort-by", "Column to sort by. May be given several times: the next one counts where the one before is equal.").
		Default("FROM", "UNTIL").EnumsVar(&sortBy, show.Columns...)
	c.Flag("output", "Form of the output: table, csv, tsv, or json, a line for each block.").Short('o').Default("table").
		EnumVar(&output, "table", "csv", "tsv", "json")
	toolTimeout(c, &timeout)
	return func(b *builder) {
		bkt := bucket.build(b)
		b.runListing(bkt, timeout, func(_ context.Context, v block.View) error {
			return writeInspected(b.stdout, output, v.Select(block.Labelled(selector)), sortBy)
		})
	}
}

// writeInspected writes metas in the form output, sorted by the columns sortBy.
func writeInspected(w io.Writer, output string, metas []*block.Meta, sortBy []string) error {
	if output == "json" {
		return show.WriteJSON(w, metas)
	}
	rows := show.Rows(metas)
	show.Sort(rows, sortBy)
	switch output {
	case "csv":
		return show.WriteSeparated(w, rows, ',')
	case "tsv":
		return show.WriteSeparated(w, rows, '\t')
	}
	return show.WriteTable(w, rows)
}
