package series

import "context"

type callerKey struct{}

// WithCaller returns a context that says who reads, for people who look for a read that does not end.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// Caller is the name that WithCaller stored, "" for a read of this process.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}
