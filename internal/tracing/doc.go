// Package tracing follows a request through the processes of a cluster: its id, its spans and its lines in the log.
//
// Flow:
//
//	a flag's YAML  -> ParseConfig -> New -> Tracer, which sends spans to a collector by OTLP
//	a flag's YAML  -> ParseLogRules -> LogRules, which say of which requests the log has lines
//	HTTP request   -> Observer.HTTP  -> the handlers: Start makes spans below it, Note says whose request it is
//	gRPC call      -> Observer.Begin -> the same
//	call to others -> Observer.Carry (metadata), Observer.Stamp and Resume (one write on a stream), Inject (HTTP)
//
// Invariants:
//   - Start makes a span only below one that is recorded. Without a configuration, and for a request that is not sampled, it
//     gives its context back and allocates nothing (BenchmarkStartUnsampled).
//   - Whether a trace is sampled is decided once, where the request comes in. What is sent to other processes says so.
//   - A collector that does not answer never holds up a request: spans wait in a bounded queue, then they are dropped.
//   - The log and the spans have no credentials and no bodies, and of a query no more than maxNote bytes.
//   - A secret of the configuration (a header) is a secret.Text until it is handed to the exporter.
//
// Locks: record.mu guards what is noted of one request; it is held for a few steps.
package tracing
