package rpc

import (
	"cmp"
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

func (h *storeServer) exemplars(in *thanospb.ExemplarsRequest, out grpc.ServerStream) error {
	selectors, err := selectorsOf(in)
	if err != nil {
		return err
	}
	partial := partialAllowed(false, in.PartialResponseStrategy)
	a, err := h.resolve(out.Context(), partial)
	if err != nil {
		return err
	}
	found, err := findExemplars(out.Context(), &a, in, selectors, partial && !a.own)
	if err != nil {
		return err
	}
	for _, r := range found {
		if err := out.SendMsg(exemplarsToPB(r)); err != nil {
			return err
		}
	}
	for _, w := range a.warnings {
		frame := &thanospb.ExemplarsResponse{Result: &thanospb.ExemplarsResponse_Warning{Warning: w}}
		if err := out.SendMsg(frame); err != nil {
			return err
		}
	}
	return nil
}

// selectorsOf reads the selectors. Hearth sends them as matchers, Thanos as a PromQL expression.
func selectorsOf(in *thanospb.ExemplarsRequest) ([][]*labels.Matcher, error) {
	if len(in.Selectors) > 0 {
		var made expr.Matchers
		out := make([][]*labels.Matcher, len(in.Selectors))
		for i, s := range in.Selectors {
			var err error
			if out[i], err = matchersFromPB(&made, s.Matchers); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	out, err := expr.Selectors(in.Query)
	if err != nil {
		return nil, errs.E(errs.KindOf(err), "exemplar query: %w", err)
	}
	return out, nil
}

// findExemplars queries everything that the caller may see. The result has each series once, ordered by labels.
// Warnings go into a. With partial, the failure of a source becomes a warning.
func findExemplars(
	ctx context.Context, a *resolved, in *thanospb.ExemplarsRequest, selectors [][]*labels.Matcher, partial bool,
) ([]exemplar.QueryResult, error) {
	var all []exemplar.QueryResult
	for _, src := range a.sources {
		es, ok := src.(series.ExemplarSource)
		if !ok {
			continue
		}
		found, warnings, err := es.Exemplars(ctx, a.tenant, in.Start, in.End, selectors...)
		if err != nil {
			return nil, err
		}
		all, a.warnings = append(all, found...), append(a.warnings, warnings...)
	}
	for _, s := range a.streams {
		found, warnings, err := streamExemplars(ctx, s, in, selectors)
		if err := absorb(err, partial, &a.warnings); err != nil {
			return nil, err
		}
		all, a.warnings = append(all, found...), append(a.warnings, warnings...)
	}
	return joinExemplars(all), nil
}

// streamExemplars queries one stream and adds its external labels to the series.
func streamExemplars(
	ctx context.Context, s stream, in *thanospb.ExemplarsRequest, selectors [][]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	es, ok := s.Source.(series.ExemplarSource)
	if !ok {
		return nil, nil, nil
	}
	if s.Shown {
		return es.Exemplars(ctx, s.tenant, in.Start, in.End, selectors...)
	}
	var resolved [][]*labels.Matcher
	for _, sel := range selectors {
		if rest, ok := series.Resolve(sel, s.External); ok {
			resolved = append(resolved, orEverything(rest))
		}
	}
	if len(resolved) == 0 {
		return nil, nil, nil
	}
	found, warnings, err := es.Exemplars(ctx, s.tenant, in.Start, in.End, resolved...)
	relabel := series.Relabeler(s.External)
	for i := range found {
		found[i].SeriesLabels = relabel(found[i].SeriesLabels)
	}
	return found, warnings, err
}

// joinExemplars sorts the results by labels and makes one result of those with equal labels. The exemplars of a result
// are ordered by time, each once.
func joinExemplars(all []exemplar.QueryResult) []exemplar.QueryResult {
	slices.SortStableFunc(all, func(a, b exemplar.QueryResult) int {
		return labels.Compare(a.SeriesLabels, b.SeriesLabels)
	})
	var out []exemplar.QueryResult
	for _, r := range all {
		if last := len(out) - 1; last >= 0 && labels.Equal(out[last].SeriesLabels, r.SeriesLabels) {
			out[last].Exemplars = append(out[last].Exemplars, r.Exemplars...)
			continue
		}
		r.Exemplars = slices.Clone(r.Exemplars) // the source owns the slice, and this appends to it
		out = append(out, r)
	}
	for i := range out {
		es := out[i].Exemplars
		slices.SortStableFunc(es, func(a, b exemplar.Exemplar) int { return cmp.Compare(a.Ts, b.Ts) })
		out[i].Exemplars = slices.CompactFunc(es, func(a, b exemplar.Exemplar) bool { return a.Equals(b) })
	}
	return out
}

func exemplarsToPB(r exemplar.QueryResult) *thanospb.ExemplarsResponse {
	data := &thanospb.ExemplarData{SeriesLabels: labelsToPB(r.SeriesLabels)}
	for _, e := range r.Exemplars {
		data.Exemplars = append(data.Exemplars, &thanospb.Exemplar{Labels: labelsToPB(e.Labels), Value: e.Value, Ts: e.Ts})
	}
	return &thanospb.ExemplarsResponse{Result: &thanospb.ExemplarsResponse_Data{Data: data}}
}

func exemplarsFromPB(data *thanospb.ExemplarData) exemplar.QueryResult {
	r := exemplar.QueryResult{SeriesLabels: labelsFromPB(data.SeriesLabels)}
	for _, e := range data.Exemplars {
		r.Exemplars = append(r.Exemplars, exemplar.Exemplar{
			Labels: labelsFromPB(e.Labels), Value: e.Value, Ts: e.Ts, HasTs: true,
		})
	}
	return r
}
