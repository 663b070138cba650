package rpc

import (
	"context"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
)

// blockServer is a store gateway.
type blockServer interface {
	// Served reports for each block whether it is served now.
	Served([]ulid.ULID) []bool
}

// RegisterServed serves hearth.Served: which blocks a store gateway serves. It must be called before s is opened.
func RegisterServed(s *Server, gateway interface{ Served([]ulid.ULID) []bool }) {
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
	return &hearthpb.ServedResponse{Served: gateway.Served(ids)}, nil
}

// Served reports for each block whether the peer, a store gateway, serves it now. Any other peer fails with kind
// Unsupported.
func (c *Client) Served(ctx context.Context, ids []ulid.ULID) ([]bool, error) {
	req := &hearthpb.ServedRequest{Blocks: make([][]byte, len(ids))}
	for i := range ids {
		req.Blocks[i] = ids[i][:]
	}
	var out hearthpb.ServedResponse
	if err := c.invoke(c.outgoing(ctx, ""), "/"+serviceServed+"/Blocks", req, &out); err != nil {
		return nil, err
	}
	if len(out.Served) != len(ids) {
		return nil, errs.E(errs.Internal, "%s: asked for %d blocks, answered for %d", c.addr, len(ids), len(out.Served))
	}
	return out.Served, nil
}
