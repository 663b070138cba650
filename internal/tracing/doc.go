// Package tracing follows a request through the processes of a cluster: its id, its spans and its lines in the log.
//
// Flow:
//
//	a flag's YAML  -> ParseConfig -> New -> Tracer, which sends spans to a collector by OTLP
//	a flag's YAML  -> ParseLogRules -> LogRules, which decide which requests have lines in the log
//	HTTP request   -> Observer.HTTP  -> the handlers: Start makes spans below it, Note adds the tenant and the query
//	gRPC call      -> Observer.Begin -> the same
//	call to others -> Observer.Carry (metadata), Observer.Stamp and Resume (one write on a stream), Inject (HTTP)
//
// Files: http.go and grpc.go follow requests, observer.go has what both need, span.go the work inside a request,
// tracer.go the way to the collector; config.go, jaeger.go and logrules.go read the configuration.
//
// Invariants:
//   - Start makes a span only below a recorded one. Without a configuration, and for a request that is not sampled, it
//     gives its context back and allocates nothing (BenchmarkStartUnsampled).
//   - Whether a trace is sampled is decided once, where the request comes in. Calls to others carry that decision.
//   - A collector that does not answer delays no request. Spans wait in a bounded queue, and are dropped when it is
//     full.
//   - The log and the spans hold no credentials and no bodies, and at most maxNote bytes of a query.
//   - A secret of the configuration (a header) is a secret.Text until it is handed to the exporter.
//
// Locks: record.mu guards the notes of one request. It is held for a few steps.
package tracing
