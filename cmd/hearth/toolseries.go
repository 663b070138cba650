package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/change"
	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func seriesDeleteCommand() command {
	return command{
		name: "tools series delete",
		help: "Ask for the deletion of samples of series: reads do not find them from now on, and after a delay compactors " +
			"make the blocks anew that have them, now and later. Until then it can be undone.",
		first: []string{"objstore.config-file", "match", "start", "end", "delay", "reason"},
		subject: subject{"What to delete", []string{"match", "start", "end", "delay", "reason", "count", "tmp.dir", "dry-run",
			"output"}},
		bind: bindSeriesDelete,
	}
}

func bindSeriesDelete(c *kingpin.CmdClause) func(*builder) {
	var (
		f          tenantToolFlags
		selectors  []string
		start, end moment
		delay      = deletion.DefaultDelay
		count      bool
		dir        string
	)
	f.bind(c, "asks for the deletion")
	c.Flag("match", "Selector of the series, such as 'up{job=\"a\"}'. May be given several times: one of them must "+
		"match.").PlaceHolder("SELECTOR").Required().StringsVar(&selectors)
	c.Flag("start", "Time of the first sample that goes: as of RFC 3339, or a duration before now such as -2w. Without "+
		"it all go that are older than --end.").PlaceHolder("TIME").SetValue(&start)
	c.Flag("end", "Time of the last sample that goes. What is later than the request stays in any case.").
		PlaceHolder("TIME").Default("0s").SetValue(&end)
	durationFlag(c, "delay", "Time until blocks are made anew. It can be undone in all of it but the last 10m, or the "+
		"last quarter if that is less.", &delay)
	c.Flag("count", "In a dry run, read the indexes of the blocks, and count the series that have such samples.").
		Default("true").BoolVar(&count)
	c.Flag("tmp.dir", "Directory for these indexes, one at a time.").
		Default(filepath.Join(os.TempDir(), "hearth-series")).StringVar(&dir)
	return func(b *builder) {
		id := f.id(b)
		bkt := f.bucket.build(b)
		b.runChangingTool(bkt, func(ctx context.Context) error {
			v, err := listToolBlocks(ctx, b, bkt, block.FetcherOptions{})
			if err != nil {
				return err
			}
			of, err := block.ReadIdentity(ctx, bkt)
			if err != nil {
				return err
			}
			now := time.Now()
			s := deletion.Series{Selectors: selectors, MaxTime: end.millis(now)}
			if start.text != "" {
				s.MinTime = start.millis(now)
			}
			p, err := change.DeleteSeries(v, of, id, s, now, change.Asked{By: whoAmI(), Tool: "tools series delete",
				Reason: f.reason, Delay: delay})
			if err != nil {
				return err
			}
			if f.dryRun {
				b.log.Info("nothing was changed: this is only a plan; --no-dry-run asks for it")
				found := int64(-1)
				if count {
					if found, err = countSeries(ctx, bkt, v, of, p, dir); err != nil {
						return err
					}
				}
				return writeSeriesPlan(b.stdout, f.output, "planned", p, found)
			}
			audit, err := change.ApplyDeletion(ctx, bkt, p.Request, time.Now)
			if err != nil {
				return err
			}
			b.log.Info("the deletion is asked for", "tenant", id, "request", p.Request.ID.String(), "audit", audit)
			return writeSeriesPlan(b.stdout, f.output, "asked", p, -1)
		})
	}
}

// countSeries counts the series of the blocks of a plan that may have samples which it deletes. One that is in several
// blocks counts in each.
func countSeries(ctx context.Context, bkt objstore.BucketReader, v block.View, of block.Identity, p change.SeriesPlan,
	dir string) (n int64, err error) {
	for _, id := range p.Blocks {
		m := v.Metas[id]
		added := labels.NewBuilder(labels.FromMap(m.Thanos.Labels)).Del(of.TenantLabel, of.ReplicaLabel).Labels()
		deletes := rewrite.DeletionsOf([]*block.Request{{Request: p.Request}}, added)
		if len(deletes) == 0 {
			continue
		}
		some, err := rewrite.Matches(ctx, bkt, m, deletes, dir, 0)
		if err != nil {
			return n, err
		}
		n += int64(some)
	}
	return n, nil
}

// writeSeriesPlan says what a deletion is about. series is how many series were found, -1 if they were not counted.
func writeSeriesPlan(w io.Writer, output, result string, p change.SeriesPlan, series int64) error {
	if output == "json" {
		out := struct {
			Result string `json:"result"`
			change.SeriesPlan
			Series *int64 `json:"series,omitempty"`
		}{result, p, nil}
		if series >= 0 {
			out.Series = &series
		}
		return json.NewEncoder(w).Encode(out)
	}
	r := &p.Request
	_, err := fmt.Fprintf(w, "%s: delete samples of tenant %q, request %s\nseries                  %s\n"+
		"from                    %s\nto                      %s\nreads do not find them from %s on\n"+
		"it can be undone until  %s\nblocks are made anew at %s\nblocks in that range: %d, %d bytes\n", result, r.Tenant,
		r.ID, strings.Join(r.Series.Selectors, " or "), textTime(r.Series.MinTime), textTime(r.Series.MaxTime),
		textTime(r.Asked), textTime(r.UndoUntil), textTime(r.Due), len(p.Blocks), p.Bytes)
	if err == nil && series >= 0 {
		_, err = fmt.Fprintf(w, "series in these that have some: %d (one that is in several blocks counts in each)\n", series)
	}
	return err
}

func seriesUndeleteCommand() command {
	return command{
		name: "tools series undelete",
		help: "Undo a deletion of series that is not due yet: all is found again. With --end, end one that is due: samples " +
			"which come into its range from then on stay.",
		first:   []string{"objstore.config-file", "end", "reason"},
		subject: subject{"What to undo", []string{"end", "reason", "dry-run", "output"}},
		bind:    bindSeriesUndelete,
	}
}

func bindSeriesUndelete(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket         toolBucketFlags
		request        string
		reason, output string
		dryRun, end    bool
	)
	bucket.bind(c)
	c.Arg("request", "Id of the request, as the list has it.").Required().StringVar(&request)
	c.Flag("reason", "Why, for people: it is kept in the bucket.").StringVar(&reason)
	c.Flag("dry-run", "Only say what would be done. It is the default: --no-dry-run does it.").Default("true").
		BoolVar(&dryRun)
	c.Flag("end", "The deletion is due: end it. What blocks still have of the samples is found again.").BoolVar(&end)
	bindOutput(c, &output, "text or json")
	return func(b *builder) {
		id, err := ulid.ParseStrict(request)
		if err != nil {
			b.check(errs.E(errs.Invalid, "request %q: %w", request, err))
		}
		bkt := bucket.build(b)
		b.runChangingTool(bkt, func(ctx context.Context) error {
			list, err := deletion.NewReader(bkt).Read(ctx)
			if err != nil {
				return err
			}
			e, err := change.UndeleteSeries(list, id, end, time.Now())
			if err != nil {
				return err
			}
			u := undoing{tool: "tools series undelete", reason: reason, output: output, dryRun: dryRun}
			if end {
				u.ends = deletion.Ended
			}
			return u.apply(ctx, b, bkt, e)
		})
	}
}

func seriesListCommand() command {
	return command{
		name: "tools series list",
		help: "List the deletions of series that were asked for, the oldest first, with their state: waiting, held, " +
			"undone, due or ended.",
		first:   []string{"objstore.config-file", "output"},
		subject: subject{"Output", []string{"output", "tenant"}},
		bind:    bindSeriesList,
	}
}

func bindSeriesList(c *kingpin.CmdClause) func(*builder) {
	var (
		bucket       toolBucketFlags
		output, name string
	)
	bucket.bind(c)
	bindOutput(c, &output, "text or json")
	c.Flag("tenant", "Only those of this tenant.").StringVar(&name)
	return func(b *builder) {
		bkt := bucket.build(b)
		b.runTool(func(ctx context.Context) error {
			list, err := deletion.NewReader(bkt).Read(ctx)
			if err != nil {
				return err
			}
			for object, err := range list.Unreadable() {
				b.log.Error("an object cannot be read, and has no effect", "object", object, "err", err)
			}
			all := list.SeriesRequests()
			if name != "" {
				all = list.SeriesOf(tenant.ID(name))
			}
			return writeSeriesRequests(b.stdout, output, all, time.Now())
		})
	}
}

func writeSeriesRequests(w io.Writer, output string, all []*deletion.Entry, now time.Time) error {
	for _, e := range all {
		var err error
		if output == "json" {
			err = json.NewEncoder(w).Encode(struct {
				State deletion.State `json:"state"`
				deletion.Request
			}{e.State(now), e.Request})
		} else {
			_, err = fmt.Fprintf(w, "%s %s %q %q from %s to %s asked %s by %s due %s: %q\n", e.ID, e.State(now), e.Tenant,
				strings.Join(e.Series.Selectors, " or "), textTime(e.Series.MinTime), textTime(e.Series.MaxTime),
				textTime(e.Asked), e.By, textTime(e.Due), e.Reason)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
