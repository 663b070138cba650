package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/bench/server"
)

// Counts are requests by kind, and the bytes that came with their answers.
type Counts struct {
	ByKind map[string]float64
	Bytes  float64
}

// Total is all requests.
func (c Counts) Total() float64 {
	sum := 0.0
	for _, n := range c.ByKind {
		sum += n
	}
	return sum
}

// Sub is what came since before.
func (c Counts) Sub(before Counts) Counts {
	out := Counts{ByKind: map[string]float64{}, Bytes: c.Bytes - before.Bytes}
	for kind, n := range c.ByKind {
		if n -= before.ByKind[kind]; n != 0 {
			out.ByKind[kind] = n
		}
	}
	return out
}

// String lists the kinds, the most frequent first.
func (c Counts) String() string {
	var kinds []string
	for kind := range c.ByKind {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		if c.ByKind[a] != c.ByKind[b] {
			return int(c.ByKind[b] - c.ByKind[a])
		}
		return strings.Compare(a, b)
	})
	var out []string
	for _, kind := range kinds {
		out = append(out, fmt.Sprintf("%s %.0f", kind, c.ByKind[kind]))
	}
	return strings.Join(out, ", ")
}

// operationsOf reads objstore's metrics in Prometheus's text format. The names of its operations are its own.
func operationsOf(metrics []byte) (Counts, error) {
	out := Counts{ByKind: map[string]float64{}}
	err := server.EachOf(metrics, "thanos_objstore_bucket_operations_total", func(labels string, v float64) {
		_, kind, _ := strings.Cut(labels, `operation="`)
		kind, _, _ = strings.Cut(kind, `"`)
		if v > 0 {
			out.ByKind[kind] += v
		}
	})
	if err != nil {
		return out, err
	}
	out.Bytes, err = server.SumOf(metrics, "thanos_objstore_bucket_operation_fetched_bytes_total")
	return out, err
}
