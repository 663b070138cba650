package sidecar

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// view is Prometheus as one kind of caller sees it.
type view struct {
	*Sidecar
	// thanos says that the caller knows tenants as labels, and that a request without a matcher of its own is a mistake.
	thanos bool
}

// request is a question to Prometheus.
type request struct {
	matchers   []*labels.Matcher // for Prometheus
	mint, maxt int64
	added      labels.Labels // external labels that series get; they win over labels of their own
	without    []string      // labels that series lose
}

// changed are the names of all labels that series get or lose.
func (q *request) changed() []string {
	names := slices.Clone(q.without)
	q.added.Range(func(l labels.Label) { names = append(names, l.Name) })
	slices.Sort(names)
	return slices.Compact(names)
}

// kept are the labels that series have in the end, of those that are added.
func (q *request) kept() labels.Labels { return labels.NewBuilder(q.added).Del(q.without...).Labels() }

// external are the labels that series get for this kind of caller.
func (v view) external(known settings) labels.Labels {
	if v.thanos && v.opts.MarkTenant {
		return labels.NewBuilder(known.labels).Set(v.opts.TenantLabel, string(v.opts.Tenant)).Labels()
	}
	return known.labels
}

// plan is what to ask Prometheus for r. False means that nothing of this Prometheus can match.
func (v view) plan(r *series.Request) (*request, bool, error) {
	if r.Tenant != v.opts.Tenant {
		return nil, false, nil
	}
	known, err := v.known()
	if err != nil {
		return nil, false, err
	}
	q := &request{mint: max(r.MinTime, v.from(known)), maxt: r.MaxTime, added: v.external(known), without: r.WithoutLabels}
	var ok bool
	q.matchers, ok = series.Resolve(r.Matchers, q.added)
	return q, ok && q.mint <= q.maxt, nil
}

// from is the time in ms before which nothing is served.
func (s *Sidecar) from(known settings) int64 {
	if s.opts.MinTime == nil {
		return known.lowest
	}
	return max(known.lowest, s.opts.MinTime(time.Now()))
}

// Select implements series.Source. Series have the external labels of Prometheus.
func (s *Sidecar) Select(ctx context.Context, r *series.Request) series.Set {
	return view{Sidecar: s}.Select(ctx, r)
}

// Select implements series.Source.
func (v view) Select(ctx context.Context, r *series.Request) series.Set {
	q, ok, err := v.plan(r)
	switch {
	case err != nil:
		return series.Failed(err)
	case !ok:
		return series.Empty()
	case len(q.matchers) == 0 && v.thanos:
		return series.Failed(errs.E(errs.Invalid, "no matchers specified, except for external labels: they would select all "+
			"of Prometheus"))
	case len(q.matchers) == 0:
		q.matchers = []*labels.Matcher{series.Everything}
	}
	var set series.Set
	if r.SkipChunks {
		set, err = v.withoutChunks(ctx, q, r)
	} else {
		set, err = v.withChunks(ctx, q)
	}
	if err != nil {
		v.failed(ctx, err)
		return series.Failed(err)
	}
	if r.Shard.Count > 1 {
		set = shardSet{set, r.Shard}
	}
	return series.Limit(set, r.Limit)
}

// failed has Prometheus looked at when a request failed for its sake.
func (s *Sidecar) failed(ctx context.Context, err error) {
	if ctx.Err() == nil && errs.KindOf(err) == errs.Unavailable {
		s.lookAgain()
	}
}

// shardSet is the part of a set that a shard wants.
type shardSet struct {
	series.Set
	shard series.Shard
}

func (s shardSet) Next() bool {
	for s.Set.Next() {
		if s.shard.Has(s.At().Labels) {
			return true
		}
	}
	return false
}

// withoutChunks lists series. They are held in memory and sorted, since Prometheus lists them in no order.
func (v view) withoutChunks(ctx context.Context, q *request, r *series.Request) (series.Set, error) {
	var all []series.Series
	held := int64(0)
	relabel := series.Relabeler(q.added, q.without...)
	limit := r.Limit
	if len(q.without) > 0 || r.Shard.Count > 1 {
		limit = 0 // series may become equal, or be left out
	}
	release, err := v.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	warnings, err := v.client.Series(ctx, q.matchers, q.mint, q.maxt, limit, func(own labels.Labels) error {
		ls := relabel(own)
		held += int64(ls.ByteSize()) + 64
		if held > v.opts.SortBudget && v.opts.SortBudget > 0 {
			return errs.E(errs.Exhausted, "the list of series takes more than %d bytes: select fewer series", v.opts.SortBudget)
		}
		all = append(all, series.Series{Labels: ls})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	all = slices.CompactFunc(all, func(a, b series.Series) bool { return labels.Equal(a.Labels, b.Labels) })
	return series.List(all, warnings...), nil
}

// withChunks reads series with their chunks. Where no series has a label of its own among those that change, they come
// in an order that is almost right already, and pass through. Else they are sorted in groups.
func (v view) withChunks(ctx context.Context, q *request) (series.Set, error) {
	release, err := v.acquire(ctx)
	if err != nil {
		return nil, err
	}
	set, err := v.read(ctx, q)
	if err != nil {
		release()
		return nil, err
	}
	return &heldSet{Set: set, release: release, failed: func(err error) { v.failed(ctx, err) }}, nil
}

func (v view) read(ctx context.Context, q *request) (series.Set, error) {
	changed := q.changed()
	own, err := v.haveOwn(ctx, q, changed)
	if err != nil {
		return nil, err
	}
	matchers := q.matchers
	if !own {
		// A series with such a label that comes just now is left out, as if it came after the request.
		for _, name := range changed {
			matchers = append(slices.Clip(matchers), labels.MustNewMatcher(labels.MatchEqual, name, ""))
		}
	}
	answer, err := v.client.Read(ctx, matchers, q.mint, q.maxt, v.sampledBudget())
	if err != nil {
		return nil, err
	}
	switch {
	case answer.Frames == nil:
		return series.Relabel(&samplesSet{in: answer.Samples}, q.added, q.without, v.opts.SortBudget), nil
	case own:
		v.m.resorted.Inc()
		frames := newFrameSet(v.Sidecar, answer.Frames, labels.EmptyLabels(), nil)
		return series.Relabel(frames, q.added, q.without, v.opts.SortBudget), nil
	}
	return newFrameSet(v.Sidecar, answer.Frames, q.kept(), changed), nil
}

// sampledBudget bounds a response of samples in bytes.
func (s *Sidecar) sampledBudget() int64 {
	if s.opts.SortBudget > 0 {
		return s.opts.SortBudget
	}
	return math.MaxInt32
}

// haveOwn reports whether a series that q selects has a label of its own among names. In most cases the index of
// Prometheus has no such name, which costs it nothing to find.
func (v view) haveOwn(ctx context.Context, q *request, names []string) (bool, error) {
	for _, name := range names {
		for _, ms := range [][]*labels.Matcher{nil, q.matchers} {
			values, _, err := v.client.LabelValues(ctx, name, ms, q.mint, q.maxt, 1)
			if err != nil {
				return false, err
			}
			if len(values) == 0 {
				break
			}
			if ms != nil {
				return true, nil
			}
		}
	}
	return false, nil
}

// acquire waits until one more read may be made. The caller calls release.
func (s *Sidecar) acquire(ctx context.Context) (release func(), err error) {
	if err := s.reads.Acquire(ctx, 1); err != nil {
		return nil, errs.E(errs.Unavailable, "%d reads of Prometheus are under way: %w", s.opts.MaxReads, err)
	}
	s.m.reads.Inc()
	return func() {
		s.m.reads.Dec()
		s.reads.Release(1)
	}, nil
}

// heldSet is a set that holds one of the reads until it is closed.
type heldSet struct {
	series.Set
	release func()
	failed  func(error)
}

func (s *heldSet) Close() error {
	if s.release == nil {
		return nil
	}
	if err := s.Err(); err != nil {
		s.failed(err)
	}
	err := s.Set.Close()
	s.release()
	s.release = nil
	return err
}

// samplesSet is a response of samples as chunks.
type samplesSet struct {
	in  storage.SeriesSet
	at  series.Series
	err error
}

func (s *samplesSet) Next() bool {
	for s.err == nil && s.in.Next() {
		one := s.in.At()
		var chunks []series.Chunk
		if chunks, s.err = encode(one); s.err != nil {
			return false
		}
		if len(chunks) > 0 { // Prometheus may name series without samples
			s.at = series.Series{Labels: one.Labels(), Chunks: chunks}
			return true
		}
	}
	return false
}

func (s *samplesSet) At() series.Series { return s.at }

func (s *samplesSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.in.Err()
}

func (s *samplesSet) Warnings() series.Warnings { return nil }
func (s *samplesSet) Close() error              { return nil }

// Streams implements series.Streamer: all of Prometheus is one stream of the one tenant.
func (s *Sidecar) Streams(id tenant.ID) []series.Stream {
	if id != s.opts.Tenant {
		return nil
	}
	known, _ := s.known() // without external labels while nothing is known, which calls of the source say
	v := view{s, true}
	return []series.Stream{{External: v.external(known), Source: v, Shown: true}}
}

// Info implements series.Source. It is an error while Prometheus does not answer, so that queriers know it as missing.
func (s *Sidecar) Info(context.Context) (series.Info, error) {
	if err := s.Ready(); err != nil {
		return series.Info{}, err
	}
	known, err := s.known()
	if err != nil {
		return series.Info{}, err
	}
	return series.Info{
		Role: series.RoleSidecar, MinTime: s.from(known), MaxTime: math.MaxInt64,
		Tenants: []tenant.ID{s.opts.Tenant}, Labels: []labels.Labels{view{s, true}.external(known)},
	}, nil
}
