// Command load writes samples to a remote-write receiver as a busy Prometheus would, and reports what they cost its
// processes: CPU seconds per million samples, peak memory, latency, failures.
//
//	go run ./bench/load -url http://127.0.0.1:10902/api/v1/write -pid $(pidof hearth) -scrapes 40 -warmup 4
//
// Flow: the series are cut into requests -> each worker owns some requests, so that a series' samples stay in order ->
// per scrape it patches values and timestamps in place, compresses, sends, and retries what may pass later.
//
// A scrape is one sample of every series. Without -duration the scrapes go out as fast as they are taken, with
// timestamps that end about now; with it, one scrape per -interval in real time. Half of the series are counters that
// rise by steady steps with some noise, half are gauges that wander, so that they compress as real data does. Labels
// and requests are encoded once; the CPU that this program uses itself is in no figure.
package main
