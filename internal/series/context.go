package series

import "context"

type (
	callerKey   struct{}
	identityKey struct{}
	coverageKey struct{}
)

// WithCaller returns a context that names the caller of a read. People who look for a read that does not end need the
// name.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// Caller returns the name that WithCaller stored, "" for a read that this process started.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// OnIdentity returns a context for one call to a source. heard is called, from any goroutine, with the identity that
// the response itself carries. It is not called when the source does not say whose data it has. An earlier Info of the
// source would prove nothing: by now another process may have its address, or the process may have an empty disk.
func OnIdentity(ctx context.Context, heard func(Identity)) context.Context {
	return context.WithValue(ctx, identityKey{}, heard)
}

// TellIdentity tells the caller that made ctx with OnIdentity whose data a response has. Sources of this process call
// it before their first series. The gRPC client calls it when the header of the response has arrived.
func TellIdentity(ctx context.Context, id Identity) {
	if heard, ok := ctx.Value(identityKey{}).(func(Identity)); ok && id.Instance != "" {
		heard(id)
	}
}

// OnCoverage returns a context for one call to a source. heard is called, from any goroutine, with the blocks that the
// response covers. A source may call it before the first series and again at the end; the last call counts. A source
// that serves no blocks does not call it.
func OnCoverage(ctx context.Context, heard func(Coverage)) context.Context {
	return context.WithValue(ctx, coverageKey{}, heard)
}

// TellCoverage tells the caller that made ctx with OnCoverage which blocks a response covers.
func TellCoverage(ctx context.Context, c Coverage) {
	if heard, ok := ctx.Value(coverageKey{}).(func(Coverage)); ok && (c.Bucket != "" || c.Contents != "") {
		heard(c)
	}
}
