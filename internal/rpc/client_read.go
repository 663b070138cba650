package rpc

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// LabelNames does what series.Source describes.
func (c *Client) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	var out thanospb.LabelNamesResponse
	var without []string
	err := c.withKnownStreams(ctx, func(p *peer) error {
		without = c.withoutFor(p, r.WithoutLabels)
		req := &thanospb.LabelNamesRequest{
			Start: r.MinTime, End: r.MaxTime, Matchers: matchersToPB(c.matchersFor(p, r.Tenant, r.Matchers)),
			WithoutReplicaLabels: without, Limit: int64(r.Limit),
			PartialResponseStrategy: strategyFor(p), PartialResponseDisabled: p.hearth,
			Blocks: blocksToPB(r.Blocks),
		}
		if !p.hearth && r.Limit > 0 { // the response may contain names that are removed below
			req.Limit += int64(len(without))
		}
		out = thanospb.LabelNamesResponse{}
		return c.invoke(c.outgoing(ctx, r.Tenant), "/"+serviceStore+"/LabelNames", req, &out)
	})
	if err == nil {
		err = c.withAddress(tellCoverage(ctx, out.Coverage))
	}
	if err != nil {
		return nil, nil, err
	}
	names := slices.DeleteFunc(out.Names, func(name string) bool { return slices.Contains(without, name) })
	return series.SortedUnique(names, r.Limit), out.Warnings, nil
}

// LabelValues does what series.Source describes.
func (c *Client) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	var out thanospb.LabelValuesResponse
	err := c.withKnownStreams(ctx, func(p *peer) error {
		without := c.withoutFor(p, r.WithoutLabels)
		out = thanospb.LabelValuesResponse{}
		if slices.Contains(without, name) {
			return nil
		}
		req := &thanospb.LabelValuesRequest{
			Label: name, Start: r.MinTime, End: r.MaxTime, Matchers: matchersToPB(c.matchersFor(p, r.Tenant, r.Matchers)),
			WithoutReplicaLabels: without, Limit: int64(r.Limit),
			PartialResponseStrategy: strategyFor(p), PartialResponseDisabled: p.hearth,
			Blocks: blocksToPB(r.Blocks),
		}
		return c.invoke(c.outgoing(ctx, r.Tenant), "/"+serviceStore+"/LabelValues", req, &out)
	})
	if err == nil {
		err = c.withAddress(tellCoverage(ctx, out.Coverage))
	}
	if err != nil {
		return nil, nil, err
	}
	return series.SortedUnique(out.Values, r.Limit), out.Warnings, nil
}

// strategyFor returns what the peer shall do about failures. A Hearth process asks no other process, and its failure
// is an error with a kind. A Thanos store may ask several stores itself: then some data with a warning is better than
// none.
func strategyFor(p *peer) thanospb.PartialResponseStrategy {
	if p.hearth {
		return thanospb.PartialResponseStrategy_ABORT
	}
	return thanospb.PartialResponseStrategy_WARN
}

// Exemplars does what series.ExemplarSource describes. It returns nothing when the peer has no exemplars.
func (c *Client) Exemplars(
	ctx context.Context, id tenant.ID, mint, maxt int64, matchers ...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	p, err := c.known(ctx)
	if err != nil || !p.exemplars {
		return nil, nil, err
	}
	req := &thanospb.ExemplarsRequest{Start: mint, End: maxt, PartialResponseStrategy: strategyFor(p)}
	var selectors []string
	for _, ms := range matchers {
		ms, ok := c.exemplarSelector(p, id, ms)
		if !ok {
			continue
		}
		req.Selectors = append(req.Selectors, &thanospb.Selector{Matchers: matchersToPB(ms)})
		selectors = append(selectors, selector(ms))
	}
	if len(selectors) == 0 {
		return nil, nil, nil
	}
	if !p.hearth {
		req.Query, req.Selectors = strings.Join(selectors, " or "), nil
	}
	var all []exemplar.QueryResult
	var warnings series.Warnings
	var frame thanospb.ExemplarsResponse
	err = c.each(c.outgoing(ctx, id), "/"+serviceExemplars+"/Exemplars", req, &frame, func() error {
		if w := frame.GetWarning(); w != "" {
			warnings = append(warnings, w)
		}
		if data := frame.GetData(); data != nil {
			all = append(all, exemplarsFromPB(data))
		}
		frame.Reset()
		return nil
	})
	if err != nil || p.hearth {
		return all, warnings, err
	}
	if p, err = c.current(ctx, p); err != nil {
		return nil, nil, err
	}
	all = slices.DeleteFunc(all, func(r exemplar.QueryResult) bool { return p.foreign(id, r.SeriesLabels) })
	b := labels.NewBuilder(labels.EmptyLabels())
	for i := range all {
		all[i].SeriesLabels = p.strip(b, all[i].SeriesLabels)
	}
	return joinExemplars(all), warnings, nil
}

// selector writes matchers as PromQL.
func selector(ms []*labels.Matcher) string {
	parts := make([]string, len(ms))
	for i, m := range ms {
		parts[i] = m.String()
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// Metadata does what series.MetadataSource describes. It returns nothing when the peer has no metadata.
func (c *Client) Metadata(
	ctx context.Context, id tenant.ID, family string, limit int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	p, err := c.known(ctx)
	if err != nil || !p.metadata || p.owner != "" && p.owner != id {
		return nil, nil, err
	}
	req := &thanospb.MetricMetadataRequest{Metric: family, Limit: int32(limit), PartialResponseStrategy: strategyFor(p)}
	if limit == 0 {
		req.Limit = -1
	}
	all := newMerger()
	var warnings series.Warnings
	var frame thanospb.MetricMetadataResponse
	err = c.each(c.outgoing(ctx, id), "/"+serviceMetadata+"/MetricMetadata", req, &frame, func() error {
		if w := frame.GetWarning(); w != "" {
			warnings = append(warnings, w)
		}
		all.add(metadataFromPB(frame.GetMetadata()))
		frame.Reset()
		return nil
	})
	return all.families, warnings, err
}

// each makes a call with a stream of responses. It reads each response into frame and then calls do.
func (c *Client) each(ctx context.Context, method string, req, frame any, do func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.openStream(ctx, method, req)
	if err != nil {
		return c.withAddress(err)
	}
	for {
		if err := s.RecvMsg(frame); err != nil {
			if isEnd(err) {
				return nil
			}
			return c.withAddress(err)
		}
		if err := do(); err != nil {
			return c.withAddress(err)
		}
	}
}

// openStream starts a call with a stream of responses. The caller ends it by ctx.
func (c *Client) openStream(ctx context.Context, method string, req any) (grpc.ClientStream, error) {
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg(req); err != nil && !isEnd(err) { // after io.EOF RecvMsg returns the status
		return nil, err
	}
	return &identityStream{ClientStream: s}, s.CloseSend()
}
