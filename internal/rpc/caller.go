package rpc

import (
	"context"

	grpcpeer "google.golang.org/grpc/peer"

	"github.com/hearth-metrics/hearth/internal/series"
)

// named is ctx with the address of who calls, for people who look for a read that does not end.
func withCaller(ctx context.Context) context.Context {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return ctx
	}
	return series.WithCaller(ctx, p.Addr.String())
}
