package store

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/internal/series"
)

// LabelNames implements series.Source. Without matchers a block answers for its whole time range, from its local
// header.
func (g *Gateway) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return g.names(ctx, r, hearthView)
}

// LabelNames implements series.Source.
func (s *streamSource) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return s.g.names(ctx, r, s.labelView())
}

// LabelValues implements series.Source. Without matchers a block answers for its whole time range, from its local
// header.
func (g *Gateway) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	return g.values(ctx, name, r, hearthView)
}

// LabelValues implements series.Source.
func (s *streamSource) LabelValues(ctx context.Context, name string,
	r *series.Request) ([]string, series.Warnings, error) {
	return s.g.values(ctx, name, r, s.labelView())
}

func (g *Gateway) names(ctx context.Context, r *series.Request, v labelView) ([]string, series.Warnings, error) {
	g.metrics.requests.WithLabelValues("names").Inc()
	found := map[string]bool{}
	ofBlock := func(ctx context.Context, _ *request, w whole) ([]string, error) {
		h, err := w.b.Header(ctx)
		if err != nil {
			return nil, err
		}
		names := slices.Clone(h.LabelNames())
		w.added.Range(func(l labels.Label) { names = append(names, l.Name) })
		return names, nil
	}
	w, err := g.collect(ctx, r, v, found, ofBlock, func(ls labels.Labels) {
		ls.Range(func(l labels.Label) {
			if !found[l.Name] {
				found[strings.Clone(l.Name)] = true
			}
		})
	})
	for _, name := range r.WithoutLabels {
		delete(found, name)
	}
	return sorted(found, r.Limit), w, err
}

func (g *Gateway) values(ctx context.Context, name string, r *series.Request,
	v labelView) ([]string, series.Warnings, error) {
	g.metrics.requests.WithLabelValues("values").Inc()
	found := map[string]bool{}
	if slices.Contains(r.WithoutLabels, name) {
		return nil, nil, nil
	}
	ofBlock := func(ctx context.Context, q *request, w whole) (values []string, err error) {
		value := w.added.Get(name)
		switch {
		case len(w.rest) > 0:
			return q.matchingValues(ctx, w, name, value)
		case value != "":
			return []string{value}, nil
		}
		ix := newBlockIndex(w.b, q.g.objects, q.lease)
		if err := ix.open(ctx); err != nil {
			return nil, err
		}
		values, _, err = ix.values(ctx, name, r.Limit, notEmpty)
		return values, err
	}
	w, err := g.collect(ctx, r, v, found, ofBlock, nil)
	return sorted(found, r.Limit), w, err
}

// usualEntry is about the size of a series entry of the index, in bytes.
const usualEntry = 128

// matchingValues are the values of label name that the series of a block have which the remaining matchers select, or
// just added if the block has the label as a whole. It intersects the postings of each value with those of the
// series, unless the entries of the series take less.
func (q *request) matchingValues(ctx context.Context, w whole, name, added string) (values []string, err error) {
	done, err := q.lease.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ix := newBlockIndex(w.b, q.g.objects, q.lease)
	if err := ix.open(ctx); err != nil {
		return nil, err
	}
	refs, err := ix.matching(ctx, slices.Clone(w.rest))
	switch {
	case err != nil || len(refs) == 0:
		return nil, err
	case added != "":
		return []string{added}, nil
	}
	all, ranges, err := ix.values(ctx, name, 0, notEmpty)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	bytes := int64(0)
	for _, at := range ranges {
		bytes += at.End - at.Start
	}
	if bytes > int64(len(refs))*usualEntry {
		return q.valuesOf(ctx, ix, refs, name)
	}
	lists, err := ix.lists(ctx, ranges)
	if err != nil {
		return nil, err
	}
	which, err := index.FindIntersectingPostings(index.NewListPostings(refs), lists)
	for _, i := range which {
		values = append(values, all[i])
	}
	return values, err
}

// valuesOf reads the values of label name from the entries of series.
func (q *request) valuesOf(ctx context.Context, ix *blockIndex, refs []storage.SeriesRef,
	name string) (values []string, err error) {
	seen := map[string]bool{}
	faults := series.Faults{From: "block " + ix.b.meta.ULID.String()}
	add := func(e *indexEntry) error {
		v, err := ix.symbols.value(ctx, e, name)
		if v != "" && !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
		return err
	}
	for len(refs) > 0 && err == nil {
		var n int
		n, err = ix.series(ctx, refs[:min(batchSeries, len(refs))], add, func(err error) { faults.Add("series", err.Error) })
		refs = refs[n:]
	}
	q.warn(faults.Warnings()...)
	return values, err
}

// warn adds to the warnings of the request, from any goroutine.
func (q *request) warn(texts ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.warnings = append(q.warnings, texts...)
}

// whole is a block that a request for labels asks.
type whole struct {
	b     *bucketBlock
	added labels.Labels
	rest  []*labels.Matcher // matchers on labels that are not external ones of b
}

// collect adds to found what ofBlock says of each block that answers r. If ofSeries is set, it gets the series of a
// request with matchers on labels that blocks do not have as a whole, instead. Blocks of all resolutions answer: they
// have the same labels, and often only the coarse ones are left.
func (g *Gateway) collect(ctx context.Context, r *series.Request, v labelView, found map[string]bool,
	ofBlock func(context.Context, *request, whole) ([]string, error),
	ofSeries func(labels.Labels)) (series.Warnings, error) {
	for plans := 1; ; plans++ {
		var local []whole
		withMatchers := false
		q, err := g.begin(ctx, r, func(t *tenantBlocks) (held []*bucketBlock) {
			for _, gr := range v.groups(t.streams, r.Matchers) {
				withMatchers = withMatchers || len(gr.matchers) > 0
				for _, st := range gr.streams {
					for _, b := range st.blocks {
						if b.meta.MinTime <= r.MaxTime && b.meta.MaxTime > r.MinTime {
							local, held = append(local, whole{b, gr.added, gr.matchers}), append(held, b)
						}
					}
				}
			}
			return held
		})
		if err != nil {
			return nil, err
		}
		if withMatchers && ofSeries != nil {
			q.end()
			return g.collectSeries(ctx, r, v, ofSeries)
		}
		lost, err := q.eachBlock(ctx, local, found, ofBlock)
		q.end()
		if err != nil || len(lost) == 0 || plans == maxPlans || !g.replan(ctx, lost) {
			slices.Sort(q.warnings)
			return q.warnings, err
		}
	}
}

// collectSeries calls ofSeries with the series that r selects.
func (g *Gateway) collectSeries(ctx context.Context, r *series.Request, v labelView,
	ofSeries func(labels.Labels)) (series.Warnings, error) {
	all := *r
	all.SkipChunks, all.Limit, all.MaxResolution, all.WithoutLabels = true, 0, math.MaxInt64, nil
	set := g.selectFrom(ctx, &all, v)
	defer set.Close()
	for set.Next() {
		ofSeries(set.At().Labels)
	}
	return set.Warnings(), set.Err()
}

// labelReads is how many blocks a request for labels reads at once.
const labelReads = 8

// eachBlock adds to found what ofBlock returns for each block. A block that is faulty is a warning; those that are gone
// or broken are returned, too.
func (q *request) eachBlock(ctx context.Context, local []whole, found map[string]bool,
	ofBlock func(context.Context, *request, whole) ([]string, error)) (all []*lost, err error) {
	var mu sync.Mutex // guards found and all
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(labelReads)
	for _, w := range local {
		eg.Go(func() error {
			values, err := ofBlock(ctx, q, w)
			if err != nil {
				err = q.g.judge(ctx, w.b, err)
			}
			if err != nil && !q.g.ofBlock(err) {
				return err
			}
			if err != nil {
				q.warn(missing{id: w.b.meta.ULID, err: err}.warning())
			}
			mu.Lock()
			defer mu.Unlock()
			if l := lostOf(err); l != nil {
				all = append(all, l)
			}
			for _, v := range values {
				if !found[v] {
					found[strings.Clone(v)] = true
				}
			}
			return ctx.Err()
		})
	}
	err = eg.Wait()
	return all, err
}

func sorted(found map[string]bool, limit int) []string {
	return series.SortedUnique(slices.Collect(maps.Keys(found)), limit)
}
