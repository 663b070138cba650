package tracing

import (
	"context"
	"fmt"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// Sampler decides which requests have spans. A request with HeaderForce always has spans.
type Sampler struct {
	// Ratio is the part of the requests, 0 to 1, that is sampled, by their trace ids: the same on all processes.
	Ratio float64
	// PerSecond is a number of requests that are sampled each second, on each process; 0 = Ratio decides.
	PerSecond float64
	// FollowParent: the decision of the sender of a request counts, if the request carries one.
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
	if s.follows() {
		inner = sdktrace.ParentBased(inner)
	}
	return forced{inner}
}

// follows reports whether a trace that the caller decided not to sample stays so.
func (s Sampler) follows() bool { return s.FollowParent || s.PerSecond > 0 }

// perSecond samples a number of traces per second.
type perSecond struct{ limiter *rate.Limiter }

// ShouldSample implements the SDK's Sampler. It samples if the limiter allows one more.
func (s perSecond) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	decision := sdktrace.Drop
	if s.limiter.Allow() {
		decision = sdktrace.RecordAndSample
	}
	state := trace.SpanContextFromContext(p.ParentContext).TraceState()
	return sdktrace.SamplingResult{Decision: decision, Tracestate: state}
}

// Description implements the SDK's Sampler.
func (s perSecond) Description() string { return fmt.Sprintf("%v a second", s.limiter.Limit()) }

type forceKey struct{}

// forced samples requests with withForce. For all others inner decides.
type forced struct{ inner sdktrace.Sampler }

// ShouldSample implements the SDK's Sampler.
func (s forced) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if force, _ := p.ParentContext.Value(forceKey{}).(bool); force {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample,
			Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
	}
	return s.inner.ShouldSample(p)
}

// Description implements the SDK's Sampler.
func (s forced) Description() string { return "forced, or " + s.inner.Description() }

// withForce returns a context in which the next span is sampled.
func withForce(ctx context.Context) context.Context { return context.WithValue(ctx, forceKey{}, true) }
