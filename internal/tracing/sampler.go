package tracing

import (
	"context"
	"fmt"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// Sampler says which requests have spans. A request that asks for it (HeaderForce) always has.
type Sampler struct {
	// Ratio is the part of the requests, 0 to 1, that is sampled, by their trace ids: the same on all processes.
	Ratio float64
	// PerSecond samples that many requests a second instead, on each process; 0 = Ratio counts.
	PerSecond float64
	// FollowParent does as the sender of a request has decided, where it says what that was.
	FollowParent bool
}

// build makes the sampler for the SDK.
func (s Sampler) build() sdktrace.Sampler {
	var inner sdktrace.Sampler
	switch {
	case s.PerSecond > 0:
		inner = perSecond{rate.NewLimiter(rate.Limit(s.PerSecond), max(1, int(s.PerSecond)))}
	case s.Ratio >= 1:
		inner = sdktrace.AlwaysSample()
	case s.Ratio <= 0:
		inner = sdktrace.NeverSample()
	default:
		inner = sdktrace.TraceIDRatioBased(s.Ratio)
	}
	if s.FollowParent || s.PerSecond > 0 {
		inner = sdktrace.ParentBased(inner)
	}
	return forced{inner}
}

// perSecond samples a number of traces a second.
type perSecond struct{ limiter *rate.Limiter }

// ShouldSample takes one of the limiter's places.
func (s perSecond) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	decision := sdktrace.Drop
	if s.limiter.Allow() {
		decision = sdktrace.RecordAndSample
	}
	return sdktrace.SamplingResult{Decision: decision, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
}

// Description is for people.
func (s perSecond) Description() string { return fmt.Sprintf("%v a second", s.limiter.Limit()) }

type forceKey struct{}

// forced samples what asks for it, and the rest as inner says.
type forced struct{ inner sdktrace.Sampler }

// ShouldSample looks for the wish in the context of the span.
func (s forced) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if wish, _ := p.ParentContext.Value(forceKey{}).(bool); wish {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample,
			Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
	}
	return s.inner.ShouldSample(p)
}

// Description is for people.
func (s forced) Description() string { return "forced, or " + s.inner.Description() }

// withForce makes spans that begin with ctx sampled.
func withForce(ctx context.Context) context.Context { return context.WithValue(ctx, forceKey{}, true) }
