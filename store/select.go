package store

import (
	"context"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/rewrite"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tracing"
)

// Select implements series.Source. A block that is found faulty or gone on the way ends early with a warning that
// names it and the object; errors are of kind Limited (MaxRequestBytes), Exhausted (memory, open requests) or
// Unavailable (the bucket, the caller's context, no sync yet).
func (g *Gateway) Select(ctx context.Context, r *series.Request) series.Set {
	return g.selectFrom(ctx, r, hearthView)
}

// labelView is how a caller sees the labels of a tenant's streams.
type labelView struct {
	// add gives the series the external labels, without those of tenant and replica.
	add bool
	// only chooses the streams; nil means all of them.
	only func(*stream) bool
}

// hearthView is that of Hearth's own callers.
var hearthView = labelView{add: true}

// streamSource is one stream as Thanos sees it.
type streamSource struct {
	g        *Gateway
	external labels.Labels
}

func (s *streamSource) labelView() labelView {
	return labelView{only: func(st *stream) bool { return labels.Equal(st.external, s.external) }}
}

// Select implements series.Source.
func (s *streamSource) Select(ctx context.Context, r *series.Request) series.Set {
	return s.g.selectFrom(ctx, r, s.labelView())
}

// Info implements series.Source.
func (s *streamSource) Info(ctx context.Context) (series.Info, error) {
	info, err := s.g.Info(ctx)
	info.Labels = []labels.Labels{s.external}
	return info, err
}

// group holds streams that are replicas of each other: they differ in no label that a request sees.
type group struct {
	added    labels.Labels
	matchers []*labels.Matcher // without those on added, which match
	streams  []*stream
}

// groups resolves matchers on external labels, and groups the streams that remain. Without add nothing is external.
func (v labelView) groups(t *tenantBlocks, ms []*labels.Matcher) []*group {
	classes := make([]*group, max(len(t.added), 1)) // by stream.class; without add there is one
	var out []*group
	for _, st := range t.streams {
		if v.only != nil && !v.only(st) {
			continue
		}
		class, added := 0, labels.EmptyLabels()
		if v.add {
			class, added = st.class, t.added[st.class]
		}
		if classes[class] == nil {
			classes[class] = &group{added: added}
			if rest, ok := series.Resolve(ms, added); ok {
				classes[class].matchers = rest
				out = append(out, classes[class])
			}
		}
		classes[class].streams = append(classes[class].streams, st)
	}
	return out
}

// request is one select, or one request for labels, that is under way. It holds blocks and memory until end.
type request struct {
	*series.Request
	g      *Gateway
	ctx    context.Context
	cancel context.CancelFunc
	lease  *lease
	wg     sync.WaitGroup // reads of its blocks
	held   []*bucketBlock

	choice   choice
	hidden   []*block.Request // the requests for series whose samples it does not find
	coverage series.Coverage  // what the response covers, if none of its blocks turns out to be lost

	mu sync.Mutex // guards warnings while blocks are asked for labels
	// warnings name the blocks that should answer and cannot.
	warnings series.Warnings
}

// begin admits a request, and holds the blocks that it reads, of those that which returns.
func (g *Gateway) begin(ctx context.Context, r *series.Request, v labelView, which picker) (*request, error) {
	l, err := g.budget.open(ctx, r.Tenant)
	if err != nil {
		return nil, err
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	s := g.current
	if s == nil {
		l.close()
		return nil, errs.E(errs.Unavailable, "store gateway: the bucket's blocks are not loaded")
	}
	r, some := g.clamped(s, r)
	q := &request{Request: r, g: g, lease: l}
	q.ctx, q.cancel = context.WithCancel(ctx)
	if some {
		q.warnings = s.warnings(r)
		if t := s.tenants[r.Tenant]; t != nil {
			q.choice = t.choose(r, v, which)
			q.hidden = s.hidden(r, g.opts.Now)
		}
	}
	if !g.opts.Chosen() {
		q.coverage = q.choice.coverage(g.holding(), r.Blocks)
	}
	for _, c := range q.choice.groups {
		for _, p := range c.pieces {
			p.b.hold()
			q.held = append(q.held, p.b)
		}
	}
	return q, nil
}

// tellQueried tells the caller what t counts of the blocks that are read.
func (q *request) tellQueried(t *tally) {
	var ids []ulid.ULID
	for _, c := range q.choice.groups {
		for _, p := range c.pieces {
			ids = append(ids, p.b.meta.ULID)
		}
	}
	series.TellQueried(q.ctx, func() series.Queried { return t.queried(ids) })
}

// end stops the reads, waits for them, and gives back all that the request holds. It is idempotent. Only one goroutine
// calls it.
func (q *request) end() {
	q.cancel()
	q.wg.Wait()
	for _, b := range q.held {
		b.release()
	}
	q.held = nil
	q.lease.close()
}

func (g *Gateway) selectFrom(ctx context.Context, r *series.Request, v labelView) series.Set {
	g.metrics.requests.WithLabelValues("select").Inc()
	g.catchUp(ctx, r.Blocks.View)
	ctx, span := tracing.Start(ctx, "gateway select")
	ctx, counted := withTally(ctx)
	s := &requestSet{g: g, ctx: ctx, request: r, view: v, span: span, tally: counted}
	if err := s.plan(); err != nil {
		span.End(err)
		return series.Failed(err)
	}
	span.Number("blocks", len(s.q.held))
	return s
}

// requestSet is the set that a select returns: that of all blocks merged, cut by shard and limit. All blocks begin to
// be read at once.
type requestSet struct {
	series.Set
	g       *Gateway
	ctx     context.Context
	request *series.Request
	view    labelView
	span    tracing.Span // from the call of Select to Close

	q       *request
	blocks  []*blockSet
	started bool
	closed  bool
	yielded int
	tally   *tally
}

// plan begins the request: it chooses from the blocks that are served now.
func (s *requestSet) plan() error {
	r := s.request
	q, err := s.g.begin(s.ctx, r, s.view, pieces)
	if err != nil {
		return err
	}
	s.q, s.blocks = q, nil
	var sets []series.Set
	for _, c := range q.choice.groups {
		// A filter that needs no other labels than a block has is applied there, before chunks are read.
		plain := c.added.IsEmpty() && len(r.WithoutLabels) == 0
		var parts []series.Set
		for _, p := range c.pieces {
			b := newBlockSet(q, p, c.matchers, plain)
			s.blocks = append(s.blocks, b)
			parts = append(parts, rewrite.Hide(series.Checked(b, "block "+p.b.meta.ULID.String()), b.hidden))
		}
		sets = append(sets, series.Relabel(series.Merge(parts...), c.added, r.WithoutLabels, s.g.opts.RelabelBytes))
	}
	s.Set = series.Merge(sets...)
	return nil
}

// start begins to read all blocks, and waits for the first series of each, which a merge needs before it yields
// anything. If blocks turn out to be gone or broken, the request is planned anew with what is served instead.
func (s *requestSet) start() {
	s.started = true
	for plans := 1; ; plans++ {
		for _, b := range s.blocks {
			b.launch()
		}
		var all []*lost
		for _, b := range s.blocks {
			if l := lostOf(b.first()); l != nil {
				all = append(all, l)
			}
		}
		if len(all) == 0 || plans == maxPlans || !s.g.replan(s.ctx, all) {
			series.TellCoverage(s.ctx, s.q.coverage)
			s.q.tellQueried(s.tally)
			return
		}
		s.Set.Close()
		s.q.end()
		if err := s.plan(); err != nil {
			s.Set, s.blocks = series.Failed(err), nil
			return
		}
	}
}

func (s *requestSet) Next() bool {
	if s.closed {
		return false
	}
	if !s.started {
		s.start()
	}
	if s.q.Limit > 0 && s.yielded >= s.q.Limit {
		return false
	}
	for s.Set.Next() {
		if s.q.Shard.Has(s.Set.At().Labels) {
			s.yielded++
			s.tally.series(&s.g.metrics.thanos, s.Set.At())
			return true
		}
	}
	return false
}

func (s *requestSet) Warnings() series.Warnings {
	return append(slices.Clone(s.q.warnings), s.Set.Warnings()...)
}

// Close ends the reads and gives back all that the request holds.
func (s *requestSet) Close() error {
	if !s.closed {
		s.g.metrics.thanos.selected(s.tally, len(s.blocks))
	}
	s.closed = true
	failed := s.Set.Err()
	err := s.Set.Close()
	s.q.end()
	s.span.End(failed)
	return err
}
