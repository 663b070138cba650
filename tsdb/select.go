package tsdb

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// reader returns an instance to read [mint, maxt] of tenant id from, and the function that gives it back. The
// instance is nil when the tenant has no sample there.
func (d *DB) reader(ctx context.Context, id tenant.ID, mint, maxt int64) (*instance, func(), error) {
	t := d.lookup(id)
	if t == nil || mint > maxt {
		return nil, nil, nil
	}
	t.mu.Lock()
	skip := t.state == Idle && !t.summary.Overlaps(mint, maxt)
	t.mu.Unlock()
	if skip {
		return nil, nil, nil
	}
	in, release, err := t.use(ctx)
	if errors.Is(err, errGone) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	end := in.reads.begin(ctx)
	return in, func() { end(); release() }, nil
}

// Select returns the series of one tenant. A set keeps the tenant's head and blocks open until Close: a cut waits for
// the sets whose range it touches. Of a quarantined tenant the set yields what is in good blocks, and then fails
// (Unavailable).
func (d *DB) Select(ctx context.Context, r *series.Request) series.Set {
	in, release, err := d.reader(ctx, r.Tenant, r.MinTime, r.MaxTime)
	switch {
	case err != nil:
		return d.selectBroken(ctx, r, err)
	case in == nil:
		return series.Empty()
	}
	set, err := openSet(ctx, in.db, r, release)
	if err != nil {
		release()
		return series.Failed(errs.E(errs.KindOf(err), "select from tenant %q: %w", r.Tenant, err))
	}
	set.missing = in.unread(r.MinTime, r.MaxTime)
	if len(r.WithoutLabels) == 0 {
		set.limit = r.Limit
		return set
	}
	return series.Limit(series.Relabel(set, labels.EmptyLabels(), r.WithoutLabels, series.SortBudget), r.Limit)
}

// queryable is a TSDB, or some blocks of one.
type queryable interface {
	Querier(mint, maxt int64) (storage.Querier, error)
	ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error)
}

// openSet selects from a TSDB or some blocks. release is called when the set is closed.
func openSet(ctx context.Context, from queryable, r *series.Request, release func()) (*tsdbSet, error) {
	hints := &storage.SelectHints{
		Start: r.MinTime, End: r.MaxTime, Step: r.Hints.Step, Range: r.Hints.Range, Func: r.Hints.Func,
		ShardIndex: r.Shard.Index, ShardCount: r.Shard.Count, DisableTrimming: true,
	}
	if len(r.WithoutLabels) == 0 {
		hints.Limit = r.Limit
	}
	s := &tsdbSet{ctx: ctx, id: r.Tenant, release: release}
	if r.SkipChunks {
		hints.Func = "series" // the TSDB reads no chunk then
		q, err := from.Querier(r.MinTime, r.MaxTime)
		if err != nil {
			return nil, err
		}
		set := q.Select(ctx, true, hints, matchersOf(r)...)
		s.close, s.next, s.err, s.warnings = q.Close, set.Next, set.Err, set.Warnings
		s.read = func() (series.Series, error) { return series.Series{Labels: set.At().Labels()}, nil }
		return s, nil
	}
	q, err := from.ChunkQuerier(r.MinTime, r.MaxTime)
	if err != nil {
		return nil, err
	}
	set := q.Select(ctx, true, hints, matchersOf(r)...)
	s.close, s.next, s.err, s.warnings = q.Close, set.Next, set.Err, set.Warnings
	s.read = func() (series.Series, error) { return s.readChunks(set.At()) }
	return s, nil
}

// matchersOf copies the matchers, since the TSDB sorts what it is given; no matcher selects everything.
func matchersOf(r *series.Request) []*labels.Matcher {
	if len(r.Matchers) == 0 {
		return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "", "")}
	}
	return slices.Clone(r.Matchers)
}

// tsdbSet reads a querier of the TSDB.
type tsdbSet struct {
	ctx     context.Context
	id      tenant.ID
	release func()
	close   func() error // of the querier; nil once closed

	next     func() bool
	read     func() (series.Series, error)
	err      func() error
	warnings func() annotations.Annotations

	at     series.Series
	limit  int // 0 none
	count  int
	failed error
	// missing is the error after the last series, if there may be more series or samples.
	missing    error
	it         chunks.Iterator
	nextChunks []series.Chunk // its spare capacity is for the chunks of the series to come
}

const chunksAtOnce = 512

// Next advances.
func (s *tsdbSet) Next() bool {
	if s.failed != nil || s.close == nil || s.limit > 0 && s.count >= s.limit {
		return false
	}
	if !s.next() {
		s.failed = s.err()
		if s.failed == nil {
			s.failed = s.missing
		}
		return false
	}
	if s.count%64 == 0 && s.ctx.Err() != nil {
		s.failed = s.ctx.Err()
		return false
	}
	if s.at, s.failed = s.read(); s.failed != nil {
		return false
	}
	s.count++
	return true
}

// readChunks decodes nothing, unless chunks of blocks overlap others. The bytes are those of the block or of the
// mapped head chunk, or a copy of the open chunk.
func (s *tsdbSet) readChunks(from storage.ChunkSeries) (series.Series, error) {
	out := series.Series{Labels: from.Labels()}
	start, blocks := len(s.nextChunks), false
	s.it = from.Iterator(s.it)
	for s.it.Next() {
		m := s.it.At()
		if p, ok := m.Chunk.(*shiftedChunk); ok {
			m.MinTime, m.MaxTime, m.Chunk, blocks = p.mint, p.maxt, p.Chunk, true
		}
		if len(s.nextChunks) == cap(s.nextChunks) {
			grown := make([]series.Chunk, len(s.nextChunks)-start, max(chunksAtOnce, 2*(len(s.nextChunks)-start)))
			copy(grown, s.nextChunks[start:])
			s.nextChunks, start = grown, 0
		}
		s.nextChunks = append(s.nextChunks, series.Chunk{
			MinTime: m.MinTime, MaxTime: m.MaxTime,
			Raw: series.Encoded{Encoding: m.Chunk.Encoding(), Data: m.Chunk.Bytes()},
		})
	}
	out.Chunks = s.nextChunks[start:len(s.nextChunks):len(s.nextChunks)]
	if err := s.it.Err(); err != nil || !blocks {
		return out, err
	}
	var err error
	out.Chunks, err = unite(out.Chunks)
	return out, err
}

// At is the current series.
func (s *tsdbSet) At() series.Series { return s.at }

// Err is what ended the set early.
func (s *tsdbSet) Err() error {
	if s.failed == nil {
		return nil
	}
	return errs.E(errs.KindOf(s.failed), "read tenant %q: %w", s.id, s.failed)
}

// Warnings returns the warnings of the TSDB.
func (s *tsdbSet) Warnings() series.Warnings { return warningsOf(s.warnings()) }

// Close closes the querier and gives the tenant back.
func (s *tsdbSet) Close() error {
	if s.close == nil {
		return nil
	}
	err := s.close()
	s.close = nil
	s.release()
	return err
}

// LabelNames returns the names of labels in the head and the blocks that overlap r's range.
func (d *DB) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return d.labels(ctx, r, func(
		q storage.ChunkQuerier, h *storage.LabelHints, ms []*labels.Matcher,
	) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, h, ms...)
	})
}

// LabelValues returns the values of a label in the head and the blocks that overlap r's range.
func (d *DB) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	if slices.Contains(r.WithoutLabels, name) {
		return nil, nil, nil
	}
	return d.labels(ctx, r, func(
		q storage.ChunkQuerier, h *storage.LabelHints, ms []*labels.Matcher,
	) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, h, ms...)
	})
}

// askLabels asks a querier for label names or values.
type askLabels func(
	storage.ChunkQuerier, *storage.LabelHints, []*labels.Matcher,
) ([]string, annotations.Annotations, error)

// labels returns what ask finds in the head and the blocks that overlap r's range.
func (d *DB) labels(ctx context.Context, r *series.Request, ask askLabels) ([]string, series.Warnings, error) {
	in, release, err := d.reader(ctx, r.Tenant, r.MinTime, r.MaxTime)
	if in == nil {
		return nil, nil, err
	}
	defer release()
	q, err := in.db.ChunkQuerier(r.MinTime, r.MaxTime)
	if err != nil {
		return nil, nil, errs.E(errs.KindOf(err), "labels of tenant %q: %w", r.Tenant, err)
	}
	hints := &storage.LabelHints{}
	if len(r.WithoutLabels) == 0 {
		hints.Limit = r.Limit
	}
	found, notes, err := ask(q, hints, slices.Clone(r.Matchers))
	out := make([]string, 0, len(found))
	for _, v := range found {
		if !slices.Contains(r.WithoutLabels, v) && (r.Limit <= 0 || len(out) < r.Limit) {
			out = append(out, strings.Clone(v)) // those of blocks are in mapped memory
		}
	}
	if err = errors.Join(err, q.Close()); err != nil {
		return nil, nil, errs.E(errs.KindOf(err), "labels of tenant %q: %w", r.Tenant, err)
	}
	warnings := warningsOf(notes)
	if err := in.unread(r.MinTime, r.MaxTime); err != nil {
		warnings = append(warnings, err.Error())
	}
	return out, warnings, nil
}

func warningsOf(notes annotations.Annotations) series.Warnings {
	var out series.Warnings
	for _, err := range notes {
		out = append(out, err.Error())
	}
	slices.Sort(out)
	return out
}

// Exemplars returns the exemplars of [mint, maxt] in the tenant's exemplar ring that match.
func (d *DB) Exemplars(
	ctx context.Context, id tenant.ID, mint, maxt int64, matchers ...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	in, release, err := d.reader(ctx, id, mint, maxt)
	if in == nil {
		return nil, nil, err
	}
	defer release()
	q, err := in.db.ExemplarQuerier(ctx)
	if err != nil {
		return nil, nil, errs.E(errs.KindOf(err), "exemplars of tenant %q: %w", id, err)
	}
	res, err := q.Select(mint, maxt, matchers...)
	return res, nil, errs.Wrap(errs.KindOf(err), err)
}

// Info says what all tenants together hold. If there is a tenant, the range has no end and begins no later than
// samples are accepted, because callers remember Info for some seconds while writes go on.
func (d *DB) Info(context.Context) (series.Info, error) {
	present := d.present()
	info := series.Info{
		Instance: d.opts.Instance, Role: d.opts.Role, Since: d.opts.Since, Tenants: present.ids,
		MinTime: math.MaxInt64, MaxTime: math.MinInt64,
	}
	if len(info.Tenants) == 0 {
		info.Tenants = []tenant.ID{}
		return info, nil
	}
	now := d.opts.Now()
	info.MinTime, info.MaxTime = now.Add(-d.opts.Window).UnixMilli(), math.MaxInt64
	for _, t := range present.all {
		info.MinTime = min(info.MinTime, t.minTime(), now.Add(-d.opts.windowOf(t.id)).UnixMilli())
	}
	return info, nil
}

// minTime is the time of the oldest sample that the tenant may hold, ms.
func (t *tenantDB) minTime() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in == nil {
		return t.summary.MinTime
	}
	head := t.in.db.Head()
	oldest := min(head.MinTime(), head.MinOOOTime())
	if blocks := t.in.db.Blocks(); len(blocks) > 0 {
		oldest = min(oldest, blocks[0].Meta().MinTime) // sorted
	}
	return oldest
}

// Metadata returns what senders said of tenant id's metric families: of one family, or of the first limit families by
// name if family is "". It works in every state of the tenant.
func (d *DB) Metadata(
	_ context.Context, id tenant.ID, family string, limit int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	t := d.lookup(id)
	if t == nil {
		return map[string][]metadata.Metadata{}, nil, nil
	}
	if err := t.meta.Load(); err != nil {
		return nil, nil, errs.E(errs.Internal, "metadata of tenant %q: %w", id, err)
	}
	return t.meta.Get(family, limit), nil, nil
}
