package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// selection is a Series call, ready to be sent.
type selection struct {
	set   series.Set
	shard *sharder // nil when all series are wanted, or the sources select the shard
	limit int      // 0 = none
	batch int      // series per frame; 0 = the caller knows no batches, and gets one series per frame
	// covered is what the sources say of their blocks. It is sent before the series.
	covered *heardCoverage
	// queried is what is read of blocks, for a caller of Thanos that asks for it; else it is nil. It is sent after the
	// series.
	queried *heardQueried
}

func (h *storeServer) series(in *thanospb.SeriesRequest, out grpc.ServerStream) error {
	t := h.readSlot(out.Context())
	if err := t.acquire(); err != nil {
		return err
	}
	defer t.release()
	sel, err := h.selection(withCaller(out.Context()), in)
	if err != nil {
		return err
	}
	defer sel.set.Close()
	return h.send(sel, t, out)
}

func (h *storeServer) selection(ctx context.Context, in *thanospb.SeriesRequest) (selection, error) {
	r, stats, err := requestFromPB(in)
	if err != nil {
		return selection{}, err
	}
	shard, err := newSharder(in.ShardInfo)
	if err != nil {
		return selection{}, err
	}
	partial := partialAllowed(in.PartialResponseDisabled, in.PartialResponseStrategy)
	a, err := h.resolve(ctx, partial)
	if err != nil {
		return selection{}, err
	}
	sel := selection{shard: shard, limit: r.Limit, batch: clampInt(in.ResponseBatchSize), covered: new(heardCoverage)}
	if a.own {
		sel.set = selectOwn(ctx, a, r, &sel)
		return sel, nil
	}
	if stats {
		sel.queried = new(heardQueried)
		ctx = sel.queried.listen(ctx)
	}
	sets := []series.Set{series.List(nil, a.warnings...)}
	if shard != nil || len(r.WithoutLabels) > 0 {
		r.Limit = 0 // a source that stops at the limit could leave out series that the caller wants
	}
	for _, s := range a.streams {
		if set, ok := h.selectStream(ctx, s, r, partial); ok {
			sets = append(sets, set)
		}
	}
	sel.set = series.Merge(sets...)
	return sel, nil
}

func selectOwn(ctx context.Context, a resolved, r *series.Request, sel *selection) series.Set {
	r.Tenant, r.Matchers = a.tenant, orEverything(r.Matchers)
	switch {
	case sel.shard.plain():
		r.Shard = series.Shard{Index: sel.shard.index, Count: sel.shard.total}
		sel.shard = nil
	case sel.shard != nil:
		r.Limit = 0
	}
	ctx = sel.covered.listen(ctx)
	sets := make([]series.Set, len(a.sources))
	for i, src := range a.sources {
		sets[i] = src.Select(ctx, r)
	}
	return series.Merge(sets...)
}

// selectStream selects a stream's series as Thanos has them. It returns false when the matchers exclude the stream.
func (h *storeServer) selectStream(ctx context.Context, s stream, r *series.Request, partial bool) (series.Set, bool) {
	rest, ok := series.Resolve(r.Matchers, s.External)
	if !ok {
		return nil, false
	}
	own := *r
	own.Tenant = s.tenant
	if !s.Shown {
		own.Matchers, own.WithoutLabels = orEverything(rest), nil
	}
	set := s.Source.Select(ctx, &own)
	if partial {
		set = partialSet{set}
	}
	if s.Shown {
		return set, true
	}
	return series.Relabel(set, s.External, r.WithoutLabels, h.SortBudget), true
}

// send sends the selection, and then its warnings if it did not fail. It holds the read slot while it reads the
// selection, and not while it sends a frame. It returns without the slot if a send has failed, or after the warnings.
func (h *storeServer) send(sel selection, t *readSlot, out grpc.ServerStream) error {
	sent, chunks := 0, 0
	defer func() { h.metrics.series.Add(float64(sent)) }()
	var b batch
	defer func() { b.drop() }()
	deliver := func(frame any) error {
		t.release()
		if err := out.SendMsg(frame); err != nil {
			return err
		}
		return t.acquire()
	}
	flush := func() error {
		if said := sel.covered.take(); said != nil {
			if err := deliver(&thanospb.SeriesResponse{Coverage: said}); err != nil {
				return err
			}
		}
		if b.n == 0 {
			return nil
		}
		return deliver(b.take(sel.batch > 0))
	}

	// A querier asks other gateways for missing blocks as soon as it knows the coverage, so that is sent before a block is
	// read.
	if err := flush(); err != nil {
		return err
	}
	for (sel.limit == 0 || sent < sel.limit) && sel.set.Next() {
		s := sel.set.At()
		if !sel.shard.has(s.Labels) {
			continue
		}
		if err := h.allow(sent+1, chunks+len(s.Chunks)); err != nil {
			return err
		}
		if sel.queried != nil && sent == 0 {
			sel.queried.first = time.Now()
		}
		if err := b.add(s); err != nil {
			return err
		}
		sent, chunks = sent+1, chunks+len(s.Chunks)
		if b.full(sel.batch) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	// Also when the set has failed: the caller may use the series that came before the error.
	if err := flush(); err != nil {
		return err
	}
	if err := sel.set.Err(); err != nil {
		return err
	}
	t.release()
	for _, w := range sel.set.Warnings() {
		if err := out.SendMsg(warningFrame(w)); err != nil {
			return err
		}
	}
	if hints := sel.queried.statistics("SeriesResponseHints", sent, chunks); hints != nil {
		return out.SendMsg(&thanospb.SeriesResponse{Result: &thanospb.SeriesResponse_Hints{Hints: hints}})
	}
	return nil
}

// samplesPerChunk is what a chunk counts for in MaxSamples.
const samplesPerChunk = 120

// allow refuses a call that would send more than MaxSeries or MaxSamples.
func (h *storeServer) allow(series, chunks int) error {
	if most := h.MaxSeries; most > 0 && int64(series) > most {
		return errs.E(errs.Limited, "the call selects more than %d series (--store.limits.request-series)", most)
	}
	if most := h.MaxSamples; most > 0 && int64(chunks)*samplesPerChunk > most {
		return errs.E(errs.Limited, "the call selects more than about %d samples (--store.limits.request-samples)", most)
	}
	return nil
}

// partialAllowed reports whether the caller takes a partial response with warnings. Either field of a request can
// refuse.
func partialAllowed(disabled bool, strategy thanospb.PartialResponseStrategy) bool {
	return !disabled && strategy == thanospb.PartialResponseStrategy_WARN
}

// absorb makes err a warning where partial responses are allowed. An invalid request stays an error, and one that is
// over a limit does: the operator wants it refused, as Thanos's gateway refuses it, and the caller can ask for less.
func absorb(err error, partial bool, warnings *series.Warnings) error {
	kind := errs.KindOf(err)
	if err == nil || !partial || kind == errs.Invalid || kind == errs.Limited {
		return err
	}
	*warnings = append(*warnings, err.Error())
	return nil
}
