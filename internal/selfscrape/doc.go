// Package selfscrape writes a process's own metrics into Hearth, as a Prometheus that scraped it would.
//
// Flow: every Interval: gather the registry -> convert (pure) into a wire.Batch -> push.
//
// The series are those of a scrape with native and classic histograms both kept: the same names, labels, le and
// quantile values, exemplars and metadata; the target's labels job and instance win over a metric's own, which become
// exported_*; up and the scrape_* series beside them; a stale marker for each series that vanished. Start timestamps
// are left out, as Prometheus's defaults do.
//
// Invariants: a vanished series is marked stale until a push with the marker succeeded; one push is under way
// at a time, and none after Close.
package selfscrape
