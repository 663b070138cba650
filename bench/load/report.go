package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearth-metrics/hearth/bench/server"
)

// report is the outcome of a run.
type report struct {
	Protocol       string           `json:"protocol"`
	Series         int              `json:"series"`
	Scrapes        int              `json:"scrapes"`
	Samples        int64            `json:"samples"`
	Accepted       int64            `json:"accepted"`
	Failed         int64            `json:"failed"`
	Retries        int64            `json:"retries"`
	Codes          map[string]int64 `json:"codes"`
	FirstProblem   string           `json:"first_problem,omitempty"`
	Seconds        float64          `json:"seconds"`
	SamplesPerSec  float64          `json:"samples_per_second"`
	BytesPerSample float64          `json:"bytes_per_sample"`
	P50            float64          `json:"latency_p50_seconds"`
	P99            float64          `json:"latency_p99_seconds"`
	Processes      []processReport  `json:"processes"`
	// CPU is the sum over the processes.
	CPU           float64 `json:"cpu_seconds"`
	CPUPerMillion float64 `json:"cpu_seconds_per_million_samples"`
}

type processReport struct {
	PID           string  `json:"pid"`
	Command       string  `json:"command"`
	CPU           float64 `json:"cpu_seconds"`
	CPUPerMillion float64 `json:"cpu_seconds_per_million_samples"`
	PeakBytes     int64   `json:"peak_rss_bytes"`
	BytesPerSer   float64 `json:"peak_rss_bytes_per_series"`
}

func newReport(o *options, t *tally, took time.Duration, before, after []server.Usage) report {
	r := report{
		Protocol: o.protocol, Series: o.series, Scrapes: o.scrapes, Samples: t.sent, Accepted: t.accepted, Failed: t.failed,
		Retries: t.retries, Codes: t.codes, FirstProblem: t.firstFailure, Seconds: took.Seconds(),
		SamplesPerSec: float64(t.accepted) / took.Seconds(), BytesPerSample: float64(t.bytes) / float64(max(1, t.sent)),
	}
	slices.Sort(t.latencies)
	r.P50, r.P99 = quantile(t.latencies, 0.5).Seconds(), quantile(t.latencies, 0.99).Seconds()
	millions := float64(max(1, t.accepted)) / 1e6
	for i, pid := range o.pids {
		cpu := after[i].CPU - before[i].CPU
		r.CPU += cpu
		r.Processes = append(r.Processes, processReport{
			PID: pid, Command: after[i].Command, CPU: cpu, CPUPerMillion: cpu / millions,
			PeakBytes: after[i].Peak, BytesPerSer: float64(after[i].Peak) / float64(o.series),
		})
	}
	r.CPUPerMillion = r.CPU / millions
	return r
}

// quantile of sorted durations, 0 when there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (r report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("remote write", "%s, %d series, %d scrapes", r.Protocol, r.Series, r.Scrapes)
	row("samples", "%d sent, %d accepted, %d failed, %d retries", r.Samples, r.Accepted, r.Failed, r.Retries)
	row("rate", "%.0f samples/s over %.1f s, %.1f compressed bytes per sample", r.SamplesPerSec, r.Seconds,
		r.BytesPerSample)
	row("latency", "p50 %.1f ms, p99 %.1f ms", r.P50*1e3, r.P99*1e3)
	var codes []string
	for _, c := range slices.Sorted(maps.Keys(r.Codes)) {
		codes = append(codes, fmt.Sprintf("%s: %d", c, r.Codes[c]))
	}
	row("answers", "%s", strings.Join(codes, ", "))
	if r.FirstProblem != "" {
		row("first problem", "%s", r.FirstProblem)
	}
	for _, p := range r.Processes {
		row(fmt.Sprintf("%s (%s)", p.Command, p.PID), "%.2f CPU s, %.3f per million samples; peak RSS %.1f MiB, %.0f "+
			"bytes per series",
			p.CPU, p.CPUPerMillion, float64(p.PeakBytes)/(1<<20), p.BytesPerSer)
	}
	if len(r.Processes) > 0 {
		row("all processes", "%.2f CPU s, %.3f per million samples", r.CPU, r.CPUPerMillion)
	}
	return t.Flush()
}
