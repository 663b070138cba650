package rpc

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// matcherTypes holds Thanos's matcher type for each of Prometheus's.
var matcherTypes = [...]thanospb.LabelMatcher_Type{
	labels.MatchEqual: thanospb.LabelMatcher_EQ, labels.MatchNotEqual: thanospb.LabelMatcher_NEQ,
	labels.MatchRegexp: thanospb.LabelMatcher_RE, labels.MatchNotRegexp: thanospb.LabelMatcher_NRE,
}

func matchersToPB(ms []*labels.Matcher) []*thanospb.LabelMatcher {
	out := make([]*thanospb.LabelMatcher, len(ms))
	for i, m := range ms {
		out[i] = &thanospb.LabelMatcher{Type: matcherTypes[m.Type], Name: m.Name, Value: m.Value}
	}
	return out
}

// matchersFromPB reads one selector of a request. made bounds the cost of all matchers of the request together.
func matchersFromPB(made *expr.Matchers, ms []*thanospb.LabelMatcher) ([]*labels.Matcher, error) {
	out := make([]*labels.Matcher, len(ms))
	for i, m := range ms {
		typ := slices.Index(matcherTypes[:], m.Type)
		if typ < 0 {
			return nil, errs.E(errs.Invalid, "matcher type %d on label %q is not known", m.Type, m.Name)
		}
		var err error
		if out[i], err = made.New(labels.MatchType(typ), m.Name, m.Value); err != nil {
			return nil, errs.E(errs.KindOf(err), "matcher on label %q: %w", m.Name, err)
		}
	}
	return out, nil
}

func labelsToPB(ls labels.Labels) *thanospb.ZLabelSet {
	set := &thanospb.ZLabelSet{Labels: make([]*thanospb.Label, 0, ls.Len())}
	ls.Range(func(l labels.Label) {
		set.Labels = append(set.Labels, &thanospb.Label{Name: l.Name, Value: l.Value})
	})
	return set
}

func labelsFromPB(set *thanospb.ZLabelSet) labels.Labels {
	b := labels.NewScratchBuilder(len(set.GetLabels()))
	for _, l := range set.GetLabels() {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	return b.Labels()
}

// requestToPB writes r as a StoreAPI request. The caller sets what depends on the peer: tenant, labels to drop, error
// strategy.
func requestToPB(r *series.Request, batch int) *thanospb.SeriesRequest {
	out := &thanospb.SeriesRequest{
		MinTime: r.MinTime, MaxTime: r.MaxTime, Matchers: matchersToPB(r.Matchers),
		MaxResolutionWindow: r.MaxResolution, SkipChunks: r.SkipChunks, Limit: int64(r.Limit),
		Step: r.Hints.Step, Range: r.Hints.Range, ResponseBatchSize: int64(batch),
		Aggregates: aggregatesToPB(r.Aggregates, r.MaxResolution), Blocks: blocksToPB(r.Blocks),
	}
	if r.Hints.Func != "" || r.Hints.Grouping != nil || r.Hints.By || r.Hints.Range != 0 {
		out.QueryHints = &thanospb.QueryHints{
			StepMillis: r.Hints.Step, Func: &thanospb.Func{Name: r.Hints.Func},
			Grouping: &thanospb.Grouping{By: r.Hints.By, Labels: r.Hints.Grouping},
			Range:    &thanospb.Range{Millis: r.Hints.Range},
		}
	}
	if r.Shard.Count > 1 {
		// When the request names no labels, Thanos hashes all of them, exactly as StableHash does.
		out.ShardInfo = &thanospb.ShardInfo{ShardIndex: int64(r.Shard.Index), TotalShards: int64(r.Shard.Count)}
	}
	return out
}

// aggregatesToPB lists the wanted parts of chunks. Thanos reads an empty list as raw chunks only.
func aggregatesToPB(wanted []series.Aggregate, maxResolution int64) []thanospb.Aggr {
	out := []thanospb.Aggr{thanospb.Aggr_RAW}
	if maxResolution == 0 {
		return out
	}
	for a := range series.NumAggregates {
		if len(wanted) == 0 || slices.Contains(wanted, a) {
			out = append(out, thanospb.Aggr(a)+1)
		}
	}
	return out
}

// requestFromPB reads the part of a StoreAPI request that any source understands. The caller takes care of tenant and
// shard, and enforces the limit. stats says that hints with statistics are wanted.
func requestFromPB(in *thanospb.SeriesRequest) (r *series.Request, stats bool, err error) {
	made := new(expr.Matchers)
	matchers, err := matchersFromPB(made, in.Matchers)
	if err != nil {
		return nil, false, err
	}
	if in.Limit < 0 || in.MaxResolutionWindow < 0 || in.ResponseBatchSize < 0 {
		return nil, false, errs.E(errs.Invalid, "limit, resolution and batch size must not be negative")
	}
	blocks, err := blocksFromPB(in.Blocks)
	if err != nil {
		return nil, false, err
	}
	if blocks.Matchers, stats, err = hintsFromPB(made, in.Hints); err != nil {
		return nil, false, err
	}
	r = &series.Request{
		Blocks: blocks, MinTime: in.MinTime, MaxTime: in.MaxTime, Matchers: matchers, WithoutLabels: in.WithoutReplicaLabels,
		MaxResolution: in.MaxResolutionWindow, SkipChunks: in.SkipChunks, Limit: clampInt(in.Limit),
		Hints: series.Hints{Step: in.Step, Range: in.Range},
	}
	for _, a := range in.Aggregates {
		if a > thanospb.Aggr_RAW && a <= thanospb.Aggr_COUNTER {
			r.Aggregates = append(r.Aggregates, series.Aggregate(a-1))
		}
	}
	if h := in.QueryHints; h != nil {
		r.Hints.Func = h.GetFunc().GetName()
		r.Hints.By, r.Hints.Grouping = h.GetGrouping().GetBy(), h.GetGrouping().GetLabels()
		if r.Hints.Step == 0 {
			r.Hints.Step = h.StepMillis
		}
		if r.Hints.Range == 0 {
			r.Hints.Range = h.GetRange().GetMillis()
		}
	}
	return r, stats, nil
}

func clampInt(n int64) int { return int(min(n, math.MaxInt32)) }
