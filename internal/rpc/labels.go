package rpc

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// labelCall is a LabelNames (name "") or LabelValues call.
type labelCall struct {
	name     string
	request  series.Request
	partial  bool     // the failure of a source becomes a warning
	without  []string // labels that the caller wants dropped
	found    []string // the result
	warnings series.Warnings
	covered  heardCoverage
	queried  heardQueried
}

// labelRequest is what requests for names and for values have in common.
type labelRequest interface {
	GetMatchers() []*thanospb.LabelMatcher
	GetStart() int64
	GetEnd() int64
	GetLimit() int64
	GetBlocks() *hearthpb.BlockRequest
	GetHints() *anypb.Any
}

func newLabelCall(in labelRequest) (*labelCall, error) {
	made := new(expr.Matchers)
	matchers, err := matchersFromPB(made, in.GetMatchers())
	if err != nil {
		return nil, err
	}
	blocks, err := blocksFromPB(in.GetBlocks())
	if err != nil {
		return nil, err
	}
	if blocks.Matchers, _, err = hintsFromPB(made, in.GetHints()); err != nil {
		return nil, err
	}
	limit := in.GetLimit()
	if limit < 0 {
		return nil, errs.E(errs.Invalid, "limit %d must not be negative", limit)
	}
	return &labelCall{request: series.Request{
		MinTime: in.GetStart(), MaxTime: in.GetEnd(), Matchers: matchers, Limit: clampInt(limit), Blocks: blocks,
	}}, nil
}

func (h *storeServer) labelNames(
	ctx context.Context, in *thanospb.LabelNamesRequest,
) (*thanospb.LabelNamesResponse, error) {
	c, err := newLabelCall(in)
	if err != nil {
		return nil, err
	}
	c.partial = partialAllowed(in.PartialResponseDisabled, in.PartialResponseStrategy)
	c.without = in.WithoutReplicaLabels
	if err := h.query(ctx, c); err != nil {
		return nil, err
	}
	return &thanospb.LabelNamesResponse{Names: c.found, Warnings: c.warnings, Coverage: c.covered.take(),
		Hints: c.queried.blocks("LabelNamesResponseHints")}, nil
}

func (h *storeServer) labelValues(
	ctx context.Context, in *thanospb.LabelValuesRequest,
) (*thanospb.LabelValuesResponse, error) {
	if in.Label == "" {
		return nil, errs.E(errs.Invalid, "the label is empty")
	}
	c, err := newLabelCall(in)
	if err != nil {
		return nil, err
	}
	c.name, c.without = in.Label, in.WithoutReplicaLabels
	c.partial = partialAllowed(in.PartialResponseDisabled, in.PartialResponseStrategy)
	if !slices.Contains(c.without, c.name) {
		if err := h.query(ctx, c); err != nil {
			return nil, err
		}
	}
	return &thanospb.LabelValuesResponse{Values: c.found, Warnings: c.warnings, Coverage: c.covered.take(),
		Hints: c.queried.blocks("LabelValuesResponseHints")}, nil
}

// query queries everything that the caller may see, and leaves the sorted result in c.
func (h *storeServer) query(ctx context.Context, c *labelCall) error {
	slot := h.readSlot(ctx)
	if err := slot.acquire(); err != nil {
		return err
	}
	defer slot.release()
	a, err := h.resolve(ctx, c.partial)
	if err != nil {
		return err
	}
	c.warnings = a.warnings
	if a.own {
		c.request.Tenant, c.request.WithoutLabels = a.tenant, c.without
		ctx := c.covered.listen(ctx)
		for _, src := range a.sources {
			if err := c.query(ctx, src, &c.request); err != nil {
				return err
			}
		}
	}
	ctx = c.queried.listen(ctx)
	for _, s := range a.streams {
		if err := absorb(c.queryStream(ctx, s), c.partial, &c.warnings); err != nil {
			return err
		}
	}
	if c.name == "" {
		c.found = slices.DeleteFunc(c.found, func(name string) bool { return slices.Contains(c.without, name) })
	}
	c.found = series.SortedUnique(c.found, c.request.Limit)
	return nil
}

// query adds the result of src.
func (c *labelCall) query(ctx context.Context, src series.Source, r *series.Request) error {
	var found []string
	var warnings series.Warnings
	var err error
	if c.name == "" {
		found, warnings, err = src.LabelNames(ctx, r)
	} else {
		found, warnings, err = src.LabelValues(ctx, c.name, r)
	}
	c.found = append(c.found, found...)
	c.warnings = append(c.warnings, warnings...)
	return err
}

// queryStream adds the labels of a stream as Thanos has them. The external labels count if any series of the stream
// matches.
func (c *labelCall) queryStream(ctx context.Context, s stream) error {
	rest, ok := series.Resolve(c.request.Matchers, s.External)
	if !ok {
		return nil
	}
	r := c.request
	r.Tenant = s.tenant
	if s.Shown {
		r.WithoutLabels = c.without
		return c.query(ctx, s.Source, &r)
	}
	r.Matchers = rest
	if c.name == "" {
		if len(c.without) > 0 {
			r.Limit = 0
		}
		before := len(c.found)
		if err := c.query(ctx, s.Source, &r); err != nil {
			return err
		}
		if len(c.found) > before {
			s.External.Range(func(l labels.Label) { c.found = append(c.found, l.Name) })
		}
		return nil
	}
	if !s.External.Has(c.name) {
		return c.query(ctx, s.Source, &r)
	}
	r.Limit = 1
	names, warnings, err := s.Source.LabelNames(ctx, &r)
	c.warnings = append(c.warnings, warnings...)
	if len(names) > 0 {
		c.found = append(c.found, s.External.Get(c.name))
	}
	return err
}
