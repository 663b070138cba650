package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/bench/blocks"
	"github.com/hearth-metrics/hearth/bench/gateway"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// query is one call of StoreAPI. Either series or values is set.
type query struct {
	name   string
	series *thanospb.SeriesRequest
	values *thanospb.LabelValuesRequest
}

// asked is what one query cost one gateway on one storage.
type asked struct {
	gateway        gateway.Kind
	storage        storage
	query          string
	series         int
	samples        int
	bytes          int // of the answer
	cold, warm     time.Duration
	coldCPU        float64        // s
	warmCPU        float64        // s, each time
	coldRequests   gateway.Counts // to the bucket
	warmRequests   gateway.Counts // each time
	answer         *gateway.Answer
	values         []string
	differs, fault string
}

// cachingBucket makes Thanos keep parts of objects in memory, as Hearth does by default. Other caches are as they are.
const cachingBucket = "--store.caching-bucket.config=" +
	"{type: IN-MEMORY, config: {max_size: 512MB, max_item_size: 64MB}}"

func cacheFlags(k gateway.Kind) []string {
	if k == gateway.Thanos {
		return []string{cachingBucket}
	}
	return nil
}

// measureQueries asks every query of every gateway, on the first bucket of small blocks and on the large block.
func (b *bed) measureQueries(ctx context.Context, rep *report) error {
	type part struct {
		bucket  func(context.Context) (bucket, error)
		queries func(blocks.Plan) []query
		name    string
	}
	parts := []part{
		{func(ctx context.Context) (bucket, error) { return b.small(ctx, b.opts.blocks[0]) }, smallQueries, "small blocks"},
		{b.large, largeQueries, "a large block"},
	}
	var faults []error
	for _, p := range parts {
		for _, s := range b.storages() {
			if !b.wanted(fmt.Sprintf("queries, %s, %s", p.name, s)) {
				continue
			}
			at, err := p.bucket(ctx)
			if err != nil {
				return err
			}
			if _, err := b.index(ctx, at, true); err != nil {
				faults = append(faults, err)
			}
			var first []asked // Hearth's, with which others are compared
			for _, k := range b.opts.kinds() {
				all, err := b.askAll(ctx, at, s, k, p.queries(at.plan))
				if err != nil {
					faults = append(faults, fmt.Errorf("queries, %s, %s: %w", at.name, k, err))
				}
				if first == nil {
					first = all
				} else {
					faults = append(faults, compare(first, all)...)
				}
				for _, a := range all {
					fmt.Fprintf(b.log, "  %s\n", a)
				}
				rep.asked[p.name] = append(rep.asked[p.name], all...)
			}
			for i := range rep.asked[p.name] { // the answers are large, and no longer needed
				rep.asked[p.name][i].answer = nil
			}
		}
	}
	return errors.Join(faults...)
}

// compare says of each query how the answers differ, in all and as an error.
func compare(first, all []asked) (faults []error) {
	for i := range min(len(first), len(all)) {
		a, h := &all[i], first[i]
		switch {
		case a.fault != "" || h.fault != "":
			a.differs = "not compared"
			continue
		case a.answer != nil:
			a.differs = gateway.Difference(h.answer, a.answer)
		case !slices.Equal(a.values, h.values):
			a.differs = fmt.Sprintf("%d values instead of %d", len(h.values), len(a.values))
		}
		if a.differs != "" {
			faults = append(faults, fmt.Errorf("query %q: Hearth's answer differs from Thanos's: %s", a.query, a.differs))
		}
	}
	return faults
}

// askAll starts a gateway with an empty disk and asks all queries in turn: each once, and then many times.
func (b *bed) askAll(ctx context.Context, at bucket, s storage, k gateway.Kind, all []query) (out []asked, err error) {
	dir := filepath.Join(b.opts.data, "gateway")
	g, err := b.launch(k, b.config(s, at), dir, cacheFlags(k)...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Stop(), os.RemoveAll(dir)) }()
	if err := g.WaitReady(ctx, b.opts.deadline); err != nil {
		return nil, err
	}
	c, err := gateway.Dial(g.GRPC)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	profiled := b.profile(ctx, g, "queries-"+at.name+"-"+string(s))
	for _, q := range all {
		one := asked{gateway: k, storage: s, query: q.name}
		if err := b.ask(ctx, g, c, q, &one); err != nil {
			one.fault = err.Error()
		}
		out = append(out, one)
	}
	return out, <-profiled
}

// ask asks one query cold and warm.
func (b *bed) ask(ctx context.Context, g *gateway.Gateway, c *gateway.Client, q query, out *asked) error {
	before, err := b.meter(ctx, g, out.storage)
	if err != nil {
		return err
	}
	began := time.Now()
	if out.answer, out.values, err = q.ask(ctx, c); err != nil {
		return err
	}
	out.cold = time.Since(began)
	cold, err := b.meter(ctx, g, out.storage)
	if err != nil {
		return err
	}
	out.coldRequests, out.coldCPU = cold.counts.Sub(before.counts), cold.cpu-before.cpu
	out.series = len(out.values)
	if out.answer != nil {
		out.bytes, out.series = out.answer.Bytes, len(out.answer.Series)
		if out.samples, err = out.answer.Samples(); err != nil {
			return err
		}
	}
	var took []time.Duration
	for range b.opts.rounds {
		began := time.Now()
		if _, _, err := q.ask(ctx, c); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	warm, err := b.meter(ctx, g, out.storage)
	if err != nil {
		return err
	}
	slices.Sort(took)
	n := float64(len(took))
	out.warm, out.warmCPU = took[len(took)/2], (warm.cpu-cold.cpu)/n
	out.warmRequests = warm.counts.Sub(cold.counts)
	for kind := range out.warmRequests.ByKind {
		out.warmRequests.ByKind[kind] /= n
	}
	out.warmRequests.Bytes /= n
	return nil
}

// metered is what a gateway has taken so far.
type metered struct {
	counts gateway.Counts
	cpu    float64
	peak   int64
}

func (b *bed) meter(ctx context.Context, g *gateway.Gateway, s storage) (metered, error) {
	counts, err := b.counts(ctx, s, g)
	if err != nil {
		return metered{}, err
	}
	usage, err := g.Process.Usage()
	return metered{counts, usage.CPU, usage.Peak}, err
}

func (q query) ask(ctx context.Context, c *gateway.Client) (*gateway.Answer, []string, error) {
	if q.values != nil {
		resp, err := c.LabelValues(ctx, q.values)
		return nil, resp.GetValues(), err
	}
	answer, err := c.Series(ctx, q.series)
	if err == nil && len(answer.Warnings) > 0 {
		err = fmt.Errorf("warnings: %q", answer.Warnings)
	}
	return answer, nil, err
}

// and appends a matcher of another kind.
func and(all []*thanospb.LabelMatcher, t thanospb.LabelMatcher_Type, name, value string) []*thanospb.LabelMatcher {
	return append(all, &thanospb.LabelMatcher{Type: t, Name: name, Value: value})
}

// smallQueries are what dashboards ask of one tenant.
func smallQueries(p blocks.Plan) []query {
	mint, maxt := p.Range()
	day, _ := p.LastDay()
	of := func(name string, from int64, m []*thanospb.LabelMatcher) query {
		return query{name: name, series: &thanospb.SeriesRequest{MinTime: from, MaxTime: maxt, Matchers: m}}
	}
	return []query{
		of("one tenant, one metric, a day", day, matchers("tenant_id", blocks.Tenant(7), "__name__", blocks.MetricName(1))),
		of("one tenant, one metric, all blocks", mint, matchers("tenant_id", blocks.Tenant(8),
			"__name__", blocks.MetricName(2))),
		of("one tenant, one namespace, all blocks", mint, matchers("tenant_id", blocks.Tenant(9),
			"namespace", blocks.Namespace(1))),
		// Thanos answers nothing if all matchers are on external labels.
		of("one tenant, everything, a day", day, and(matchers("tenant_id", blocks.Tenant(10)),
			thanospb.LabelMatcher_RE, "__name__", ".+")),
		of("one tenant, negative matchers, a day", day, and(and(matchers("tenant_id", blocks.Tenant(11),
			"__name__", blocks.MetricName(3)), thanospb.LabelMatcher_NEQ, "namespace", blocks.Namespace(0)),
			thanospb.LabelMatcher_NRE, "pod", ".*-003")),
		{name: "label values of pod, one tenant, a day", values: &thanospb.LabelValuesRequest{Label: "pod", Start: day,
			End: maxt, Matchers: matchers("tenant_id", blocks.Tenant(12), "namespace", blocks.Namespace(2))}},
	}
}

// largeQueries are of one block with many series, and of its downsampled forms.
func largeQueries(p blocks.Plan) []query {
	maxt := p.End.UnixMilli() - 1
	mint := p.End.Add(-p.Large.Range).UnixMilli()
	of := func(name string, resolution int64, m []*thanospb.LabelMatcher) query {
		req := &thanospb.SeriesRequest{MinTime: mint, MaxTime: maxt, Matchers: m, MaxResolutionWindow: resolution}
		if resolution > 0 {
			req.Aggregates = []thanospb.Aggr{thanospb.Aggr_COUNT, thanospb.Aggr_SUM}
		}
		return query{name: name, series: req}
	}
	few := and(nil, thanospb.LabelMatcher_RE, "namespace", "team-000[1-3]")
	return []query{
		{name: "label values of namespace (opens the blocks)", values: &thanospb.LabelValuesRequest{Label: "namespace",
			Start: mint, End: maxt}},
		of("one namespace of 1,000 series", 0, matchers("namespace", blocks.Namespace(1))),
		of("one metric, a twentieth of all series", 0, matchers("__name__", blocks.MetricName(3))),
		of("metric and namespace by patterns", 0, and(few, thanospb.LabelMatcher_RE, "__name__", "app_00[0-3]_.*")),
		of("native histograms, negative matchers", 0, and(and(matchers("__name__", blocks.MetricName(9), "namespace",
			blocks.Namespace(4)), thanospb.LabelMatcher_NEQ, "method", "GET"), thanospb.LabelMatcher_NRE, "pod", ".*-00[0-4]")),
		of("one namespace at 5m", 300_000, matchers("namespace", blocks.Namespace(5))),
		of("native histograms of a namespace at 5m", 300_000, matchers("__name__", blocks.MetricName(9), "namespace",
			blocks.Namespace(8))),
		of("one namespace at 1h", 3_600_000, matchers("namespace", blocks.Namespace(6))),
		{name: "label values of pod in a namespace", values: &thanospb.LabelValuesRequest{Label: "pod", Start: mint,
			End: maxt, Matchers: matchers("namespace", blocks.Namespace(7))}},
	}
}
