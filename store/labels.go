package store

import (
	"context"
	"errors"
	"maps"
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
	ofBlock := func(ctx context.Context, q *request, w whole) (names []string, err error) {
		if len(w.rest) > 0 {
			names, err = q.matchingNames(ctx, w)
		} else if h, openErr := w.b.Header(ctx); openErr == nil {
			names = slices.Clone(h.LabelNames())
		} else {
			err = openErr
		}
		if err == nil && (len(names) > 0 || len(w.rest) == 0) {
			w.added.Range(func(l labels.Label) { names = append(names, l.Name) })
		}
		return names, err
	}
	w, err := g.collect(ctx, r, v, found, ofBlock)
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
		all := walk{name: name, match: notEmpty, limit: r.Limit, named: true}
		err = ix.walk(ctx, &all)
		return all.values, err
	}
	w, err := g.collect(ctx, r, v, found, ofBlock)
	return sorted(found, r.Limit), w, err
}

func notEmpty(v string) bool { return v != "" }

// reading waits until q may read, and opens the index of b. The caller ends the read with done.
func (q *request) reading(ctx context.Context, b *bucketBlock) (ix *blockIndex, done func(), err error) {
	if done, err = q.lease.reading(ctx); err != nil {
		return nil, nil, err
	}
	ix = newBlockIndex(b, q.g.objects, q.lease)
	if err := ix.open(ctx); err != nil {
		done()
		return nil, nil, err
	}
	return ix, done, nil
}

// matchingNames are the names of the labels of the series of a block that the remaining matchers select; none if there
// are no such series.
func (q *request) matchingNames(ctx context.Context, w whole) (names []string, err error) {
	ix, done, err := q.reading(ctx, w.b)
	if err != nil {
		return nil, err
	}
	defer done()
	s, err := ix.matching(ctx, w.rest)
	if err != nil || len(s.refs) == 0 {
		return nil, err
	}
	e, lists := ix.entries(), ix.header.IndexSize()-ix.header.SeriesRange().End
	if len(s.late) > 0 || e.cost(int64(len(s.refs))) < lists {
		seen := map[uint32]bool{}
		err := q.eachEntry(ctx, ix, s, func(e *indexEntry) error {
			for i := 0; i < len(e.symbols); i += 2 {
				if seen[e.symbols[i]] {
					continue
				}
				name, err := ix.symbols.lookup(ctx, e.symbols[i])
				if err != nil {
					return err
				}
				seen[e.symbols[i]], names = true, append(names, name)
			}
			return nil
		})
		return names, err
	}
	for _, name := range ix.header.LabelNames() {
		if q.Limit > 0 && len(names) == q.Limit+len(q.WithoutLabels) {
			break
		}
		all := walk{name: name, match: notEmpty}
		if err := ix.walk(ctx, &all); err != nil {
			return nil, err
		}
		which, err := ix.intersecting(ctx, s.refs, all.lists, 1)
		if err != nil {
			return nil, err
		}
		if len(which) > 0 {
			names = append(names, name)
		}
	}
	return names, nil
}

// matchingValues are the values of label name that the series of a block have which the remaining matchers select, or
// just added if the block has the label as a whole. It intersects the postings of each value with those of the
// series, unless the entries of the series take less.
func (q *request) matchingValues(ctx context.Context, w whole, name, added string) ([]string, error) {
	ix, done, err := q.reading(ctx, w.b)
	if err != nil {
		return nil, err
	}
	defer done()
	all := walk{name: name, match: notEmpty, limit: q.Limit, named: true}
	cs := conditions(w.rest)
	own := slices.IndexFunc(cs, func(c *condition) bool { return c.name == name })
	if own >= 0 {
		all.match = func(v string) bool { return v != "" && cs[own].matches(v) }
		if !cs[own].without {
			all.prefix = cs[own].prefix()
		}
		if len(cs) == 1 && added == "" { // the header alone knows
			err := ix.walk(ctx, &all)
			return all.values, err
		}
	}
	s, err := ix.matching(ctx, w.rest)
	if err != nil || len(s.refs) == 0 {
		return nil, err
	}
	if added != "" {
		if some, err := q.some(ctx, ix, s); !some || err != nil {
			return nil, err
		}
		return []string{added}, nil
	}
	if all.limit, all.most = 0, ix.entries().cost(int64(len(s.refs))); len(s.late) == 0 {
		if err := ix.walk(ctx, &all); err != nil {
			return nil, err
		}
	}
	if len(s.late) > 0 || all.stopped {
		return q.valuesOf(ctx, ix, s, name)
	}
	which, err := ix.intersecting(ctx, s.refs, all.lists, q.Limit)
	values := make([]string, len(which))
	for i, at := range which {
		values[i] = all.values[at]
	}
	return values, err
}

// intersecting returns which of the lists have one of refs, in order: the first limit of them, or all for 0. Lists
// behind these are not read, except for some that are read with them.
func (ix *blockIndex) intersecting(ctx context.Context, refs []storage.SeriesRef, ranges []index.Range,
	limit int) (which []int, err error) {
	for first, n := 0, max(limit, 1); first < len(ranges) && (limit <= 0 || len(which) < limit); n *= 4 {
		last := len(ranges)
		if limit > 0 {
			last = min(first+n, last)
		}
		lists, err := ix.lists(ctx, ranges[first:last])
		if err != nil {
			return nil, err
		}
		for i, p := range lists {
			common, err := intersects(refs, p)
			if err != nil {
				return nil, err
			}
			if common {
				which = append(which, first+i)
			}
		}
		first = last
	}
	if limit > 0 && len(which) > limit {
		which = which[:limit]
	}
	return which, nil
}

// intersects reports whether p has one of refs. Both are sorted; each skips what the other does not have.
func intersects(refs []storage.SeriesRef, p index.Postings) (bool, error) {
	for len(refs) > 0 && p.Seek(refs[0]) {
		at, found := slices.BinarySearch(refs, p.At())
		if found {
			return true, nil
		}
		refs = refs[at:]
	}
	return false, p.Err()
}

// valuesOf reads the values of label name from the entries of series.
func (q *request) valuesOf(ctx context.Context, ix *blockIndex, s selection, name string) (values []string, err error) {
	seen := map[string]bool{}
	err = q.eachEntry(ctx, ix, s, func(e *indexEntry) error {
		v, err := ix.symbols.value(ctx, e, name)
		if v != "" && !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
		return err
	})
	return values, err
}

// some reports whether the selection has any series.
func (q *request) some(ctx context.Context, ix *blockIndex, s selection) (some bool, err error) {
	if len(s.late) == 0 {
		return len(s.refs) > 0, nil
	}
	err = q.eachEntry(ctx, ix, s, func(*indexEntry) error {
		some = true
		return errEnough
	})
	return some, err
}

// errEnough ends a look at the entries of series.
var errEnough = errors.New("no more entries are needed")

// eachEntry calls f with the entries of a selection until it returns errEnough. Faulty ones are skipped, with a
// warning.
func (q *request) eachEntry(ctx context.Context, ix *blockIndex, s selection, f func(*indexEntry) error) error {
	faults := series.Faults{From: "block " + ix.b.meta.ULID.String()}
	skip := func(err error) { faults.Add("series", err.Error) }
	for len(s.refs) > 0 {
		n, err := ix.series(ctx, s.refs[:min(batchSeries, len(s.refs))], func(e *indexEntry) error {
			if ok, err := ix.meets(ctx, e, s.late); !ok || err != nil {
				return err
			}
			return f(e)
		}, skip)
		if errors.Is(err, errEnough) {
			break
		}
		if err != nil {
			return err
		}
		s.refs = s.refs[n:]
	}
	q.warn(faults.Warnings()...)
	return nil
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

// collect adds to found what ofBlock says of each block that answers r. Blocks of all resolutions answer: they have the
// same labels, and often only the coarse ones are left.
func (g *Gateway) collect(ctx context.Context, r *series.Request, v labelView, found map[string]bool,
	ofBlock func(context.Context, *request, whole) ([]string, error)) (series.Warnings, error) {
	g.catchUp(ctx, r.Blocks.View)
	for plans := 1; ; plans++ {
		q, err := g.begin(ctx, r, v, wholes)
		if err != nil {
			return nil, err
		}
		var local []whole
		for _, c := range q.choice.groups {
			for _, p := range c.pieces {
				local = append(local, whole{p.b, c.added, c.matchers})
			}
		}
		lost, err := q.eachBlock(ctx, local, found, ofBlock)
		q.end()
		if err != nil || len(lost) == 0 || plans == maxPlans || !g.replan(ctx, lost) {
			series.TellCoverage(ctx, q.coverage)
			q.tellQueried(new(tally))
			slices.Sort(q.warnings)
			return q.warnings, err
		}
	}
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
