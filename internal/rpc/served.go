package rpc

import (
	"context"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// blockServer is a store gateway.
type blockServer interface {
	// BlockStates returns what the gateway says of each block now.
	BlockStates([]ulid.ULID) []series.BlockState
}

// RegisterServed serves hearth.Served: which blocks a store gateway knows and serves. It must be called before s is
// opened.
func RegisterServed(s *Server, gateway interface {
	BlockStates([]ulid.ULID) []series.BlockState
}) {
	s.grpc.RegisterService(service(serviceServed, "hearthpb/hearth.proto", []grpc.MethodDesc{
		unaryMethod(serviceServed, "Blocks", servedBlocks),
	}), gateway)
}

func servedBlocks(
	gateway blockServer, _ context.Context, in *hearthpb.ServedRequest,
) (*hearthpb.ServedResponse, error) {
	ids := make([]ulid.ULID, len(in.Blocks))
	for i, b := range in.Blocks {
		if len(b) != len(ids[i]) {
			return nil, errs.E(errs.Invalid, "block id of %d bytes: must be %d", len(b), len(ids[i]))
		}
		copy(ids[i][:], b)
	}
	out := &hearthpb.ServedResponse{}
	for _, s := range gateway.BlockStates(ids) {
		out.Served, out.Known, out.Owned = append(out.Served, s.Served), append(out.Known, s.Known),
			append(out.Owned, s.Owned)
	}
	return out, nil
}

// BlockStates returns what the peer, a store gateway, says of each block now. Any other peer fails with kind
// Unsupported.
func (c *Client) BlockStates(ctx context.Context, ids []ulid.ULID) ([]series.BlockState, error) {
	req := &hearthpb.ServedRequest{Blocks: make([][]byte, len(ids))}
	for i := range ids {
		req.Blocks[i] = ids[i][:]
	}
	var out hearthpb.ServedResponse
	if err := c.invoke(c.outgoing(ctx, ""), "/"+serviceServed+"/Blocks", req, &out); err != nil {
		return nil, err
	}
	if len(out.Known)+len(out.Owned) == 0 { // an older gateway: it serves and keeps all that it knows
		out.Known, out.Owned = out.Served, out.Served
	}
	for _, list := range [][]bool{out.Served, out.Known, out.Owned} {
		if len(list) != len(ids) {
			return nil, errs.E(errs.Internal, "%s: asked for %d blocks, answered for %d", c.addr, len(ids), len(list))
		}
	}
	states := make([]series.BlockState, len(ids))
	for i := range states {
		states[i] = series.BlockState{Known: out.Known[i], Served: out.Served[i], Owned: out.Owned[i]}
	}
	return states, nil
}
