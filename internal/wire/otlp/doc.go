// Package otlp translates OTLP metrics (OpenTelemetry's protocol, as protobuf or JSON) into a wire.Batch, through
// Prometheus's own translator: names, labels, histograms and target_info are what Prometheus makes of the same request.
//
// Flow:
//
//	size.go           Size: nesting and memory of a message, before anything is decoded
//	decode.go         Decode: message -> pmetric.Metrics; attributes.go refuses attributes that labels cannot hold
//	translate.go      Translator.Translate: filter -> Prometheus's converter -> sink -> Translation
//	filter.go         what can never be stored is taken out first, with a reason: delta temporality, no timestamp
//	unconvertible.go  only when the converter complains: what it complains of is found and taken out
//	sink.go           the converter's appender: every sample becomes a series of a wire.Batch
//	answer.go         ExportMetricsServiceResponse and google.rpc.Status, in the encoding of the request
//
// Invariants:
//   - One bad data point costs no other one. What is refused is in Batch.Rejected, and counted as data points.
//   - Memory is bounded before it is used: by Size for what is decoded, by the batch's limit for what is made of it.
//   - A message nested deeper than maxDepth is never given to the decoder, which recurses.
//
// It is a package of its own because the translator's dependencies are many: a program that needs only remote write
// does not link them.
//
// Locks: none; a Translator may be used concurrently.
package otlp
