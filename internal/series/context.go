package series

import "context"

type (
	callerKey   struct{}
	identityKey struct{}
	coverageKey struct{}
)

// WithCaller returns a context that says who reads, for people who look for a read that does not end.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// Caller is the name that WithCaller stored, "" for a read of this process.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// OnIdentity returns a context for one call to a source. heard is called, from any goroutine, with the identity that
// the response itself carries. It is not called when the source does not say whose data it has. What the source said in
// an earlier Info does not prove it: by now another process may be at its address, or the same one with an empty disk.
func OnIdentity(ctx context.Context, heard func(Identity)) context.Context {
	return context.WithValue(ctx, identityKey{}, heard)
}

// TellIdentity says whose data a response has to the caller that asked with ctx. Sources of this process call it before
// their first series, the gRPC client when the header of the response has come.
func TellIdentity(ctx context.Context, id Identity) {
	if heard, ok := ctx.Value(identityKey{}).(func(Identity)); ok && id.Instance != "" {
		heard(id)
	}
}

// OnCoverage returns a context for one call to a source. heard is called, from any goroutine, with what the response
// says of the blocks that it covers: before the first series or at the end, and the last one counts. A source that
// serves no blocks does not call it.
func OnCoverage(ctx context.Context, heard func(Coverage)) context.Context {
	return context.WithValue(ctx, coverageKey{}, heard)
}

// TellCoverage says which blocks a response covers to the caller that asked with ctx.
func TellCoverage(ctx context.Context, c Coverage) {
	if heard, ok := ctx.Value(coverageKey{}).(func(Coverage)); ok && c.Bucket != "" {
		heard(c)
	}
}
