package rpc

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// RegisterRulers serves hearth.Rulers: what rulers that share groups say to each other. It must be called before s is
// opened.
func RegisterRulers(s *Server, ruler rulestate.Keeper) {
	s.grpc.RegisterService(service(serviceRulers, "hearthpb/hearth.proto", []grpc.MethodDesc{
		unaryMethod(serviceRulers, "Groups", rulerGroups),
		unaryMethod(serviceRulers, "Take", rulerTake),
		unaryMethod(serviceRulers, "Hold", rulerHold),
	}), ruler)
}

// holdRequest is a state. It may be larger than other requests, since decoding makes nothing but a copy of it.
type holdRequest struct{ hearthpb.RulerHoldRequest }

// maxHold is the largest state of a group in bytes.
const maxHold = 32 << 20

func (h *holdRequest) decode(data mem.BufferSlice) error {
	if data.Len() > maxHold {
		return fmt.Errorf("a state of %d bytes, more than the %d that one may have", data.Len(), maxHold)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return h.UnmarshalVT(buf.ReadOnlyData())
}

func rulerGroups(
	of rulestate.Keeper, ctx context.Context, in *hearthpb.RulerGroupsRequest,
) (*hearthpb.RulerGroupsResponse, error) {
	k, err := of.Groups(ctx, in.Version)
	return &hearthpb.RulerGroupsResponse{Version: k.Version, Groups: k.Groups, Leaves: k.Leaves}, err
}

func rulerTake(
	of rulestate.Keeper, ctx context.Context, in *hearthpb.RulerTakeRequest,
) (*hearthpb.RulerTakeResponse, error) {
	name, err := groupFromPB(in.Group)
	if err != nil {
		return nil, err
	}
	t, err := of.Take(ctx, name)
	return &hearthpb.RulerTakeResponse{Keeps: t.Keeps, Busy: t.Busy, State: t.State}, err
}

func rulerHold(of rulestate.Keeper, ctx context.Context, in *holdRequest) (*hearthpb.RulerHoldResponse, error) {
	name, err := groupFromPB(in.Group)
	if err != nil {
		return nil, err
	}
	h := rulestate.Held{Group: name, Slot: time.Unix(0, in.Slot).UTC(), State: in.State, Series: in.Series}
	if in.Base != 0 {
		h.Base = time.Unix(0, in.Base).UTC()
	}
	a, err := of.Hold(ctx, h)
	return &hearthpb.RulerHoldResponse{Evaluates: a.Evaluates, Lacks: a.Lacks}, err
}

func groupFromPB(in *hearthpb.RulerGroup) (rulestate.GroupName, error) {
	id, err := tenant.Parse(in.GetTenant())
	if err != nil {
		return rulestate.GroupName{}, errs.E(errs.Invalid, "group of rules: %w", err)
	}
	return rulestate.GroupName{Tenant: id, Namespace: in.GetNamespace(), Name: in.GetName()}, nil
}

func groupToPB(g rulestate.GroupName) *hearthpb.RulerGroup {
	return &hearthpb.RulerGroup{Tenant: string(g.Tenant), Namespace: g.Namespace, Name: g.Name}
}

// RulerClient is another ruler. Its errors are of kind Unsupported if the peer is no ruler or of an earlier version.
type RulerClient struct{ *Client }

var _ rulestate.Keeper = RulerClient{}

// Groups implements rulestate.Keeper.
func (c RulerClient) Groups(ctx context.Context, version uint64) (rulestate.Known, error) {
	var out hearthpb.RulerGroupsResponse
	req := &hearthpb.RulerGroupsRequest{Version: version}
	if err := c.invoke(c.outgoing(ctx, ""), "/"+serviceRulers+"/Groups", req, &out); err != nil {
		return rulestate.Known{}, err
	}
	return rulestate.Known{Version: out.Version, Groups: out.Groups, Leaves: out.Leaves}, nil
}

// Take implements rulestate.Keeper.
func (c RulerClient) Take(ctx context.Context, g rulestate.GroupName) (rulestate.Taken, error) {
	var out hearthpb.RulerTakeResponse
	req := &hearthpb.RulerTakeRequest{Group: groupToPB(g)}
	if err := c.invoke(c.outgoing(ctx, ""), "/"+serviceRulers+"/Take", req, &out); err != nil {
		return rulestate.Taken{}, err
	}
	return rulestate.Taken{Keeps: out.Keeps, Busy: out.Busy, State: out.State}, nil
}

// Hold implements rulestate.Keeper.
func (c RulerClient) Hold(ctx context.Context, h rulestate.Held) (rulestate.HoldAnswer, error) {
	var out hearthpb.RulerHoldResponse
	req := &hearthpb.RulerHoldRequest{Group: groupToPB(h.Group), Slot: h.Slot.UnixNano(), State: h.State, Series: h.Series}
	if !h.Base.IsZero() {
		req.Base = h.Base.UnixNano()
	}
	if err := c.invoke(c.outgoing(ctx, ""), "/"+serviceRulers+"/Hold", req, &out); err != nil {
		return rulestate.HoldAnswer{}, err
	}
	return rulestate.HoldAnswer{Evaluates: out.Evaluates, Lacks: out.Lacks}, nil
}
