// Package samples makes up the load of the benchmarks: series, their samples, and the remote-write messages that carry
// them.
//
// Half of the series are counters that rise by steady steps with some noise, half are gauges that wander, so that they
// compress as real data does. 12 labels have about 280 bytes. The same Options always make the same bytes.
//
// Flow: Requests cuts the series into requests -> for each scrape an Encoder moves a request's series on and writes its
// message, in place where only values and timestamps change.
package samples
