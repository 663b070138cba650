package tenant

import "context"

type contextKey struct{}

// WithSet returns a context that carries the tenants a read request may see. It exists only because Prometheus's query
// API hands no argument down to a querier; Hearth's own functions take an ID.
func WithSet(ctx context.Context, ids []ID) context.Context {
	return context.WithValue(ctx, contextKey{}, ids)
}

// SetFrom returns the tenants that WithSet stored, or nil. The caller must not change the slice.
func SetFrom(ctx context.Context) []ID {
	ids, _ := ctx.Value(contextKey{}).([]ID)
	return ids
}
