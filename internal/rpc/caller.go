package rpc

import (
	"context"

	grpcpeer "google.golang.org/grpc/peer"

	"github.com/hearth-metrics/hearth/internal/series"
)

// withCaller adds the caller's address to ctx. People who look for a read that does not end see it there.
func withCaller(ctx context.Context) context.Context {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return ctx
	}
	return series.WithCaller(ctx, p.Addr.String())
}
