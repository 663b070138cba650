package rpc

import (
	"context"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var _ series.ArrivalSource = (*Client)(nil)

// arrivals responds for the one source that takes samples, of those that the caller names by role.
func (h *storeServer) arrivals(
	ctx context.Context, in *hearthpb.ArrivalsRequest,
) (*hearthpb.ArrivalsResponse, error) {
	a, err := h.resolve(ctx, false)
	if err != nil {
		return nil, err
	}
	if !a.own {
		return nil, errs.E(errs.Invalid, "%s is not set: one tenant must be named", keyTenant)
	}
	for _, src := range a.sources {
		if from, ok := src.(series.ArrivalSource); ok {
			found, err := from.Arrivals(ctx, a.tenant, in.Since)
			return arrivalsToPB(found), err
		}
	}
	return nil, errs.E(errs.Unsupported, "no source here takes samples")
}

func arrivalsToPB(a series.Arrivals) *hearthpb.ArrivalsResponse {
	out := &hearthpb.ArrivalsResponse{WindowMs: a.Window.Milliseconds(), Complete: a.Complete, KnownSince: a.Since,
		BlocksSince: a.BlocksSince}
	for _, d := range a.Delays {
		out.Hours, out.Lowest = append(out.Hours, d.Hour), append(out.Lowest, d.Lowest)
		out.Highest, out.Latest = append(out.Highest, d.Highest), append(out.Latest, d.Latest)
	}
	return out
}

// arrivalsFromPB refuses what no receiver says: what is kept of it decides whether old answers still hold.
func arrivalsFromPB(in *hearthpb.ArrivalsResponse) (series.Arrivals, error) {
	const maxWindow = 100 * 365 * 24 * time.Hour // a duration ends at 292 years
	out := series.Arrivals{Complete: in.Complete, Since: in.KnownSince, BlocksSince: in.BlocksSince,
		Window: time.Duration(in.WindowMs) * time.Millisecond}
	ordered := slices.IsSorted(in.Hours)
	switch {
	case in.WindowMs < 0 || in.WindowMs > maxWindow.Milliseconds():
		return out, errs.E(errs.Internal, "malformed arrivals: a window of %d ms", in.WindowMs)
	case len(in.Hours) != len(in.Lowest) || len(in.Hours) > series.MaxDelays || !ordered ||
		len(in.Highest) > 0 && len(in.Highest) != len(in.Hours) || len(in.Latest) > 0 && len(in.Latest) != len(in.Hours):
		return out, errs.E(errs.Internal, "malformed arrivals: %d hours with %d and %d times, in order %t", len(in.Hours),
			len(in.Lowest), len(in.Highest), ordered)
	}
	for i := range in.Hours {
		d := series.Delay{Hour: in.Hours[i], Lowest: in.Lowest[i]}
		if len(in.Highest) > 0 { // an earlier version sends neither
			d.Highest = in.Highest[i]
		}
		if len(in.Latest) > 0 {
			d.Latest = in.Latest[i]
		}
		out.Delays = append(out.Delays, d)
	}
	return out, nil
}

// Arrivals does what series.ArrivalSource describes. A peer that takes no samples, or does not know this call, fails
// with kind Unsupported.
func (c *Client) Arrivals(ctx context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	var out hearthpb.ArrivalsResponse
	req := &hearthpb.ArrivalsRequest{Since: since}
	if err := c.invoke(c.outgoing(ctx, id), "/"+serviceArrivals+"/Tenant", req, &out); err != nil {
		return series.Arrivals{}, err
	}
	found, err := arrivalsFromPB(&out)
	return found, c.withAddress(err)
}
